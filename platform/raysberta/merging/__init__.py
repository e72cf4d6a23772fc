"""SLERP over safetensors."""

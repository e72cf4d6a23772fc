"""Merges of models: slerp and weighted means over safetensors."""

"""Layers of an encoder that are left out, chosen by what their absence changes."""

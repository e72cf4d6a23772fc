"""Embed texts, index vectors, search."""

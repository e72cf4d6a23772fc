"""Fit an encoder's vocabulary to a corpus."""

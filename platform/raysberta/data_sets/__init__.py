"""Existing data sets of pairs: where each is from, how its rows become pairs, and the snapshot that a run reads."""

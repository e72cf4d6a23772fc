"""Load, pool, extend or trim the vocabulary, save."""

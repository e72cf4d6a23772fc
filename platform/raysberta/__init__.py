"""RaySBERTa: from raw text to a published sentence-embedding model, on Ray."""

__version__ = "0.1.0"

"""Web text to documents."""

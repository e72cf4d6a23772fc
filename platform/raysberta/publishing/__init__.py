"""The model folder, its card and the report."""

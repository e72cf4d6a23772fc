"""Documents and data sets to pairs."""

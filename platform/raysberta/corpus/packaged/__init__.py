"""Documents from files that pip packages carry, read in place, the packages never imported."""

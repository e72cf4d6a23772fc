"""Choose hard negatives."""

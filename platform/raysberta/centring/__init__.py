"""What is the same in all vectors of a model, taken away from each."""

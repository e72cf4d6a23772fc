"""A model from parts: what is joined, how the new parts begin, and a proof of what each token sees."""

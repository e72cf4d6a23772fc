"""The recipe's graph as stages, run on Ray."""

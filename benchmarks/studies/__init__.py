"""One-off studies whose figures are in docs/results."""

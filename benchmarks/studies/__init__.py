"""One-off studies; their results are in docs/results."""

"""`make demo`: the whole way once."""

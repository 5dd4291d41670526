"""Faces that a board keeps for a person to review: which ones, encrypted how, and what was said of them."""

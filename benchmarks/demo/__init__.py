"""`make demo`: every stage once, from faces to verdicts."""

"""From logits to verdicts: scoring, decisions, tracking, results."""

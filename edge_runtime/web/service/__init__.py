"""Judging behind the HTTP layer: queue, uploads, heat maps, live camera, metrics."""

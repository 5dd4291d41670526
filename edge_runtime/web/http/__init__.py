"""The HTTP layer: limits, access control, sessions, forms, error answers, streams."""

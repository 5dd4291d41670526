"""What lies on the board: frames in, verdicts out."""

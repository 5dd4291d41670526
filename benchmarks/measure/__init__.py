"""What edge-benchmark measures and how: plan, worker processes, timing, accuracy."""

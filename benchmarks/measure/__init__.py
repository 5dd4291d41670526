"""Measuring: plan, rounds in worker processes, timing, sensors, accuracy."""

"""Measuring a detector: logits, metrics, calibration, robustness."""

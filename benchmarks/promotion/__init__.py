"""compare-detectors: whether a new detector may replace the old one."""

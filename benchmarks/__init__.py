"""Which precision, which device, which backbone: measured, with the circumstances."""

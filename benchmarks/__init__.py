"""Measures which precision, device and backbone to use on a machine."""

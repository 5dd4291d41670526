"""Packs, installs and maintains the detector on a board."""

__version__ = "0.1.0"

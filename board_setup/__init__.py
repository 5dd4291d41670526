"""Packs, installs and maintains the detector on a board."""

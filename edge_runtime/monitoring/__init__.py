"""Notices that a board's faces are no longer like those its detector was measured on."""

"""The errors of `setup-board`, each printed as one line."""


class BoardError(Exception):
    """What failed, and what to do about it."""

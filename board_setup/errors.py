"""The one family of errors of `setup-board`, each told in one line."""


class BoardError(Exception):
    """What can't be done, and what to do about it."""

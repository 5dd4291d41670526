"""The errors of `setup-board`, each printed as one line, and text from outside made safe for a terminal."""


class BoardError(Exception):
    """What failed, and what to do about it; the command ends with `exit_code`."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message as one printable line, whatever names it quotes."""
        return printable(" ".join(super().__str__().splitlines()))


def printable(text: str) -> str:
    """Return `text` with control characters escaped, so that it can't move the cursor or colour the terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )

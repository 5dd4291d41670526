"""Text from files, cameras and models, made safe to print on a terminal."""


def printable(text: str) -> str:
    """Return `text` with control characters and bytes that are not UTF-8 escaped, on one line."""
    clean = " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode()
    return clean if clean.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in clean)

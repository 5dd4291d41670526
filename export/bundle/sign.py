"""Signs a bundle before it is put in place, so that a signed one is only ever replaced by a signed one."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from board_setup import signatures
from edge_runtime.errors import UsageError

TRIES = 3
"""Times that a passphrase may be typed, since the export before it took minutes."""


def check_key(key: str) -> None:
    """Check, before any work is done, that `key` can sign.

    Raises:
        UsageError: it is missing, or the passphrase that was typed is another.
    """
    with _signing_errors(key):
        signatures.sign(b"", key, signatures.BUNDLE_NAMESPACE)


def sign_folder(folder: Path, key: str, tries: int = TRIES) -> str:
    """Sign the bundle in `folder`; return until which day that holds.

    Raises:
        UsageError: the key can't be used, on a terminal after so many `tries`, or the signature can't be written.
    """
    try:
        with _signing_errors(key):
            return signatures.day(signatures.sign_bundle(str(folder), key))
    except UsageError as error:
        if tries == 1 or not sys.stdin.isatty():
            raise
        print(f"{error}; trying again", file=sys.stderr)
    return sign_folder(folder, key, tries - 1)


@contextlib.contextmanager
def _signing_errors(key: str) -> Iterator[None]:
    try:
        yield
    except signatures.SigningError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--sign {key}: can't sign ({reason}); make room at --out and in the folder TMPDIR") from error

"""Encryption of kept faces in the age format (age-encryption.org): anyone with the public key, so also a thief of the
board, can write, but only the holder of the private key can read.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_runtime.errors import PictureError, UsageError

SUFFIX = ".age"


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise UsageError("encrypted reviews need pyrage; run pip install pyrage") from None
    return pyrage


def sealer(public_keys: Sequence[str]) -> Callable[[bytes], bytes]:
    """Return a function that encrypts bytes so that each of the private keys to `public_keys` can read them.

    Raises:
        UsageError: one is not an age public key, or pyrage is missing.
    """
    pyrage = _pyrage()
    try:
        recipients = [pyrage.x25519.Recipient.from_str(text.strip()) for text in public_keys]
    except pyrage.RecipientError:
        # The key is not named: it may be a private one.
        raise UsageError(
            "--review-key: not an age public key; give the one that `edge-serve keygen FILE` prints, age1…"
        ) from None
    return lambda data: bytes(pyrage.encrypt(data, recipients))


class PrivateKey:
    """The private key in a file as `edge-serve keygen` or `age-keygen` writes it.

    Raises:
        UsageError: the file can't be read, others can read it, or it holds no key.
    """

    def __init__(self, path: Path) -> None:
        pyrage = _pyrage()
        self._error, self._decrypt = pyrage.DecryptError, pyrage.decrypt
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a key"
            raise UsageError(f"{path}: can't be read ({why}); give the file that `edge-serve keygen` wrote") from None
        try:
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            self._identities = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines]
        except pyrage.IdentityError:
            self._identities = []
        if not self._identities:
            raise UsageError(f"{path}: holds no private key; make one with `edge-serve keygen FILE`")
        if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{path}: others can read this private key; run `chmod 600 {path}`")

    def opened(self, data: bytes) -> bytes:
        """Return what was encrypted.

        Raises:
            PictureError: it was encrypted for another key, or is damaged.
        """
        try:
            return bytes(self._decrypt(data, self._identities))
        except self._error as error:
            raise PictureError(f"can't be decrypted ({error})") from None


def write_key_pair(path: Path) -> str:
    """Write a new private key to `path`, for its owner alone, and return the public key.

    Raises:
        UsageError: the file exists or can't be written.
    """
    identity = _pyrage().x25519.Identity.generate()
    public = str(identity.to_public())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"# public key: {public}\n{identity}\n")
    except FileExistsError:
        raise UsageError(f"{path}: already exists; a new key can't read what was encrypted for the old one") from None
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror}); choose another file") from None
    return public

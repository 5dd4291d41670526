"""Keys for signing kits, and signing a kit; `board_setup.board.signing` is the board's side."""

import hashlib
import io
import json
import os
import shlex
import subprocess
import tarfile
import tempfile
import time
from typing import Dict, Optional, Sequence

from board_setup.board import disk
from board_setup.board.kit import MANIFEST, SIGNATURE, STATEMENT, KitError, kit_of, read_head
from board_setup.board.signing import NAMESPACE, Statement
from board_setup.signatures import KEY_NAME, VALID_DAYS, SigningError, find_signer, public_key, sign


def make_key(path: str, *, passphrase: bool = True) -> None:
    """Make a pair of Ed25519 keys, `path` and `path`.pub; ssh-keygen asks for a passphrase on the terminal.

    Raises:
        SigningError: a file of that name exists, or ssh-keygen failed.
    """
    name = os.path.basename(path)
    if not KEY_NAME.fullmatch(name):
        raise SigningError(f"{path}: not a name for a key; use letters, digits, '.', '_' and '-'")
    if os.path.isfile(path) and not os.path.lexists(f"{path}.pub"):
        quoted = shlex.quote(path)
        raise SigningError(f"{path}: already exists without {name}.pub; run: ssh-keygen -y -f {quoted} > {quoted}.pub")
    for existing in (path, f"{path}.pub"):
        if os.path.lexists(existing):
            raise SigningError(
                f"{existing}: already exists; choose another name: an overwritten key can't be recovered"
            )
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise SigningError(f"{path}: folder {folder} does not exist; create it first")
    # Beside it, so that an interruption leaves both files, none, or the private key, from which the other can be made.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = os.path.join(scratch, name)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-C", f"{name} signs deepfake-edge", "-f", made]
        try:
            code = subprocess.call(command if passphrase else [*command, "-N", ""])
        except FileNotFoundError:
            raise SigningError("ssh-keygen is not installed; run: sudo apt-get install openssh-client") from None
        if code or not os.path.exists(f"{made}.pub"):
            raise SigningError(f"{path}: no key was made (ssh-keygen ended with {code}); run the same command again")
        os.rename(made, path)
        os.rename(f"{made}.pub", f"{path}.pub")


def sign_kit(
    path: str,
    key: str,
    *,
    valid_days: float = VALID_DAYS,
    counter: Optional[int] = None,
    trust: Sequence[str] = (),
    now: Optional[float] = None,
) -> Statement:
    """Sign a kit, in place of an earlier signature, and return what was stated.

    Args:
        path: the kit.
        key: the private key; or the public one, if an ssh-agent holds the private one.
        valid_days: after this time boards refuse the kit.
        counter: boards refuse a kit whose counter is not above that of the last installed one; None is the Unix time.
        trust: files of the public keys that boards trust from then on; empty to change nothing. The key that signs must
            be among them, since a board that no longer trusts it could not repeat an interrupted installation.
        now: seconds since 1970.

    Raises:
        KitError: it is not a kit, or can't be written.
        SigningError: the key can't be used.
    """
    head = read_head(path)
    kit_of(head, path)
    now = time.time() if now is None else now
    keys: Dict[str, str] = {}
    for file in trust:
        found = public_key(file)
        if keys.setdefault(os.path.basename(file)[: -len(".pub")], found) != found:
            raise SigningError(f"--trust {file}: another key has this name too; rename one of the files")
    digest = hashlib.sha256(head.manifest).hexdigest()
    statement = Statement(digest, int(now) if counter is None else counter, int(now + 86400 * valid_days), keys)
    text = json.dumps(statement._asdict(), indent=1).encode()
    signature = sign(text, key, NAMESPACE)
    if keys:
        try:
            find_signer(text, signature, keys, NAMESPACE, path)
        except SigningError:
            raise SigningError(
                f"--trust leaves out {key}, which signs this kit; add it with --trust, and drop it in the next kit"
            ) from None
    _rewrite(path, {MANIFEST: head.manifest, STATEMENT: text, SIGNATURE: signature})
    return statement


def _rewrite(path: str, first: "dict[str, bytes]") -> None:
    """Replace the first files of a kit, keeping all others."""
    try:
        with disk.atomic(path) as partial, tarfile.open(path, "r:") as old, tarfile.open(partial, "w") as new:
            for name, data in first.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), int(time.time())
                new.addfile(member, io.BytesIO(data))
            for member in old:
                if member.name not in first:
                    new.addfile(member, old.extractfile(member))
    except (OSError, tarfile.TarError, EOFError) as error:
        raise KitError(f"{path}: can't be signed ({error})") from None

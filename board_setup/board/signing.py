"""Signatures of kits: a board accepts only kits signed with a trusted key, in date, and not older than the last one.

Behind its manifest a signed kit holds `signature.json`, a statement about the kit, and its signature by `ssh-keygen -Y
sign`. The trusted keys are the `.pub` files of one folder. Without that folder, any kit is accepted.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
import tempfile
import time
from typing import Dict, List, NamedTuple, Optional

from board_setup.board import disk
from board_setup.board.kit import Head
from board_setup.board.layout import Layout
from board_setup.errors import BoardError

NAMESPACE = "deepfake-edge-kit"
"""What the signature is for: ssh-keygen refuses one that was made with the same key for anything else."""

BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
KEY_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[\w@.-]+ [A-Za-z0-9+/]+=*)(?: [^\n]*)?\n?", re.ASCII)


class SigningError(BoardError):
    """A kit can't be signed, or its signature is missing or not acceptable here."""


class Statement(NamedTuple):
    """What is signed.

    Attributes:
        kit: SHA-256 of the kit's manifest, which holds that of every file.
        counter: grows from kit to kit.
        expires: seconds since 1970.
        trust: the keys that boards trust once the kit is installed, by name; empty to change nothing.
    """

    kit: str
    counter: int
    expires: int
    trust: Dict[str, str]


class Approval(NamedTuple):
    """Who signed a kit and what it states; both None where no keys are set up."""

    signer: Optional[str]
    statement: Optional[Statement]

    def __str__(self) -> str:
        if self.statement is None:
            return "not checked, since this board has no trusted keys"
        renewed = f", trusts {', '.join(sorted(self.statement.trust))} from now on" if self.statement.trust else ""
        return f"by {self.signer}, valid until {day(self.statement.expires)}, counter {self.statement.counter}{renewed}"


def approve(head: Head, layout: Layout, path: str, *, now: Optional[float] = None) -> Approval:
    """Check a kit's signature, its date and its counter.

    Args:
        head: the beginning of the kit.
        layout: the board, with its trusted keys and the counter of the last signed kit.
        path: the kit's path, for messages.
        now: seconds since 1970.

    Raises:
        SigningError: the kit is unsigned, forged, expired or older than the one installed.
    """
    if not os.path.lexists(layout.trusted):
        return Approval(None, None)
    keys = trusted_keys(layout.trusted)
    if not head.statement or not head.signature:
        raise SigningError(
            f"{path}: unsigned; this board accepts only kits signed with a key in {layout.trusted}; "
            f"on the workstation run: setup-board sign kit.tar --key KEY"
        )
    signer = _signer(head, keys, path)
    statement = parse_statement(head.statement, path)
    if hashlib.sha256(head.manifest).hexdigest() != statement.kit:
        raise SigningError(f"{path}: forged: its signature belongs to another kit; do not use this kit")
    now = time.time() if now is None else now
    if statement.expires <= now:
        raise SigningError(
            f"{path}: expired on {day(statement.expires)} (this board's clock says {day(now)}); sign it again"
        )
    last = last_signed(layout)
    if (statement.counter, statement.kit) != (last.counter, last.kit) and statement.counter <= last.counter:
        raise SigningError(
            f"{path}: older than the last kit installed here (counter {statement.counter}, here {last.counter}); "
            "to use it all the same, sign it again"
        )
    return Approval(signer, statement)


def trusted_keys(folder: str) -> Dict[str, str]:
    """Return the keys in a folder by name; other files are ignored.

    Raises:
        SigningError: there are none, one is not a public key, or others than the owner may write there.
    """
    keys = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".pub"):
            keys[name[: -len(".pub")]] = public_key(os.path.join(folder, name))
    if not keys:
        raise SigningError(f"{folder}: holds no key, so every kit is refused; put a key there, or remove the folder")
    if os.stat(folder).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SigningError(f"{folder}: others than its owner may write there; run: sudo chmod 755 {folder}")
    return keys


def public_key(path: str) -> str:
    """Return type and key of a `.pub` file as ssh-keygen writes it, without the comment.

    Raises:
        SigningError: it is not one public key, or its name can't be that of a signer.
    """
    found = KEY.fullmatch(disk.read_text(path))
    name = os.path.basename(path)[: -len(".pub")]
    if not found or not path.endswith(".pub") or not KEY_NAME.fullmatch(name):
        raise SigningError(f"{path}: not a public key NAME.pub as setup-board keygen makes it; replace or remove it")
    return found.group(1)


def parse_statement(text: bytes, path: str) -> Statement:
    """Return the statement of `signature.json`.

    Raises:
        SigningError: it is not one.
    """
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(text.decode())
        if disk.has_shape(values, {"kit": str, "counter": int, "expires": int, "trust": {disk.ANY: str}}):
            statement = Statement(**{name: values[name] for name in Statement._fields})
            named = all(KEY_NAME.fullmatch(name) and KEY.fullmatch(key) for name, key in statement.trust.items())
            if named:
                return statement
    raise SigningError(f"{path}: its signature.json can't be read; sign it again with this version of setup-board")


def _signer(head: Head, keys: Dict[str, str], path: str) -> str:
    """Return the name of the trusted key that signed the statement."""
    _require_canonical(head.signature, path)
    with tempfile.TemporaryDirectory() as folder:
        allowed, signature = os.path.join(folder, "allowed"), os.path.join(folder, "signature")
        with open(allowed, "w", encoding="ascii") as file:
            file.writelines(f'{name} namespaces="{NAMESPACE}" {key}\n' for name, key in keys.items())
        with open(signature, "wb") as binary:
            binary.write(head.signature)
        found = ssh_keygen(["find-principals", "-f", allowed, "-s", signature])
        name = found.stdout.decode(errors="replace").split("\n")[0]
        if found.returncode or name not in keys:
            raise SigningError(
                f"{path}: forged, or signed with a key that this board does not trust (it trusts {', '.join(keys)})"
            )
        verify = ["verify", "-f", allowed, "-I", name, "-n", NAMESPACE, "-s", signature]
        if ssh_keygen(verify, head.statement).returncode:
            raise SigningError(f"{path}: forged: the signature does not match; do not use this kit")
    return name


def _require_canonical(signature: bytes, path: str) -> None:
    """Refuse a signature that ssh-keygen would read but not write, so that no other bytes mean the same."""
    body = signature[len(BEGIN) : -len(END)]
    with contextlib.suppress(binascii.Error):
        text = base64.b64encode(base64.b64decode(body))
        lines = b"".join(text[start : start + 70] + b"\n" for start in range(0, len(text), 70))
        if signature == BEGIN + lines + END:
            return
    raise SigningError(f"{path}: its signature is damaged; copy or sign it again")


def ssh_keygen(arguments: List[str], stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run `ssh-keygen -Y`, and return how it ended.

    Raises:
        SigningError: it is not installed.
    """
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError:
        raise SigningError("ssh-keygen is not installed; run: sudo apt-get install openssh-client") from None


class LastSigned(NamedTuple):
    """The last signed kit that was installed: its counter, the SHA-256 of its manifest, its version, and the signer."""

    counter: int = 0
    kit: str = ""
    version: str = ""
    signer: str = ""


def last_signed(layout: Layout) -> LastSigned:
    """Return the record of the last signed kit; counter 0 if there was none.

    Raises:
        DamagedError: it can't be read.
    """
    shape = {"counter": int, "kit": str, "version": str, "signer": str}
    return LastSigned(**disk.read_json(_record(layout), LastSigned()._asdict(), shape))


def is_recorded(approval: Approval, layout: Layout) -> bool:
    """Return whether the counter of a kit is recorded and its keys are the trusted ones."""
    if approval.statement is None:
        return True
    trust = approval.statement.trust
    return last_signed(layout).counter >= approval.statement.counter and (
        not trust or trusted_keys(layout.trusted) == trust
    )


def record(approval: Approval, layout: Layout, version: str) -> None:
    """Record the counter of an installed kit, and trust the keys that it names instead of those until now."""
    statement = approval.statement
    if statement is None:
        return
    latest = LastSigned(statement.counter, statement.kit, version, approval.signer or "")
    disk.write(_record(layout), json.dumps(latest._asdict()))
    for name, key in statement.trust.items():
        disk.write(os.path.join(layout.trusted, f"{name}.pub"), f"{key}\n")
    for name in trusted_keys(layout.trusted) if statement.trust else ():
        if name not in statement.trust:
            os.unlink(os.path.join(layout.trusted, f"{name}.pub"))


def _record(layout: Layout) -> str:
    # Beside the keys, so that removing and installing again does not open the way to older kits.
    return os.path.join(layout.trusted, "last.json")


def day(seconds: float) -> str:
    """Return a time as its date (UTC)."""
    return time.strftime("%Y-%m-%d", time.gmtime(min(seconds, 253402300799)))

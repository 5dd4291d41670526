"""Signatures of kits: a board accepts only kits signed with a trusted key, in date, and not older than the last one.

Behind its manifest a signed kit holds `signature.json`, a statement about the kit, and its signature by `ssh-keygen -Y
sign`. The trusted keys are the `.pub` files of one folder. Without that folder, any kit is accepted.
"""

import contextlib
import hashlib
import json
import os
import time
from typing import Dict, NamedTuple, Optional

from board_setup.board import disk, versions
from board_setup.board.kit import Head
from board_setup.board.layout import Layout
from board_setup.signatures import KEY, KEY_NAME, SigningError, day, find_signer, has_keys, trusted_keys

NAMESPACE = "deepfake-edge-kit"
"""What the signature is for, see `board_setup.signatures`."""


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
    if not has_keys(layout.trusted):
        return Approval(None, None)
    keys = trusted_keys(layout.trusted)
    if not head.statement or not head.signature:
        raise SigningError(
            f"{path}: unsigned; this board accepts only kits signed with a key in {layout.trusted}; "
            f"on the workstation run: setup-board sign kit.tar --key KEY"
        )
    signer = find_signer(head.statement, head.signature, keys, NAMESPACE, path)
    statement = parse_statement(head.statement, path)
    if hashlib.sha256(head.manifest).hexdigest() != statement.kit:
        raise SigningError(f"{path}: forged: its signature belongs to another kit; do not use this kit")
    now = time.time() if now is None else now
    if statement.expires <= now:
        raise SigningError(
            f"{path}: expired on {day(statement.expires)} (this board's clock says {day(now)}); "
            "set the clock, or sign it again"
        )
    last = last_signed(layout)
    if (statement.counter, statement.kit) != (last.counter, last.kit) and statement.counter <= last.counter:
        raise SigningError(
            f"{path}: older than the last kit installed here (counter {statement.counter}, here {last.counter}); "
            f"to use it all the same, sign it with --counter {last.counter + 1}"
        )
    return Approval(signer, statement)


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


REMEDY = (
    "without it older kits could come back; restore it from a backup, or replace its text by "
    '{"counter": N, "kit": "", "version": "", "signer": ""}, where N is the counter of the last kit installed here'
)


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
    return LastSigned(**disk.read_json(_record(layout), LastSigned()._asdict(), shape, remedy=REMEDY))


def signer(layout: Layout, version: str) -> str:
    """Return the key that signed an installed version's kit, empty if none did.

    Raises:
        DamagedError: the record of it can't be read.
    """
    known = next((entry.signer for entry in versions.history(layout) if entry.id == version), "")
    if known or not version:
        return known
    # Earlier versions of this tool knew only who signed the last one.
    last = last_signed(layout)
    return last.signer if last.version == version else ""


def is_recorded(approval: Approval, layout: Layout, version: str) -> bool:
    """Return whether the counter of a version's kit and who signed it are recorded, and its keys the trusted ones."""
    if approval.statement is None:
        return True
    trust = approval.statement.trust
    return (
        last_signed(layout).counter >= approval.statement.counter
        and signer(layout, version) == approval.signer
        and (not trust or trusted_keys(layout.trusted) == trust)
    )


def record(approval: Approval, layout: Layout, version: str) -> None:
    """Record the counter of an installed kit and who signed it, and trust its keys instead of those until now."""
    statement = approval.statement
    if statement is None:
        return
    last, latest = last_signed(layout), LastSigned(statement.counter, statement.kit, version, approval.signer or "")
    # First, while the record of the last kit still names its signer.
    versions.remember_signers(layout, {last.version: signer(layout, last.version), version: latest.signer})
    disk.write(_record(layout), json.dumps(latest._asdict()))
    for name, key in statement.trust.items():
        path = os.path.join(layout.trusted, f"{name}.pub")
        with disk.atomic(path) as partial, open(partial, "w", encoding="ascii") as file:
            # Under another umask no key would be accepted any more.
            os.fchmod(file.fileno(), 0o644)
            file.write(f"{key}\n")
    for name in trusted_keys(layout.trusted) if statement.trust else ():
        if name not in statement.trust:
            os.unlink(os.path.join(layout.trusted, f"{name}.pub"))


def _record(layout: Layout) -> str:
    # Beside the keys, so that removing and installing again does not open the way to older kits.
    return os.path.join(layout.trusted, "last.json")

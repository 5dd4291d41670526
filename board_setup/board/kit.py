"""The offline kit: one tar with everything a board needs and the SHA-256 of every file.

kit.json         what the kit is, and its files
signature.json   who vouches for kit.json (`board_setup.board.signing`), and signature.json.sig, if it was signed
wheels/          the runtime and its dependencies, and pip to install them
bundle/          the detector in the chosen precisions
setup-board.pyz  this tool
python/          a standalone Python, if one was given
debs/            driver packages, if any were given
report/          what compare-detectors said about this detector and the one before, if it was asked
"""

import hashlib
import json
import os
import re
import tarfile
from typing import IO, Any, Dict, List, NamedTuple

from board_setup.board import disk
from board_setup.errors import BoardError

FORMAT = 1
MANIFEST = "kit.json"
STATEMENT = "signature.json"
SIGNATURE = "signature.json.sig"
TOOL = "setup-board.pyz"
BUNDLE = "bundle/"
DEBS = "debs/"
REPORT = "report/"
MANIFEST_BYTES = 1 << 24
"""More than any kit's kit.json."""

READ_ERRORS = (tarfile.TarError, EOFError, OSError, ValueError, KeyError, OverflowError, RecursionError, MemoryError)
"""What tarfile and json raise on a damaged kit."""


class KitError(BoardError):
    """A kit that can't be made or used."""


class Kit(NamedTuple):
    """The content of `kit.json`.

    Attributes:
        id: the version that it installs, such as 1.4.0-3f2a91c0.
        python: the Python that its wheels are for, such as 3.10.
        requirement: the runtime, such as deepfake-edge==0.1.0.
        archive: path of the standalone Python inside the kit, empty if the board's own is used.
        files: SHA-256 by path inside the kit.
    """

    id: str
    python: str
    requirement: str
    archive: str
    files: Dict[str, str]

    @property
    def wheels_id(self) -> str:
        """Identify the set of wheels and their Python: kits in which these are equal share a virtual environment."""
        wheels = sorted((name, digest) for name, digest in self.files.items() if name.startswith("wheels/"))
        return hashlib.sha256(repr((self.python, self.files.get(self.archive, ""), wheels)).encode()).hexdigest()[:12]


class Head(NamedTuple):
    """The bytes of a kit's first files: `kit.json` and, if it was signed, `signature.json` and `signature.json.sig`."""

    manifest: bytes
    statement: bytes = b""
    signature: bytes = b""


def read_head(path: str) -> Head:
    """Read the beginning of a kit.

    Raises:
        KitError: it is missing, not a kit, or damaged.
    """
    parts: List[bytes] = []
    try:
        with tarfile.open(path, "r:") as tar:
            # These files are the first, so that the rest need not be read, or trusted, to find them.
            for name in (MANIFEST, STATEMENT, SIGNATURE):
                member = tar.next()
                source = tar.extractfile(member) if member and member.name == name and member.isreg() else None
                if source is None:
                    break
                parts.append(source.read(MANIFEST_BYTES))
    except FileNotFoundError:
        raise KitError(f"{path}: not found; make a kit with: setup-board pack --out {path}") from None
    except READ_ERRORS as error:
        raise KitError(f"{path}: not a kit, or cut off ({error}); copy or pack it again") from None
    if not parts:
        raise KitError(f"{path}: not a kit: it does not begin with {MANIFEST}; make one with: setup-board pack")
    return Head(*parts)


def read_kit(path: str) -> Kit:
    """Read and validate the manifest of a kit.

    Raises:
        KitError: it is missing, not a kit, damaged, or of another format.
    """
    return kit_of(read_head(path), path)


def kit_of(head: Head, path: str) -> Kit:
    """Return the kit that a head describes; `path` is for messages.

    Raises:
        KitError: its manifest is damaged or of another format.
    """
    try:
        values = json.loads(head.manifest.decode())
    except (ValueError, RecursionError) as error:
        raise KitError(f"{path}: not a kit, or cut off ({error}); copy or pack it again") from None
    return parse_manifest(values, path)


def parse_manifest(values: Any, path: str) -> Kit:
    """Return the kit that the JSON of its manifest describes; `path` is for messages.

    Raises:
        KitError: it is damaged, of another format, or names files outside the kit.
    """
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        number = repr(found)[:40]
        raise KitError(
            f"{path}: format {number}, this tool reads {FORMAT}; use the setup-board.pyz packed with the kit"
        )
    fields = {name: values.get(name) for name in Kit._fields}
    wrong = next((name for name in Kit._fields if not _is_valid(name, fields)), None)
    if wrong:
        raise KitError(f"{path}: {MANIFEST} has no valid {wrong!r}; pack it again")
    for name in fields["files"]:
        if name.startswith("/") or ".." in name.split("/"):
            raise KitError(f"{path}: {name!r} points outside the kit; do not use this kit")
    return Kit(**fields)


def _is_valid(name: str, fields: Dict[str, Any]) -> bool:
    """Return whether a field of the manifest has its type and form; pip and the terminal get these texts unchanged."""
    value = fields[name]
    if name == "files":
        return isinstance(value, dict) and all(
            path.isprintable() and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
            for path, digest in value.items()
        )
    if not isinstance(value, str) or not value.isprintable():
        return False
    if name == "archive":
        return value == "" or (isinstance(fields["files"], dict) and value in fields["files"])
    if name == "id":
        return 0 < len(value) < 200 and "/" not in value and value not in (".", "..")
    pattern = {"python": r"3\.\d{1,2}", "requirement": r"deepfake-edge(\[[a-z,]+\])?==[\w.+!]+"}[name]
    return re.fullmatch(pattern, value) is not None


def unpack(path: str, folder: str, kit: Kit) -> None:
    """Unpack a kit and check every file against its SHA-256 in `kit`, which was read, and approved, before.

    Raises:
        KitError: a file is missing, changed, or not in the manifest.
        OSError: the disk is full.
    """
    seen = set()
    try:
        with tarfile.open(path, "r:") as tar:
            end = 0
            for member in tar:
                # After a negative size tarfile would read earlier files again, endlessly (CVE-2025-8194).
                if tar.offset <= end:
                    raise tarfile.ReadError("negative size")
                end = tar.offset
                if member.name in (MANIFEST, STATEMENT, SIGNATURE):
                    continue
                # A sparse file of a few bytes could fill the disk.
                source = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if source is None or member.name not in kit.files:
                    raise KitError(f"{path}: {member.name!r} is not in its {MANIFEST}; do not use this kit")
                copy_checked(source, os.path.join(folder, member.name), kit.files[member.name], path)
                seen.add(member.name)
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno in disk.FULL:
            raise
        raise KitError(f"{path}: can't be unpacked ({error}); copy or pack it again") from None
    missing = sorted(set(kit.files) - seen)
    if missing:
        raise KitError(f"{path}: {missing[0]} is missing; copy or pack it again")


def copy_checked(source: IO[bytes], target: str, digest: str, origin: str) -> None:
    """Copy an open file and compare its SHA-256.

    Raises:
        KitError: it differs from `digest`; the message names `origin`.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    found = hashlib.sha256()
    with open(target, "wb") as file:
        for block in iter(lambda: source.read(1 << 20), b""):
            found.update(block)
            file.write(block)
    if found.hexdigest() != digest:
        raise KitError(f"{origin}: {os.path.basename(target)} was changed; copy or make it again")

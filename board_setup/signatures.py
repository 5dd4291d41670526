"""Signatures by `ssh-keygen -Y`, and the keys that a machine trusts; standard library only, since all packages use it.

A signature is over a short statement that names the SHA-256 of a kit's or bundle's manifest, which holds that of every
file. A bundle's statement and signature are one file, `model.json.sig`.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import tempfile
import time
from typing import Dict, List, NamedTuple, Optional

from board_setup.board import disk
from board_setup.errors import BoardError

BUNDLE_NAMESPACE = "deepfake-edge-bundle"
"""What the signature is for: ssh-keygen refuses one that was made with the same key for anything else."""

BUNDLE_MANIFEST, BUNDLE_SIGNATURE = "model.json", "model.json.sig"

VALID_DAYS = 365
BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
KEY_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[\w@.-]+ [A-Za-z0-9+/]+=*)(?: [^\n]*)?\n?", re.ASCII)


class SigningError(BoardError):
    """Something can't be signed, or its signature is missing or not acceptable here."""


def has_keys(folder: str) -> bool:
    """Return whether keys are set up in a folder, so that what is unsigned is refused.

    Raises:
        SigningError: the folder can't be checked.
    """
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SigningError(f"{folder}: can't be read ({error.strerror}); give this user read access") from None
    return True


def trusted_keys(folder: str) -> Dict[str, str]:
    """Return the keys in a folder by name; other files are ignored.

    Raises:
        SigningError: there are none, one is not a public key, others than the owner may write there or change a key,
            or it can't be read.
    """
    keys = {}
    try:
        names, found = sorted(os.listdir(folder)), os.stat(folder)
    except OSError as error:
        raise SigningError(f"{folder}: can't be read ({error.strerror}); give this user read access") from None
    for name in names:
        if name.endswith(".pub"):
            path = os.path.join(folder, name)
            keys[name[: -len(".pub")]] = public_key(path)
            key = os.stat(path)
            if key.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise SigningError(f"{path}: others than its owner may change this key; run: chmod 644 {path}")
            if key.st_uid not in (0, found.st_uid):
                raise SigningError(
                    f"{path}: the owner of the folder does not own this key; run: chown {found.st_uid} {path}"
                )
    if not keys:
        raise SigningError(
            f"{folder}: holds no key, so every kit and bundle is refused; put a key there, or remove the folder"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SigningError(f"{folder}: others than its owner may write there; run: chmod 755 {folder}")
    return keys


def public_key(path: str) -> str:
    """Return type and key of a `.pub` file as ssh-keygen writes it, without the comment.

    Raises:
        SigningError: it is not one public key, or its name can't be that of a signer.
    """
    if not os.path.exists(path):
        raise SigningError(f"{path}: not found; make a pair of keys with: setup-board keygen")
    found = KEY.fullmatch(disk.read_text(path))
    name = os.path.basename(path)[: -len(".pub")]
    if not found or not path.endswith(".pub") or not KEY_NAME.fullmatch(name):
        raise SigningError(f"{path}: not a public key NAME.pub as setup-board keygen makes it; replace or remove it")
    return found.group(1)


def sign(text: bytes, key: str, namespace: str) -> bytes:
    """Return the signature of `text`.

    Raises:
        SigningError: the key can't be used.
    """
    if not os.path.isfile(key):
        raise SigningError(f"{key}: no such key; make one with: setup-board keygen {key}")
    with tempfile.TemporaryDirectory() as folder:
        message = os.path.join(folder, "statement")
        with open(message, "wb") as file:
            file.write(text)
        done = ssh_keygen(["sign", "-f", key, "-n", namespace, message])
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise SigningError(f"{key}: can't sign ({lines[-1] if lines else done.returncode})")
        with open(f"{message}.sig", "rb") as file:
            return file.read()


def find_signer(text: bytes, signature: bytes, keys: Dict[str, str], namespace: str, path: str) -> str:
    """Return the name of the trusted key that signed `text`; `path` is named in messages.

    Raises:
        SigningError: none of them did, or for another purpose.
    """
    _require_canonical(signature, path)
    with tempfile.TemporaryDirectory() as folder:
        allowed, signed = os.path.join(folder, "allowed"), os.path.join(folder, "signature")
        with open(allowed, "w", encoding="ascii") as file:
            file.writelines(f'{name} namespaces="{namespace}" {key}\n' for name, key in keys.items())
        with open(signed, "wb") as binary:
            binary.write(signature)
        found = ssh_keygen(["find-principals", "-f", allowed, "-s", signed])
        name = found.stdout.decode(errors="replace").split("\n")[0]
        if found.returncode or name not in keys:
            raise SigningError(
                f"{path}: forged, or signed with a key that is not trusted here (trusted are {', '.join(keys)})"
            )
        verify = ["verify", "-f", allowed, "-I", name, "-n", namespace, "-s", signed]
        if ssh_keygen(verify, text).returncode:
            purpose = _namespace_of(signature)
            if purpose != namespace:
                raise SigningError(f"{path}: forged: its signature is for another purpose ({purpose}); do not use it")
            raise SigningError(f"{path}: forged: the signature does not match; do not use it")
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


def _namespace_of(signature: bytes) -> str:
    """Return the namespace that a signature claims (OpenSSH's PROTOCOL.sshsig)."""
    blob = base64.b64decode(signature[len(BEGIN) : -len(END)])
    place = len(b"SSHSIG") + 4
    with contextlib.suppress(struct.error):
        place += 4 + struct.unpack_from(">I", blob, place)[0]
        (length,) = struct.unpack_from(">I", blob, place)
        return blob[place + 4 : place + 4 + length].decode(errors="replace")
    return ""


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


class SignedBundle(NamedTuple):
    """Who signed a bundle, and until when that holds, in seconds since 1970."""

    signer: str
    expires: int

    def __str__(self) -> str:
        return f"signed by {self.signer}, valid until {day(self.expires)}"


def sign_bundle(
    folder: str, key: str, *, valid_days: float = VALID_DAYS, namespace: str = BUNDLE_NAMESPACE, now: float = 0.0
) -> int:
    """Sign the bundle in a folder, in place of an earlier signature; return until when that holds.

    Args:
        folder: the bundle.
        key: the private key; or the public one, if an ssh-agent holds the private one.
        valid_days: after this time the bundle is refused.
        namespace: what the signature is for.
        now: seconds since 1970; 0 for the clock's.

    Raises:
        SigningError: the folder is not a bundle, one of its files was changed, or the key can't be used.
    """
    try:
        with open(os.path.join(folder, BUNDLE_MANIFEST), "rb") as file:
            manifest = file.read()
    except OSError as error:
        raise SigningError(f"{folder}: not a bundle ({BUNDLE_MANIFEST}: {error.strerror}); give its folder") from None
    try:
        files = json.loads(manifest.decode())["files"].items()
        changed = [name for name, digest in files if not disk.has_sha256(os.path.join(folder, name), digest)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SigningError(f"{folder}/{BUNDLE_MANIFEST}: can't be read; export the bundle again") from None
    if changed:
        raise SigningError(f"{folder}: {changed[0]} is missing or was changed; export or copy the bundle again")
    expires = int((now or time.time()) + 86400 * valid_days)
    text = json.dumps({"bundle": hashlib.sha256(manifest).hexdigest(), "expires": expires}).encode() + b"\n"
    signature = text + sign(text, key, namespace)
    disk.write(os.path.join(folder, BUNDLE_SIGNATURE), signature.decode("ascii"))
    return expires


def check_bundle(
    manifest: bytes, signature: Optional[bytes], trusted: str, name: str, *, now: Optional[float] = None
) -> SignedBundle:
    """Check the signature of a bundle.

    Args:
        manifest: its `model.json`, as it is used.
        signature: its `model.json.sig`; None if it has none.
        trusted: the folder of the trusted keys.
        name: the bundle, for messages.
        now: seconds since 1970.

    Raises:
        SigningError: the bundle is unsigned, forged, altered or expired, or was signed for another purpose.
    """
    keys = trusted_keys(trusted)
    if signature is None:
        raise SigningError(
            f"{name}: unsigned; this machine accepts only bundles signed with a key in {trusted}; "
            "on the machine that has the key, run: setup-board sign BUNDLE --key KEY"
        )
    text, begin, rest = signature.partition(BEGIN)
    signer = find_signer(text, begin + rest, keys, BUNDLE_NAMESPACE, name)
    try:
        stated = json.loads(text.decode())
    except (ValueError, RecursionError):
        stated = None
    if not disk.has_shape(stated, {"bundle": str, "expires": int}):
        raise SigningError(f"{name}: its {BUNDLE_SIGNATURE} can't be read; sign it again with this version")
    if hashlib.sha256(manifest).hexdigest() != stated["bundle"]:
        raise SigningError(
            f"{name}: altered: its {BUNDLE_MANIFEST} is not the one that {signer} signed; copy or sign it again"
        )
    now = time.time() if now is None else now
    if stated["expires"] <= now:
        raise SigningError(
            f"{name}: its signature expired on {day(stated['expires'])} (the clock here says {day(now)}); sign it again"
        )
    return SignedBundle(signer, stated["expires"])


def day(seconds: float) -> str:
    """Return a time as its date (UTC)."""
    return time.strftime("%Y-%m-%d", time.gmtime(min(seconds, 253402300799)))

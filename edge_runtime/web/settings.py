"""What a service is told when it starts: who may use it, and how much of it."""

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import UsageError

MEGABYTE = 1_000_000
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """What strangers can't exceed.

    Attributes:
        body_bytes: of one request.
        bodies_bytes: of all requests that are being served, together.
        pixels: of one picture.
        files: pictures in one request.
        faces: of one picture that are judged, the surest first.
        requests: served at once; one more is answered with 429.
        waiting: crops that wait for the detector; with more, requests are answered with 503.
        header_s, body_s, answer_s: seconds that a request's head, its body, and the work on it may take.
        viewers: of the live page.
    """

    body_bytes: int = 64 * MEGABYTE
    bodies_bytes: int = 256 * MEGABYTE
    pixels: int = 50 * MEGABYTE
    files: int = 32
    faces: int = 64
    requests: int = 128
    waiting: int = 256
    header_s: float = 10.0
    body_s: float = 60.0
    answer_s: float = 30.0
    viewers: int = 16


@dataclass(frozen=True)
class Settings:
    """How a service is run.

    Attributes:
        token: what a client must show; None lets in whoever reaches the address.
        hosts: names under which it may be called, beside those of this machine itself; checked where there is no token.
        camera: source of the live page, as `edge-detect` takes it; None has no live page.
        limits: what strangers can't exceed.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    camera: str | None = None
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Tell whether `host`, a name or an address, can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Refuse an address that others can reach without a token.

    Raises:
        UsageError: `host` is no loopback address, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host}: other machines could use it; give --token-file FILE too (to make one: "
            "`(umask 077; openssl rand -hex 32 > FILE)`), or leave --host out"
        )


def read_token(path: Path) -> str:
    """Return the token in the first line of a file that only its owner and group can read.

    Raises:
        UsageError: it can't be read, others can read it, or it is no token.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_IMODE(mode) & stat.S_IRWXO:
        raise UsageError(f"--token-file {path}: everybody on this machine can read it; `chmod 600 {path}`")
    if len(text) < SHORTEST_TOKEN or not text.isprintable() or " " in text:
        raise UsageError(
            f"--token-file {path}: holds no token of at least {SHORTEST_TOKEN} characters in one word; "
            "`openssl rand -hex 32` makes one"
        )
    return text


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

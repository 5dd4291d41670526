"""Settings of the service: who may use it, and its limits."""

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.review.desk import ReviewPlaces

MEGABYTE = 1_000_000
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServiceLimits:
    """Limits on what clients can do.

    Attributes:
        body_bytes: size of one request.
        bodies_bytes: size of all requests being served, together.
        pixels: size of one picture.
        files: pictures in one request.
        faces: faces judged per picture, most confident first.
        requests: requests with a body served at once; one more gets 429.
        waiting: crops waiting for the detector; with more, requests get 503.
        header_s, body_s, answer_s: seconds for a request's head, for its body, and for judging a picture.
        viewers: viewers of the live page.
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
        token: clients must present it; None allows everybody who can reach the address.
        hosts: allowed host names besides those of loopback; only checked if there is no token.
        camera: source of the live page, as `edge-detect` takes it; None means no live page.
        monitor: folder of the drift monitor; None means that nothing is monitored.
        review: what the review page shows; None means there is none.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    camera: str | None = None
    monitor: Path | None = None
    review: ReviewPlaces | None = None
    limits: ServiceLimits = field(default_factory=ServiceLimits)


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or address, is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Require a token on addresses that other machines can reach.

    Raises:
        UsageError: `host` is not a loopback address, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host}: other machines can reach this address; add --token-file FILE "
            "(create it with `(umask 077; openssl rand -hex 32 > FILE)`) or leave out --host"
        )


def read_token(path: Path) -> str:
    """Return the token in `path`, a file that only its owner and group can read.

    Raises:
        UsageError: the file can't be read, is readable by everybody, or contains no token.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_IMODE(mode) & stat.S_IRWXO:
        raise UsageError(f"--token-file {path}: everybody on this machine can read it; run `chmod 600 {path}`")
    if len(text) < SHORTEST_TOKEN or not text.isprintable() or " " in text:
        raise UsageError(
            f"--token-file {path}: must contain one word of at least {SHORTEST_TOKEN} characters; "
            "create one with `openssl rand -hex 32`"
        )
    return text


def cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

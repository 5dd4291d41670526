"""`edge-forward`: sends the results that `edge-detect` writes to an MQTT broker."""

import contextlib
import errno
import functools
import logging
import math
import re
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from edge_runtime.forward.broker import Broker, BrokerOptions
from edge_runtime.forward.spool import Line, Position, Spool, read_position, write_position
from edge_runtime.paths import expand, state_folder
from edge_runtime.systemd import Notifier, stopping_on_signals

log = logging.getLogger("edge_runtime")

IN_FLIGHT = 20
"""Messages that wait for their acknowledgement at the same time."""

POLL_S = 0.25
SAVE_S = 1.0
"""The place on the disk is at most this old, so a power cut sends at most so much twice."""


_broker = functools.partial(typer.Option, rich_help_panel="Broker")


def edge_forward(
    broker: Annotated[str, typer.Argument(help="mqtt://HOST[:PORT], or mqtts:// for TLS.")],
    spool: Annotated[Path, typer.Option(help="File that edge-detect --jsonl writes.")] = Path(
        "/var/log/deepfake-edge/results.jsonl"
    ),
    board: Annotated[str | None, typer.Option(help="Name of this board.", show_default="the host's")] = None,
    user: Annotated[str | None, _broker(help="User at the broker.")] = None,
    password_file: Annotated[Path | None, _broker(help="File with the password in its first line.")] = None,
    ca: Annotated[Path | None, _broker(help="Certificate of the broker's authority (PEM).")] = None,
    cert: Annotated[Path | None, _broker(help="This board's certificate (PEM).")] = None,
    key: Annotated[Path | None, _broker(help="Its private key (PEM).")] = None,
    topic: Annotated[str, _broker(help="First part of every topic.")] = "deepfake-edge",
    discovery: Annotated[str, _broker(help="Home Assistant's discovery prefix; '' for none.")] = "homeassistant",
    state: Annotated[
        Path | None,
        typer.Option(help="File that stores the read position.", show_default="forward.json in the state folder"),
    ] = None,
) -> int:
    """Send each result to an MQTT broker, once, through outages of the broker and power cuts.

    It runs beside edge-detect, which itself needs no network. Every message has an `id`: after a power cut the last
    second may be sent again, with the same ids.

    Examples:
    - `edge-forward mqtts://broker.local --user door --password-file password --ca ca.pem`
    - `edge-forward mqtt://localhost --spool faces.jsonl --board door --discovery ''`
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    name = board if board is not None else re.sub(r"[^\w-]", "-", socket.gethostname())
    options = BrokerOptions(
        broker,
        name,
        user=user,
        password_file=password_file and expand(password_file),
        ca=ca and expand(ca),
        certificate=cert and expand(cert),
        key=key and expand(key),
        topic=topic,
        discovery=discovery,
    )
    place = expand(state) if state else state_folder() / "forward.json"
    forward(Broker(options), Spool(expand(spool), read_position(place)), place)
    return 0


class Bookmark:
    """The place behind the last acknowledged line, written to its file at most once in SAVE_S.

    Attributes:
        reached: the place, None if it is in the file.
    """

    def __init__(self, path: Path, spool: Spool) -> None:
        self._path, self._spool = path, spool
        self._saved, self._full = -math.inf, False
        self.reached: Position | None = None

    def save(self, *, now: bool = False) -> None:
        """Write the place if it is due, after the results before it are on the disk.

        On a full disk results go on to the broker, and those since the last place are sent again after a restart.

        Raises:
            UsageError: it can't be written for another reason.
        """
        if self.reached is None or (time.monotonic() - self._saved < SAVE_S and not now):
            return
        self._saved = time.monotonic()
        self._spool.sync()
        try:
            write_position(self._path, self.reached)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise UsageError(f"{self._path}: can't be written ({error.strerror}); choose another --state") from None
            if not self._full:
                log.warning(f"{self._path}: can't be written ({error.strerror}); make room, results are still sent")
            self._full = True
        else:
            self.reached, self._full = None, False


def forward(broker: Broker, spool: Spool, place: Path) -> None:
    """Send the lines of `spool` until a signal arrives, and keep the place behind the last acknowledged one.

    Raises:
        UsageError: the place can't be written.
        SourceError: the spool can't be read.
    """
    stop, notifier = threading.Event(), Notifier()
    waiting: deque[tuple[int, Line]] = deque()
    bookmark = Bookmark(place, spool)

    def note_acknowledged() -> None:
        while waiting and broker.acknowledged(waiting[0][0]):
            bookmark.reached = waiting.popleft()[1].end

    def end() -> None:
        stop.set()
        broker.changed.set()

    with stopping_on_signals(end), contextlib.closing(spool):
        broker.start()
        notifier.ready("forwarding results")
        try:
            while not stop.is_set():
                broker.changed.clear()
                note_acknowledged()
                bookmark.save()
                sent = False
                if broker.connected:
                    for line in spool.lines(IN_FLIGHT - len(waiting)):
                        waiting.append((broker.send({"id": line.id, **line.values}), line))
                        sent = True
                notifier.alive()
                if not sent:
                    broker.changed.wait(POLL_S)
        finally:
            notifier.stopping()
            broker.stop()
            note_acknowledged()
            bookmark.save(now=True)


def main() -> None:
    """Start the command."""
    run_command(edge_forward, "edge-forward")


if __name__ == "__main__":
    main()

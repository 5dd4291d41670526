"""What a service needs: status messages to systemd, and a clean stop on signals."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

log = logging.getLogger("edge_runtime")

REPEAT_S = 1.0
"""`timeout`, Slurm and systemd may signal a process both by itself and with its group: that is one signal."""

LONGEST_RELOAD_S = 20.0
"""How long the end of a run waits for a reload; less than the service's TimeoutStopSec."""


def is_service() -> bool:
    """Return whether systemd waits for this process to report that it is ready."""
    return "NOTIFY_SOCKET" in os.environ


def is_on_terminal() -> bool:
    """Return whether standard input is a terminal; it is None if it was closed."""
    return sys.stdin is not None and sys.stdin.isatty()


class Notifier:
    """Sends systemd's notification messages (sd_notify(3)); does nothing without systemd."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        # The watchdog may be meant for another process.
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "") if ours else ""
        self._watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0
        self._pinged, self._status = -float("inf"), ""

    def ready(self, status: str) -> None:
        """Report that frames are being judged."""
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def alive(self, status: str = "") -> None:
        """Ping the watchdog, at most three times in its interval, and report `status` if it has changed."""
        if status and status != self._status:
            self._status = status
            self._send(f"STATUS={status}")
        now = time.monotonic()
        if self._watchdog_s and now - self._pinged >= self._watchdog_s / 3:
            self._pinged = now
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # @ stands for a NUL byte: an address in Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM; a second one, at least REPEAT_S later, raises KeyboardInterrupt.

    Outside the main thread, where Python allows no signal handler, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped_at: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_at
        if stopped_at is None:
            stopped_at = time.monotonic()
            stop()
        elif time.monotonic() - stopped_at >= REPEAT_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def reloading_on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` after each SIGHUP (systemd's ExecReload), in a thread; several during a call are one more.

    Outside the main thread, where Python allows no signal handler, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked, over = threading.Event(), threading.Event()

    def work() -> None:
        while asked.wait() and not over.is_set():
            asked.clear()
            try:
                reload()
            except Exception as error:
                log.error(f"the reload failed, and the next SIGHUP tries again: {type(error).__name__}: {error}")

    thread = threading.Thread(target=work, name="reload", daemon=True)
    # Started here, since starting one in a signal handler could wait for a lock that the interrupted code holds.
    thread.start()
    before = signal.signal(signal.SIGHUP, lambda number, frame: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        over.set()
        asked.set()
        # A thread inside OpenVINO while Python exits would abort the process.
        thread.join(LONGEST_RELOAD_S)

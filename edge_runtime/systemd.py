"""What a service needs: telling systemd that it is ready and alive, and ending cleanly when it is told to."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType


class Notifier:
    """Speaks systemd's notification protocol (sd_notify(3)); silent where systemd does not listen."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s()
        self._beaten = -float("inf")

    def ready(self, status: str) -> None:
        """Tell that frames are being judged now."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self._send("STOPPING=1")

    def alive(self, status: str = "") -> None:
        """Tell the watchdog that all is well, at most three times in its interval."""
        now = time.monotonic()
        if self._watchdog_s and now - self._beaten >= self._watchdog_s / 3:
            self._beaten = now
            self._send("WATCHDOG=1" + (f"\nSTATUS={status}" if status else ""))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is in Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)


def _watchdog_s() -> float:
    """Return the interval in which systemd wants a sign of life; 0 where it wants none, or of another process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else 0.0


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python allows no signal handler, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

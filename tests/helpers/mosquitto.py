"""A real MQTT broker."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from helpers.waiting import until

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin"


class Mosquitto:
    """Mosquitto on loopback, with nothing on the disk."""

    def __init__(self, folder: Path, access: str = "allow_anonymous true", tls: str = "") -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path=PATH)
        if program is None:
            pytest.skip("needs mosquitto")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = f"user root\nlistener {self.port} 127.0.0.1\n{tls}{access}\n"
        settings += "max_queued_messages 0\nmax_inflight_messages 0\n"
        (folder / "mosquitto.conf").write_text(settings)
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._listens)

    def kill(self) -> None:
        """Kill it, as a power cut would: what it has not read is lost, what it has delivered arrives."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)
            # A subscriber that finds the connection broken while it acknowledges would not read the rest.
            time.sleep(0.3)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

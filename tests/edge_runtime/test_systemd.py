import contextlib
import os
import socket
import subprocess
import sys

import pytest

from edge_runtime.systemd import Notifier


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Listens as systemd does, and returns the messages so far."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

    def messages():
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(listener.recv(4096).decode())
        return found

    yield messages
    listener.close()


def test_systemd_is_notified(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notifier = Notifier()
    notifier.ready("int8 on CPU")
    for status in ("int8 on CPU", "", "fp16 on GPU"):
        for _ in range(100):
            notifier.alive(status)
    notifier.stopping()
    assert systemd() == ["READY=1\nSTATUS=int8 on CPU", "WATCHDOG=1", "STATUS=fp16 on GPU", "STOPPING=1"]


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "nonsense"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
def test_without_a_watchdog_nothing_is_sent(systemd, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Notifier().alive()
    assert systemd() == []


def test_abstract_addresses_work(monkeypatch):
    name = f"deepfake-edge-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        Notifier().stopping()
        assert listener.recv(100) == b"STOPPING=1"


def test_a_missing_socket_is_no_error(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    Notifier().ready("")


def test_the_second_signal_interrupts():
    # In a process of its own: an unhandled signal would end the test run.
    program = """
import os, signal, time
from edge_runtime import systemd
systemd.REPEAT_S = 0.3
signal.signal(signal.SIGINT, signal.default_int_handler)
stopped = []
try:
    with systemd.stopping_on_signals(lambda: stopped.append(1)):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped == [1]
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr

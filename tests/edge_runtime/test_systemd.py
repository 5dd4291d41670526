import contextlib
import os
import socket
import subprocess
import sys

import pytest

from edge_runtime.systemd import Notifier


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Listens as systemd does; returns a function that gives the messages so far."""
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


def test_systemd_is_told_when_frames_are_judged_and_when_it_ends(systemd):
    notifier = Notifier()
    notifier.ready("int8 on CPU")
    notifier.stopping()
    assert systemd() == ["READY=1\nSTATUS=int8 on CPU", "STOPPING=1"]


def test_the_watchdog_hears_a_few_signs_of_life_in_its_interval(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notifier = Notifier()
    for _ in range(100):
        notifier.alive()
    assert systemd() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "nonsense"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
def test_no_watchdog_no_sign_of_life(systemd, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Notifier().alive()
    assert systemd() == []


def test_an_abstract_address_is_understood(monkeypatch):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"deepfake-edge-test-{os.getpid()}"
    listener.bind("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    Notifier().stopping()
    assert listener.recv(100) == b"STOPPING=1"
    listener.close()


def test_without_systemd_nothing_is_said(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    Notifier().ready("")


def test_the_first_signal_stops_and_a_second_one_interrupts():
    # In a process of its own: a signal that nobody heeds would end the one that runs the tests.
    program = """
import os, signal
from edge_runtime.systemd import stopping_on_signals
signal.signal(signal.SIGINT, signal.default_int_handler)
stopped = []
try:
    with stopping_on_signals(lambda: stopped.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped == [1]
        os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr

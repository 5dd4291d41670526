"""The command `edge-serve`."""

import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edge_runtime.errors import EdgeError
from edge_runtime.web.cli import edge_serve
from edge_runtime.web.server import reachable_address

COMMAND = (sys.executable, "-m", "edge_runtime.web.cli")
TOKEN = "0123456789abcdef0123"


@pytest.fixture
def token_file(tmp_path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return str(path)


CLOSED = ("sh", "-c", 'exec "$@" <&-', "sh")
"""Starts a command without standard input."""


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """Start the command; yields the process, its greeting and its address."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", greeting)
        assert found, process.communicate(timeout=20)
        yield process, greeting, found.group()
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str) -> str:
    """Run the command in this process and return its error."""
    app = typer.Typer()
    app.command()(edge_serve)
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, EdgeError), error
    assert error.exit_code == 2
    return str(error)


def test_serves_without_standard_input(colour_bundle, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "COMMAND", (*CLOSED, *COMMAND))
    with started("--model", str(colour_bundle)) as (_, _, base):
        assert httpx2.get(f"{base}/model", timeout=20).status_code == 200


def test_serves_until_sigterm(colour_bundle, face, tmp_path):
    notify = str(tmp_path / "notify")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(notify)
    systemd.settimeout(20)
    arguments = ("--model", str(colour_bundle))
    with started(*arguments, NOTIFY_SOCKET=notify, WATCHDOG_USEC="600000000") as (process, greeting, base):
        assert base.startswith("http://127.0.0.1:")
        assert "colour 1.4.0, FP32 on CPU" in greeting
        assert systemd.recv(1000).startswith(b"READY=1")
        assert systemd.recv(1000).startswith(b"WATCHDOG=1")
        answer = httpx2.post(f"{base}/predict", files={"image": ("secret-name.jpg", face())}, timeout=20)
        assert answer.json()["prediction"] == 1
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        assert systemd.recv(1000) == b"STOPPING=1"
    assert "secret-name" not in out + error
    assert error == ""


@pytest.mark.slow
def test_ctrl_c_ends_it(colour_bundle):
    with started("--model", str(colour_bundle)) as (process, _, _):
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert process.returncode in (0, 130)
        assert "Traceback" not in error


@pytest.mark.slow
def test_too_many_connections_neither_stop_it_nor_fill_its_log(colour_bundle):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with started("--model", str(colour_bundle)) as (process, _, base), ExitStack() as held:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        address = ("127.0.0.1", int(base.rpartition(":")[2]))
        answers = b""
        for number in range(1200):
            connection = held.enter_context(socket.create_connection(address, timeout=5))
            if number % 50 == 49:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                with suppress(ConnectionResetError):
                    answers += connection.recv(4096)
        assert b"200 OK" in answers
        assert b"429 Too Many Requests" in answers
        assert b"application/problem+json" in answers
        assert b"retry-after: 1" in answers.lower()
        held.close()
        assert httpx2.get(f"{base}/healthz", timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""


@pytest.mark.slow
def test_serves_although_its_output_is_on_a_full_disk(colour_bundle):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "--port", port, "--model", str(colour_bundle)]
        process = subprocess.Popen(command, stdout=full, stderr=full)
    try:
        deadline, answer = time.monotonic() + 30, None
        while answer is None and process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx2.TransportError):
                answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=20)
        assert answer is not None
        assert answer.status_code == 200
    finally:
        process.kill()
        process.wait(20)


@pytest.mark.slow
def test_other_machines_are_served_with_the_token(colour_bundle, token_file):
    arguments = ("--host", "0.0.0.0", "--token-file", token_file, "--model", str(colour_bundle))
    with started(*arguments) as (_, _, base):
        local = "http://127.0.0.1:" + base.rpartition(":")[2]
        assert httpx2.get(f"{local}/model", timeout=20).status_code == 401
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{local}/model", headers=shown, timeout=20).status_code == 200


@pytest.mark.slow
def test_phone_signs_in_by_qr_code(colour_bundle, token_file):
    terminal, output = pty.openpty()
    arguments = ("--host", "0.0.0.0", "--port", "0", "--token-file", token_file, "--model", str(colour_bundle))
    process = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=subprocess.PIPE)
    try:
        text = ""
        # The last line of the code.
        while "▀" * 20 not in text:
            text += os.read(terminal, 65536).decode()
        address, link = re.search(r"http://(\S+?):\d+/ ", text)[1], re.search(r"http://\S+/login/\S+", text)[0]
        assert address != "0.0.0.0"
        assert decode_qr([line for line in text.splitlines() if line[:2] in ("██", "▀▀")]) == link
        local = link.replace(address, "127.0.0.1")
        with httpx2.Client(timeout=20) as phone, httpx2.Client(timeout=20) as other:
            assert phone.head(local).status_code == 405
            assert phone.get(local, follow_redirects=True).status_code == 200
            assert phone.get(f"{local.partition('/login')[0]}/model").status_code == 200
            assert other.get(local).status_code == 401
    finally:
        process.kill()
        process.communicate()
        os.close(terminal)
        os.close(output)


def decode_qr(lines: list[str]) -> str:
    """Decode a QR code of half blocks, light on dark."""
    upper = [[character in "█▀" for character in line] for line in lines]
    lower = [[character in "█▄" for character in line] for line in lines]
    light = np.stack([np.array(upper), np.array(lower)], axis=1).reshape(-1, len(lines[0]))
    picture = (255 * light).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return cv2.QRCodeDetector().detectAndDecode(picture)[0]


@pytest.mark.slow
def test_error_is_one_line_and_exit_code_2():
    done = subprocess.run([*COMMAND, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --host 0.0.0.0")
    assert done.stderr.count("\n") == 1


def test_shown_address_is_reachable():
    assert reachable_address("board.local") == "board.local"
    assert reachable_address("0.0.0.0") not in ("0.0.0.0", "127.0.0.1", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--host", "0.0.0.0", "--model", "/nowhere"), "--token-file"),
        (("--model", "/nowhere", "--port", "0"), "/nowhere"),
        (("--host", "no.such.host.invalid", "--token-file", "TOKEN"), "--host no.such.host.invalid"),
        (("--token-file", "/nowhere"), "--token-file /nowhere"),
        (("--camera", ""), "empty"),
        (("--camera", "/nowhere.mp4"), "/nowhere.mp4"),
    ],
)
def test_bad_arguments_are_refused(arguments, named, token_file):
    assert named in refused(*(token_file if argument == "TOKEN" else argument for argument in arguments))


def test_address_in_use_is_refused(colour_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}" in refused("--port", port, "--model", str(colour_bundle))


def test_changed_bundle_is_refused(bundle_path, tmp_path):
    weights = shutil.copytree(bundle_path, tmp_path / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    assert "int8/model.bin" in refused("--model", str(tmp_path / "changed"), "--port", "0")


def test_camera_needs_a_face_detector(bundle_path):
    assert "--faces off" in refused("--camera", "0", "--port", "0", "--model", str(bundle_path))

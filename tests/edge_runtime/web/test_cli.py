"""The command `edge-serve`, as a process."""

import os
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

import httpx2
import pytest

COMMAND = (sys.executable, "-m", "edge_runtime.web.cli")


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
    """Run the command to its end and return its one line of error."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_one_command_takes_a_user_from_a_bundle_to_a_verdict_and_sigterm_ends_it(colour_bundle, face, tmp_path):
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(20)
    notify = str(tmp_path / "notify")
    with started("--model", str(colour_bundle), NOTIFY_SOCKET=notify, WATCHDOG_USEC="600000000") as (
        process,
        said,
        base,
    ):
        assert said.startswith("http://127.0.0.1:")
        assert "colour 1.4.0, FP32 on CPU" in said
        assert receiver.recv(1000).startswith(b"READY=1")
        assert receiver.recv(1000).startswith(b"WATCHDOG=1")
        answer = httpx2.post(f"{base}/predict", files={"image": ("secret-name.jpg", face())}, timeout=20)
        assert answer.json()["prediction"] == 1
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        assert receiver.recv(1000) == b"STOPPING=1"
    assert "secret-name" not in out + error
    assert error == ""


def test_ctrl_c_ends_it_cleanly(colour_bundle):
    with started("--model", str(colour_bundle)) as (process, _, base):
        assert httpx2.get(f"{base}/readyz", timeout=20).status_code == 200
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert process.returncode in (0, 130)
        assert "Traceback" not in error


@contextmanager
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_the_process_may_open_files_neither_stop_it_nor_fill_its_log(colour_bundle):
    with started("--model", str(colour_bundle)) as (process, _, base), many_files(), ExitStack() as held:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        address = ("127.0.0.1", int(base.rpartition(":")[2]))
        told = []
        for number in range(1200):
            connection = held.enter_context(socket.create_connection(address, timeout=5))
            if number % 50 == 49:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                with suppress(ConnectionResetError):
                    told.append(connection.recv(4096))
        answers = b"".join(told)
        assert b"200 OK" in answers
        assert b"429 Too Many Requests" in answers
        assert b"application/problem+json" in answers
        assert b"retry-after: 1" in answers.lower()
        held.close()
        assert httpx2.get(f"{base}/healthz", timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""


def test_it_serves_although_its_output_goes_to_a_full_disk(colour_bundle):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [*COMMAND, "--port", port, "--model", str(colour_bundle)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full)
    try:
        deadline = time.monotonic() + 30
        answer = None
        while answer is None and process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx2.TransportError):
                answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=20)
        assert answer is not None
        assert answer.status_code == 200
    finally:
        process.kill()
        process.wait(20)


def test_an_open_address_without_a_token_is_refused_before_anything_is_loaded():
    assert "--token-file" in refused("--host", "0.0.0.0", "--model", "/nowhere")


def test_with_a_token_it_serves_other_machines_that_show_it(colour_bundle, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    with started("--host", "0.0.0.0", "--token-file", str(token), "--model", str(colour_bundle)) as (_, _, base):
        local = base.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{local}/model", timeout=20).status_code == 401
        shown = {"Authorization": "Bearer 0123456789abcdef0123"}
        assert httpx2.get(f"{local}/model", headers=shown, timeout=20).status_code == 200


def test_an_address_that_is_taken_is_told_in_one_line(colour_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another" in refused("--port", port, "--model", str(colour_bundle))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "/nowhere", "--port", "0"), "no bundle"),
        (("--host", "no.such.host.invalid", "--token-file", "TOKEN"), "can't listen"),
        (("--token-file", "/nowhere"), "can't be read"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, told, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    assert told in refused(*(str(token) if argument == "TOKEN" else argument for argument in arguments))


def test_a_bundle_with_a_changed_byte_is_not_served(bundle_path, tmp_path):
    weights = shutil.copytree(bundle_path, tmp_path / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    assert "changed: int8/model.bin was changed" in refused("--model", str(tmp_path / "changed"), "--port", "0")


def test_a_camera_is_refused_where_the_bundle_can_not_find_faces_in_its_frames(bundle_path):
    assert "give --faces off" in refused("--camera", "0", "--port", "0", "--model", str(bundle_path))


def test_torch_is_never_imported():
    code = "import sys, edge_runtime.web.app, edge_runtime.web.server; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"

"""Hostile clients on real sockets: too much, too slow, too many, and not what they claim."""

import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import httpx2
import numpy as np
import pytest
from helpers.jpegs import file_of
from helpers.waiting import until
from PIL import Image

from edge_runtime.web.settings import ServiceLimits, Settings

BOUNDARY = "boundary"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
HEADERS = dict([FORM.split(": ")])
LINGER_S = 0.5
LIMITS = ServiceLimits(
    body_bytes=1_000_000, bodies_bytes=3_000_000, files=8, requests=6, header_s=0.6, body_s=1.0, waiting=64
)


@pytest.fixture(scope="module")
def address(served, whole_detector) -> Iterator[tuple[str, int]]:
    """A server with small limits."""
    with pytest.MonkeyPatch.context() as patch, served(whole_detector, Settings(limits=LIMITS)) as address:
        patch.setattr("edge_runtime.web.http.request_limits.LINGER_S", LINGER_S)
        patch.setattr("edge_runtime.web.server.LINGER_S", LINGER_S)
        yield address


@pytest.fixture
def base(address) -> str:
    return "http://{}:{}".format(*address)


@pytest.fixture(autouse=True)
def still_serves(base, small_face, request) -> Iterator[None]:
    """After every attack the service judges pictures as before."""
    yield
    if "held" not in request.fixturenames:
        until(lambda: httpx2.post(f"{base}/predict", files={"image": small_face}, timeout=20).status_code == 200)


@pytest.fixture(scope="module")
def small_face(face) -> bytes:
    return face(size=96)


def part(name: str, filename: str, data: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
BEGINNING = part("image", "a", b"")[:-2]


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def talk(address: tuple[str, int], *chunks: bytes, wait_s: float = 0.0) -> tuple[int, str]:
    """Send chunks, with a pause after each, and return status and kind of problem of the answer."""
    with socket.create_connection(address, timeout=15) as connection:
        for chunk in chunks:
            try:
                connection.sendall(chunk)
            except OSError:
                break
            time.sleep(wait_s)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, str]:
    """Return status and kind of problem of an answer; 0 if the connection is closed without one."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
            top, found, body = received.partition(b"\r\n\r\n")
            lines = top.lower().split(b"\r\n")
            length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
            if found and len(body) >= length:
                return int(top.split()[1]), kind(json.loads(body)) if body[:1] == b"{" else ""
    except OSError:
        pass
    return 0, ""


def kind(problem: dict) -> str:
    return problem.get("type", "").rpartition("/")[2]


def test_declared_size_is_refused_before_sending(address):
    refused = talk(address, head("/predict", FORM, "Content-Length: 900000000000", "Expect: 100-continue"))
    assert refused == (413, "body-too-large")


def test_refused_sender_gets_the_answer_while_sending(address):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(head("/predict", FORM, f"Content-Length: {len(BEGINNING) + 8_000_000}") + BEGINNING)
        for _ in range(80):
            connection.sendall(b"\0" * 100_000)
            time.sleep(0.002)
        assert read_answer(connection) == (413, "body-too-large")


def test_endless_body_is_cut_off(address):
    began = head("/predict", FORM, "Content-Length: 5000") + BEGINNING
    assert talk(address, began, *[b"\0"] * 12, wait_s=0.15) == (408, "body-too-slow")


@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nHost: loc"])
def test_endless_head_is_cut_off(address, sent):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""


def test_second_head_is_cut_off_too(address):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(head("/healthz", method="GET"))
        assert read_answer(connection)[0] == 200
        connection.sendall(b"GET /healthz HT")
        assert connection.recv(100) == b""


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_unread_body_is_cut_off_after_the_answer(address, method, framing):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(head("/healthz", framing, method=method))
        began, answer = time.monotonic(), connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 ")
        with suppress(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b"1\r\nx\r\n" if "chunked" in framing else b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < LINGER_S + 1.5


@pytest.mark.slow
def test_slow_readers_are_cut_off(address, monkeypatch):
    monkeypatch.setattr("edge_runtime.web.server.UNREAD_S", 0.5)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        connection.connect(address)
        began, requests = time.monotonic(), head("/", method="GET") * 100
        with suppress(TimeoutError, ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(requests)
        with suppress(ConnectionError):
            while time.monotonic() - began < 10 and connection.recv(64):
                time.sleep(0.05)
        assert time.monotonic() - began < 10


def test_malformed_requests_do_not_fill_the_log(address, caplog):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(head("/healthz", "Transfer-Encoding: chunked", method="GET"))
        assert read_answer(connection)[0] == 200
        connection.sendall(b"garbage\r\n")
        assert connection.recv(100) == b""
    assert talk(address, b"garbage\r\n\r\n")[0] == 400
    assert talk(address, head("/healthz", "Connection: upgrade", "Upgrade: websocket", method="GET"))[0] == 200
    assert talk(address, head("/predict", FORM, "Content-Length: 7") + b"garbage")[0] == 400
    assert caplog.text == ""


def test_clients_that_leave_do_no_harm(address, small_face):
    body = part("image", "a.jpg", small_face) + END
    for _ in range(20):
        with socket.create_connection(address, timeout=15) as connection:
            connection.sendall(head("/predict", FORM, f"Content-Length: {len(body)}") + body)


def test_excess_body_is_not_a_request(address, small_face):
    body = part("image", "a.jpg", small_face) + END
    declared = head("/predict", FORM, f"Content-Length: {len(body)}")
    assert talk(address, declared + body + b"GARBAGE\r\n" * 50)[0] == 200
    halved = head("/predict", FORM, f"Content-Length: {len(body) // 2}")
    assert talk(address, halved + body)[0] in (400, 422)


@pytest.mark.parametrize(
    "lines",
    [
        *[(f"Content-Length: {length}",) for length in ("-1", "1e3", "x", "1, 2", "٣")],
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: 4", "Transfer-Encoding: x, chunked"),
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
    ],
)
def test_bad_length_is_refused(address, lines):
    assert talk(address, head("/predict", FORM, *lines) + b"0\r\n\r\n")[0] in (400, 501)


FIELD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\n'.encode()


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        pytest.param([BEGINNING, *[b"\0" * 10_000] * 300], (413, "body-too-large"), id="undeclared size"),
        pytest.param([part("images", "a.jpg", b"\xff") * 10_000, END], (413, "too-many-files"), id="many files"),
        pytest.param([FIELD, b"x" * 100_000, b"\r\n", END], (400, "bad-request"), id="huge field"),
        pytest.param([FIELD * 10_000], (400, "bad-request"), id="many fields"),
    ],
)
def test_too_much_is_refused(base, body, refused):
    answer = httpx2.post(f"{base}/predict/batch", content=iter(body), headers=HEADERS, timeout=20)
    assert (answer.status_code, kind(answer.json())) == refused


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "C:\\\\x", "a\0b", "é" * 2000, "%2e%2e%2f"])
def test_file_names_are_only_names(base, small_face, name):
    answer = httpx2.post(f"{base}/predict/batch", files=[("images", (name, small_face))], timeout=20)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["result"]["prediction"] == 1


@pytest.mark.parametrize(
    ("sent", "name"),
    [("; filename*=UTF-8''%E6%B1%89%22.jpg", '汉".jpg'), ("; FileName*=utf-8'en'a.jpg; x=1", "a.jpg"), ("", "")],
)
def test_pictures_need_no_plain_file_name(base, small_face, sent, name):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"{sent}\r\n\r\n'.encode()
    content = head + small_face + b"\r\n" + END
    answer = httpx2.post(f"{base}/predict/batch", content=content, headers=HEADERS, timeout=20)
    assert answer.json()["results"][0]["name"] == name


def segment_bomb(size: int) -> bytes:
    """Return a JPEG of `size` bytes of tiny APP1 segments, which Pillow would join in quadratic time."""
    segment = b"\xff\xe1\x00\x0fExif\0\0" + b"x" * 7
    return b"\xff\xd8" + segment * (size // len(segment)) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(segment_bomb(900_000), 422, id="segments"),
        pytest.param(file_of(Image.new("L", (9_000, 9_000)), "PNG"), 413, id="pixels"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n", 422, id="eps"),
        pytest.param(b"PK\x03\x04" + b"\0" * 500, 422, id="zip"),
        pytest.param(b"II*\0" + b"\xff" * 500, 422, id="tiff"),
        pytest.param(b"\0", 422, id="zero"),
    ],
)
def test_harmful_pictures_are_refused(base, data, status):
    answer = httpx2.post(f"{base}/predict", files={"image": ("a.jpg", data)}, timeout=20)
    assert answer.status_code == status


def test_motion_photos_are_pictures(base, small_face):
    """A progressive JPEG with scan markers in its metadata and in the film behind it."""
    photo = file_of(Image.open(io.BytesIO(small_face)), progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 300)
    film = b"\xff\xda\0\x08" * 300
    assert httpx2.post(f"{base}/predict", files={"image": photo + film}, timeout=20).status_code == 200


def test_polyglots_are_only_pictures(base, small_face):
    polyglot = small_face + b"<html><script>alert(1)</script></html>PK\x03\x04" + b"\0" * 64
    answer = httpx2.post(f"{base}/card", files={"image": ("a.html", polyglot)}, timeout=20)
    assert answer.status_code == 200
    assert "alert(1)" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_damaged_pictures_never_crash_it(base, small_face):
    random = np.random.default_rng(7)
    with httpx2.Client(timeout=20) as client:
        for _ in range(40):
            data = np.frombuffer(small_face, np.uint8).copy()
            data[random.integers(2, len(data), 12)] = random.integers(0, 256, 12)
            cut = data[: random.integers(1, len(data))].tobytes()
            answer = client.post(f"{base}/predict", files={"image": cut})
            assert answer.status_code in (200, 413, 422), answer.text


def test_too_many_requests_get_429(address, base):
    began = head("/predict", FORM, "Content-Length: 5000") + BEGINNING
    held = [socket.create_connection(address, timeout=15) for _ in range(LIMITS.requests)]
    try:
        for connection in held:
            connection.sendall(began)
        until(lambda: httpx2.post(f"{base}/predict", files={"image": b"x"}, timeout=20).status_code == 429)
        answer = httpx2.post(f"{base}/predict", files={"image": b"x"}, timeout=20)
        assert kind(answer.json()) == "too-many-requests"
        assert int(answer.headers["retry-after"]) >= 1
        assert httpx2.get(f"{base}/healthz", timeout=20).status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_uploads_share_a_memory_limit(address):
    chunk = head("/predict", FORM, "Content-Length: 900000") + part("image", "a", b"\0" * 800_000)[:-2]
    with ThreadPoolExecutor(5) as pool:
        kinds = {kind for _, kind in pool.map(lambda _: talk(address, chunk), range(5))}
    assert "too-many-requests" in kinds
    assert kinds <= {"too-many-requests", "body-too-slow"}  # those that fit in are too slow


@pytest.mark.slow
def test_answers_in_progress_survive_shutdown(served, whole_detector, small_face, held):
    asked, released = held
    with ThreadPoolExecutor(1) as pool:
        with served(whole_detector) as (host, port):
            url = f"http://{host}:{port}/predict"
            answer = pool.submit(httpx2.post, url, files={"image": small_face}, timeout=30)
            assert asked.wait(10)
            # `served` ends the server now.
            threading.Timer(6, released.set).start()
        assert answer.result().json()["prediction"] == 1


def test_full_queue_is_refused_unread(served, whole_detector, small_face, held):
    asked, released = held
    with served(whole_detector, Settings(limits=ServiceLimits(waiting=2))) as address, ThreadPoolExecutor(8) as pool:
        url = "http://{}:{}/predict".format(*address)
        try:
            jobs = [pool.submit(httpx2.post, url, files={"image": small_face}, timeout=60)]
            assert asked.wait(30)
            jobs += [pool.submit(httpx2.post, url, files={"image": small_face}, timeout=60) for _ in range(7)]
            refused = [job.result() for job in itertools.islice(as_completed(jobs, timeout=30), 5)]
            unread = talk(address, head("/predict", FORM, "Content-Length: 900000", "Expect: 100-continue"))
        finally:
            released.set()
        answers = [job.result() for job in jobs]
    assert unread == (503, "queue-full")
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5

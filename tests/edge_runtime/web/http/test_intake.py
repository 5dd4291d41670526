"""Hostile clients, on real sockets: too much, too slow, too many, and not what it says it is."""

import io
import itertools
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx2
import numpy as np
import pytest
from PIL import Image

from edge_runtime.web.settings import ServiceLimits, Settings

BOUNDARY = "boundary"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
LIMITS = ServiceLimits(
    body_bytes=1_000_000, bodies_bytes=3_000_000, files=8, requests=6, header_s=0.6, body_s=1.0, waiting=64
)


@pytest.fixture(scope="module")
def address(served, whole_detector) -> Iterator[tuple[str, int]]:
    """A server with small limits."""
    with served(whole_detector, Settings(limits=LIMITS)) as address:
        yield address


@pytest.fixture
def base(address) -> str:
    return "http://{}:{}".format(*address)


@pytest.fixture(autouse=True)
def still_serves(address, base, small_face) -> Iterator[None]:
    """After every attack the service judges pictures as before."""
    yield
    answer = httpx2.post(f"{base}/predict", files={"image": small_face}, timeout=20)
    assert answer.json()["prediction"] == 1


@pytest.fixture(scope="module")
def small_face(face) -> bytes:
    return face(size=96)


def part(name: str, filename: str, data: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def talk(address: tuple[str, int], *chunks: bytes, wait_s: float = 0.0) -> tuple[int, dict]:
    """Send chunks, with a wait after each, and return status and problem of the answer; 0 where there is none."""
    with socket.create_connection(address, timeout=15) as connection:
        for chunk in chunks:
            try:
                connection.sendall(chunk)
            except OSError:
                break
            time.sleep(wait_s)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, dict]:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
            top, found, body = received.partition(b"\r\n\r\n")
            if found and len(body) >= content_length(top):
                return int(top.split()[1]), json.loads(body) if body[:1] == b"{" else {}
    except OSError:
        pass
    return 0, {}


def content_length(top: bytes) -> int:
    lines = top.lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)


def kind(said: dict) -> str:
    return said.get("type", "").rpartition("/")[2]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(address):
    status, said = talk(address, head("/predict", FORM, "Content-Length: 900000000000", "Expect: 100-continue"))
    assert (status, kind(said)) == (413, "body-too-large")


def test_a_body_that_is_too_large_without_saying_so_is_refused(base):
    def endless() -> Iterator[bytes]:
        yield part("image", "a", b"")[:-2]
        for _ in range(300):
            yield b"\0" * 10_000

    answer = httpx2.post(f"{base}/predict", content=endless(), headers=dict([FORM.split(": ")]), timeout=20)
    assert (answer.status_code, kind(answer.json())) == (413, "body-too-large")


def test_who_sends_too_much_hears_why_although_it_is_still_sending(address):
    top = part("image", "a", b"")[:-2]
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(head("/predict", FORM, f"Content-Length: {len(top) + 8_000_000}") + top)
        for _ in range(80):
            connection.sendall(b"\0" * 100_000)
            time.sleep(0.002)
        status, said = read_answer(connection)
    assert (status, kind(said)) == (413, "body-too-large")


def test_a_body_that_never_ends_is_given_up(address):
    began = head("/predict", FORM, "Content-Length: 5000") + part("image", "a", b"")[:-2]
    status, said = talk(address, began, *[b"\0"] * 12, wait_s=0.15)
    assert (status, kind(said)) == (408, "body-too-slow")


def test_a_head_that_never_ends_is_cut_off(address):
    for sent in (b"", b"POST /predict HTTP/1.1\r\nHost: loc"):
        with socket.create_connection(address, timeout=15) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b""


def test_so_is_a_second_head_on_the_same_connection(address):
    with socket.create_connection(address, timeout=15) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection)[0] == 200
        connection.sendall(b"GET /healthz HT")
        assert connection.recv(100) == b""


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(address):
    for _ in range(20):
        with socket.create_connection(address, timeout=15) as connection:
            connection.sendall(head("/predict", FORM, "Content-Length: 5000") + part("image", "a", b"\xff\xd8"))


def test_a_client_that_leaves_before_the_answer_does_no_harm(address, small_face):
    body = part("image", "a.jpg", small_face) + END
    for _ in range(20):
        with socket.create_connection(address, timeout=15) as connection:
            connection.sendall(head("/predict", FORM, f"Content-Length: {len(body)}") + body)


def test_a_body_longer_than_it_says_is_not_taken_for_a_request(address, small_face):
    body = part("image", "a.jpg", small_face) + END
    status, _ = talk(address, head("/predict", FORM, f"Content-Length: {len(body)}") + body + b"GARBAGE\r\n" * 50)
    assert status == 200
    status, said = talk(address, head("/predict", FORM, f"Content-Length: {len(body) // 2}") + body)
    assert status in (400, 422), said


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "1, 2", "٣"])
def test_a_length_that_is_no_number_is_refused(address, length):
    status, _ = talk(address, f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
    assert status == 400


def test_two_lengths_or_a_length_and_chunks_are_not_smuggled(address):
    for lines in (("Content-Length: 4", "Content-Length: 5"), ("Content-Length: 4", "Transfer-Encoding: x, chunked")):
        status, _ = talk(address, head("/predict", FORM, *lines) + b"0\r\n\r\n")
        assert status in (400, 501)


def test_ten_thousand_small_files_are_refused_after_the_limit(base):
    body = b"".join(part("images", f"{number}.jpg", b"\xff") for number in range(10_000)) + END
    answer = httpx2.post(f"{base}/predict/batch", content=body, headers=dict([FORM.split(": ")]), timeout=20)
    assert (answer.status_code, kind(answer.json())) == (413, "too-many-files")


def test_ten_thousand_fields_or_a_huge_one_are_refused(base):
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\n'.encode()
    for body in (field * 10_000, field + b"x" * 100_000 + b"\r\n" + END):
        answer = httpx2.post(f"{base}/predict", content=body, headers=dict([FORM.split(": ")]), timeout=20)
        assert (answer.status_code, kind(answer.json())) == (400, "bad-request")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "C:\\\\x", "a\0b", "CON", "é" * 2000, "%2e%2e%2f", ""]
)
def test_names_that_are_paths_are_names_and_nothing_else(base, small_face, name):
    answer = httpx2.post(f"{base}/predict/batch", files=[("images", (name or "x", small_face))], timeout=20)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["result"]["prediction"] == 1


def png_bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that decodes to side² pixels."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG")
    return file.getvalue()


def lying_png() -> bytes:
    """A PNG that says it has two billion pixels and holds none."""
    size = (50_000).to_bytes(4, "big") + (40_000).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00") + png_chunk(b"IDAT", b"x")


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def polyglot(face: bytes) -> bytes:
    """A JPEG that is a page and an archive too."""
    return face + b"<html><script>alert(1)</script></html>PK\x03\x04" + b"\0" * 64


def scan_bomb(side: int, scans: int) -> bytes:
    """A JPEG of a few kilobytes whose last scan, some twenty bytes over all its pixels, comes again and again."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    start = file.getvalue().rindex(b"\xff\xda")
    return file.getvalue()[:start] + file.getvalue()[start:-2] * scans + b"\xff\xd9"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (png_bomb(9_000), 413),
        (lying_png(), 413),
        (scan_bomb(2_000, 2_000), 422),
        (POSTSCRIPT, 422),
        (SVG, 422),
        (b"PK\x03\x04" + b"\0" * 500, 422),
        (b"II*\0" + b"\xff" * 500, 422),
        (b"GIF89a" + b"\xff" * 500, 422),
        (b"BM" + b"\xff" * 500, 422),
        (b"\0", 422),
    ],
    ids=["bomb", "lie", "scans", "postscript", "svg", "zip", "tiff", "gif", "bmp", "zero"],
)
def test_what_is_no_picture_or_too_much_of_one_is_refused(base, data, told):
    answer = httpx2.post(f"{base}/predict", files={"image": ("a.jpg", data)}, timeout=20)
    assert answer.status_code == told


def test_a_progressive_picture_with_a_film_behind_it_is_a_picture(base, small_face):
    file = io.BytesIO()
    Image.open(io.BytesIO(small_face)).save(file, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 300)
    film = b"\xff\xda\0\x08" * 300
    answer = httpx2.post(f"{base}/predict", files={"image": ("motion.jpg", file.getvalue() + film)}, timeout=20)
    assert answer.status_code == 200


def test_a_picture_that_is_something_else_too_is_a_picture_and_nothing_else(base, small_face):
    answer = httpx2.post(f"{base}/card", files={"image": ("a.html", polyglot(small_face))}, timeout=20)
    assert answer.status_code == 200
    assert "alert(1)" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_cut_and_garbled_pictures_never_crash_it(base, small_face):
    random = np.random.default_rng(7)
    with httpx2.Client(timeout=20) as client:
        for _ in range(60):
            data = np.frombuffer(small_face, np.uint8).copy()
            data[random.integers(2, len(data), 12)] = random.integers(0, 256, 12)
            cut = data[: random.integers(1, len(data))].tobytes()
            answer = client.post(f"{base}/predict", files={"image": cut})
            assert answer.status_code in (200, 413, 422), answer.text


def test_more_requests_than_are_served_at_once_are_told_to_come_again(address, base):
    began = head("/predict", FORM, "Content-Length: 5000") + part("image", "a", b"")[:-2]
    held = [socket.create_connection(address, timeout=15) for _ in range(LIMITS.requests)]
    try:
        for connection in held:
            connection.sendall(began)
        deadline = time.monotonic() + 5
        answer = None
        while time.monotonic() < deadline and (answer is None or answer.status_code != 429):
            answer = httpx2.post(f"{base}/predict", files={"image": b"x"}, timeout=20)
        assert answer is not None
        assert (answer.status_code, kind(answer.json())) == (429, "too-many-requests")
        assert int(answer.headers["retry-after"]) >= 1
        assert httpx2.get(f"{base}/healthz", timeout=20).status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_bodies_that_are_too_large_together_are_told_to_come_again(address):
    chunk = head("/predict", FORM, "Content-Length: 900000") + part("image", "a", b"\0" * 800_000)[:-2]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: talk(address, chunk), range(5)))
    kinds = {kind(said) for _, said in answers}
    assert "too-many-requests" in kinds
    assert kinds <= {"too-many-requests", "body-too-slow"}  # the slow ones hold their room, where they had any


def test_a_full_queue_is_told_at_once_and_no_body_is_read(served, whole_detector, small_face, monkeypatch):
    begun, held = threading.Event(), threading.Event()
    original = whole_detector.engine.answer

    def answer(pixels: np.ndarray) -> object:
        begun.set()
        held.wait(60)
        return original(pixels)

    monkeypatch.setattr(whole_detector.engine, "answer", answer)
    with served(whole_detector, Settings(limits=ServiceLimits(waiting=2))) as address, ThreadPoolExecutor(8) as pool:
        url = "http://{}:{}/predict".format(*address)
        try:
            jobs = [pool.submit(httpx2.post, url, files={"image": small_face}, timeout=60)]
            assert begun.wait(30)
            jobs += [pool.submit(httpx2.post, url, files={"image": small_face}, timeout=60) for _ in range(7)]
            refused = [job.result() for job in itertools.islice(as_completed(jobs, timeout=30), 5)]
            status, said = talk(address, head("/predict", FORM, "Content-Length: 900000", "Expect: 100-continue"))
        finally:
            held.set()
        answers = [job.result() for job in jobs]
    assert (status, kind(said)) == (503, "queue-full")
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5

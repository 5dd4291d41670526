"""Pictures and parts in S3: moto's server, behind a proxy that throttles and drops requests."""

import http.client
import itertools
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.waiting import until
from PIL import Image

from edge_runtime.bulk import storage
from edge_runtime.bulk.judge import Entries, PartWorker
from edge_runtime.bulk.listing import entries_of
from edge_runtime.bulk.parts import Job, PictureList, Settings, done_counts
from edge_runtime.detector import Detector
from edge_runtime.errors import SourceError
from train.commands.shards import write_shards
from train.data.build import load_data

pytestmark = pytest.mark.slow


def find_moto():
    """The server has its own environment, since its botocore and this project need different versions of dateutil."""
    own = Path(sys.prefix) / "moto/bin/moto_server"
    return str(own) if own.exists() else shutil.which("moto_server")


@pytest.fixture(scope="module")
def moto():
    """The port of a running server."""
    if find_moto() is None:
        pytest.skip("needs moto_server: make setup, or pip install 'moto[s3]' flask flask-cors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [find_moto(), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, 60)
    yield port
    process.kill()
    process.wait()


HOP = ("content-length", "transfer-encoding", "connection", "expect")
"""Headers between two hops."""


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on; of each ten, three are throttled and one is dropped."""

    protocol_version = "HTTP/1.1"
    port, numbers, throttled, dropped, failing = 0, itertools.count(), 0, 0, False
    passed: ClassVar[Counter] = Counter()

    def handle_any(self):
        body = self.body()
        number = next(type(self).numbers) % 10
        if number in (1, 4, 8) or self.failing:
            type(self).throttled += 1
            self.answer(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>", {})
        elif number == 6:
            type(self).dropped += 1
            self.close_connection = True
            self.connection.close()
        else:
            sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            upstream = http.client.HTTPConnection("127.0.0.1", self.port)
            upstream.request(
                self.command, self.path, body, {**sent, "Content-Length": str(len(body)), "Connection": "close"}
            )
            response = upstream.getresponse()
            self.answer(response.status, response.read(), dict(response.getheaders()))
            self.passed[self.command] += 1

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def answer(self, status, data, headers):
        length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_response(status)
        skipped = ("content-length", "transfer-encoding", "connection", "date", "server")
        for name, value in headers.items():
            if name.lower() not in skipped:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def store(moto, pictures, monkeypatch):
    """The pictures in the bucket `faces`, reached through the proxy."""
    direct = http.client.HTTPConnection("127.0.0.1", moto)
    files = {path.relative_to(pictures).as_posix(): path.read_bytes() for path in pictures.rglob("*.*")}
    for path, data in [("/faces", b""), ("/out", b""), *((f"/faces/in/{name}", data) for name, data in files.items())]:
        direct.request("PUT", path, data)
        assert direct.getresponse().read() is not None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Proxy, "port", moto)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    storage._s3.cache_clear()
    yield server
    server.shutdown()
    storage._s3.cache_clear()


def test_shards_of_faces_are_fetched_once(store, moto, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, folder in enumerate(("real", "fake")):
        (tmp_path / "faces" / folder).mkdir(parents=True)
        for seed in range(6):
            pixels = np.random.default_rng((label, seed)).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / folder / f"{seed}.png")
    packed = write_shards(load_data(tmp_path / "faces"), tmp_path / "shards", 20_000)
    direct = http.client.HTTPConnection("127.0.0.1", moto)
    for path in (tmp_path / "shards").iterdir():
        direct.request("PUT", f"/faces/shards/{path.name}", path.read_bytes())
        assert direct.getresponse().read() is not None
    monkeypatch.setattr("train.data.remote.BLOCK", 7000)
    found = load_data(Path("s3://faces/shards"))
    assert found.fingerprint == packed.fingerprint
    assert [face.content() for face in found.records] == [face.content() for face in packed.records]
    folder = found.records[0].path.parents[1]
    before = {path: path.stat().st_ino for path in folder.glob("*.tar")}
    assert len(before) == 3
    assert load_data("s3://faces/shards").records == found.records
    assert {path: path.stat().st_ino for path in folder.glob("*.tar")} == before
    with pytest.raises(SourceError, match=r"s3://faces/in: holds no catalog\.csv"):
        load_data("s3://faces/in")


def test_s3_that_throttles_gives_every_row_once(store, bundle, pictures):
    listed = PictureList(entries_of(["s3://faces/in"]), part_size=5)
    assert (listed.pictures, len(listed.pieces)) == (14, 3)
    job = Job.of(bundle, Settings(), threads=1, out="s3://out/verdicts")
    worker, rows = PartWorker(job), []
    for number, piece in enumerate(listed.pieces):
        assert done_counts(job, piece.sha256, piece.pictures) is None
        outcome = worker.judge(listed.part(number))
        assert outcome.error is None
        assert done_counts(job, piece.sha256, piece.pictures) == outcome.counts
    system, path = storage.locate(job.out)
    names = storage.names_below(job.out)
    assert sorted(names) == sorted(job.file_name(piece.sha256) for piece in listed.pieces)
    for name in names:
        rows += storage.repeated(lambda name=name: pq.read_table(f"{path}/{name}", filesystem=system), name).to_pylist()
    detector, found = Detector(bundle), {row["picture"].removeprefix("s3://faces/in/"): row for row in rows}
    assert len(rows) == len(found) == 14
    assert (found["90.png"]["unreadable"], found["91.jpg"]["unreadable"]) == ("broken", "not_a_picture")
    for name in ("00.png", "sub/01.png", "02.png"):
        assert found[name]["score"] == pytest.approx(detector.detect(pictures / name).faces[0].score, abs=1e-6)
    assert Proxy.throttled >= 5
    assert Proxy.dropped >= 1


def test_a_shard_is_opened_once(store, pictures, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(40):
            tar.add(pictures / "00.png", f"{number:02}.png")
    direct = http.client.HTTPConnection("127.0.0.1", Proxy.port)
    direct.request("PUT", "/faces/shards/a.tar", (tmp_path / "a.tar").read_bytes())
    direct.getresponse().read()
    entries = list(entries_of(["s3://faces/shards/a.tar"]))
    assert [entry.member for entry in entries] == [f"{number:02}.png" for number in range(40)]
    Proxy.passed.clear()
    source = Entries(entries)
    for frame in source.frames(threading.Event()):
        assert frame.load().size == Image.open(pictures / "00.png").size
    # A HEAD, and a GET for each picture. Dropped and throttled ones are not counted, but an answer may come too late.
    assert Proxy.passed["HEAD"] <= 2
    assert 40 <= Proxy.passed["GET"] <= 44


def test_a_store_that_stays_down_ends_in_one_line(store, monkeypatch):
    monkeypatch.setattr(Proxy, "failing", True)
    monkeypatch.setattr(storage, "TRIES", 2)
    monkeypatch.setattr(storage, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(storage.StorageError, match="run the command again"):
        storage.read_range("s3://faces/in/00.png")

"""Pictures and parts in Google Cloud Storage: a stand-in's server on loopback."""

import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from helpers.waiting import until

from edge_runtime.bulk import storage
from edge_runtime.bulk.listing import entries_of
from edge_runtime.detector import Detector
from edge_runtime.errors import UsageError

pytestmark = pytest.mark.slow


def find_server():
    """It is installed beside moto, apart from this project's packages."""
    own = Path(sys.prefix) / "moto/bin/gcp-storage-emulator"
    return str(own) if own.exists() else shutil.which("gcp-storage-emulator")


@pytest.fixture
def store(pictures, monkeypatch):
    """The pictures in the bucket `faces`, uploaded without any object that stands for a folder."""
    if find_server() is None:
        pytest.skip("needs gcp-storage-emulator: make setup, or pip install gcp-storage-emulator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [find_server(), "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=faces"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, 60)
    address = f"http://127.0.0.1:{port}"
    for path in pictures.rglob("*.*"):
        name = quote(f"in/{path.relative_to(pictures).as_posix()}", safe="")
        put = f"{address}/upload/storage/v1/b/faces/o?uploadType=media&name={name}"
        urllib.request.urlopen(urllib.request.Request(put, data=path.read_bytes(), method="POST")).close()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    storage._gcs.cache_clear()
    yield
    process.kill()
    process.wait()
    storage._gcs.cache_clear()


def test_google_storage_gives_every_row_once(store, judge, bundle, pictures):
    first = judge("gs://faces/in", "--out", "gs://faces/out/verdicts", "--part-size", 5)
    assert (first.returncode, first.pictures, first.parts["done"]) == (0, 14, 3), first.err
    again = judge("gs://faces/in", "--out", "gs://faces/out/verdicts", "--part-size", 5)
    assert (again.parts["done"], again.parts["done_before"], again.rows) == (0, 3, 14)
    system, path = storage.locate("gs://faces/out/verdicts")
    names = storage.names_below("gs://faces/out/verdicts")
    rows = [row for name in names for row in pq.read_table(f"{path}/{name}", filesystem=system).to_pylist()]
    detector, found = Detector(bundle), {row["picture"].removeprefix("gs://faces/in/"): row for row in rows}
    assert len(rows) == len(found) == 14
    assert (found["90.png"]["unreadable"], found["91.jpg"]["unreadable"]) == ("broken", "not_a_picture")
    for name in ("00.png", "sub/01.png", "02.png"):
        assert found[name]["score"] == pytest.approx(detector.detect(pictures / name).faces[0].score, abs=1e-6)


def test_a_bucket_that_is_not_there_is_named_before_anything_is_judged(store, judge):
    done = judge("gs://faces/in", "--out", "gs://missing/out")
    assert (done.returncode, done.err.count("\n")) == (2, 1)
    assert "gs://missing/out: bucket missing does not exist" in done.err
    for wrong in ("gs://missing/in", "gs://faces/typo"):
        assert f"{wrong}: no pictures in it" in judge("gs://faces/in", wrong, "--out", "gs://faces/out").err
    missing = judge("gs://faces/in/none.png", "--out", "gs://faces/out")
    assert missing.unreadable == {"missing": 1}
    with pytest.raises(UsageError, match=r"gs://missing/list\.txt: can't be read"):
        list(entries_of(["gs://missing/list.txt"]))

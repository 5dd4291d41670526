"""Storage that fails for a moment, or takes its time."""

import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge_runtime.bulk import judge, listing, storage
from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.listing import entries_of
from edge_runtime.errors import StorageError, UsageError


class Mount:
    """A file system whose open files all break when it is remounted, as with ESTALE; it counts what it opens."""

    def __init__(self):
        self.opened, self.mounted = 0, 0

    def open_input_file(self, path):
        self.opened += 1
        return pa.PythonFile(MountedFile(path, self), mode="r")


class MountedFile(io.FileIO):
    def __init__(self, path, mount):
        super().__init__(path)
        self._mount, self._mounted = mount, mount.mounted

    def read(self, size=-1):
        if self._mounted != self._mount.mounted:
            raise OSError("stale file handle")
        return super().read(size)


@pytest.fixture
def mount(monkeypatch):
    found = Mount()
    for module in (judge, storage):
        monkeypatch.setattr(module, "locate", lambda address: (found, address))
    monkeypatch.setattr(storage, "FIRST_PAUSE_S", 0.001)
    storage._kept_file.cache_clear()
    yield found
    storage._kept_file.cache_clear()


def test_a_file_that_broke_is_opened_again(mount, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    assert storage.read_range(str(path), 2, 3) == b"234"
    assert storage.read_range(str(path), 5, 3) == b"567"
    assert mount.opened == 1
    mount.mounted += 1
    assert storage.read_range(str(path), 5, 3) == b"567"
    assert mount.opened == 2


def test_rows_are_read_on_after_an_error(mount, tmp_path):
    path, pixels = str(tmp_path / "faces.parquet"), np.random.default_rng(0)
    values = [pixels.bytes(2000) for _ in range(200)]
    table = pa.table({"image": values})
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)
    tables = judge._Tables()
    for row in range(200):
        mount.mounted += row in (3, 100, 130)
        assert tables.read(Entry(path, row=row, column="image")) == values[row]


def test_an_open_that_hangs_delays_no_other_file(monkeypatch, tmp_path):
    (tmp_path / "fast").write_bytes(b"0123456789")
    began, released, open_now = threading.Event(), threading.Event(), storage._open

    def open_file(address):
        if address == "slow":
            began.set()
            released.wait(20)
        return open_now(str(tmp_path / "fast"))

    monkeypatch.setattr(storage, "_open", open_file)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(storage.read_range, "slow", 0, 4)
        assert began.wait(20)
        try:
            assert pool.submit(storage.read_range, "fast", 4, 4).result(5) == b"4567"
        finally:
            released.set()
        assert slow.result(20) == b"0123"


def test_a_mistyped_prefix_among_several_is_named():
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe({"/right/a.jpg": b"x", "/right/b/c.png": b"x", "/texts/a.txt": b"x"})
    assert [entry.path for entry in entries_of(["memory://right"])] == [
        "memory://right/a.jpg",
        "memory://right/b/c.png",
    ]
    for wrong in ("memory://wrogn", "memory://texts"):
        with pytest.raises(UsageError, match=f"{wrong}: no pictures in it"):
            list(entries_of(["memory://right", wrong]))


class Flaky(Mount):
    """Fails for the first `failures` requests of each of its files."""

    def __init__(self, folder, failures):
        super().__init__()
        self._folder, self.left = folder, failures

    def open_input_file(self, path):
        if self.left:
            self.left -= 1
            raise OSError("slow down")
        return super().open_input_file(self._folder / path.rpartition("/")[2])


@pytest.fixture
def shards(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(3):
            tar.addfile(tarfile.TarInfo(f"{number}.jpg"))
    pq.write_table(pa.table({"image": [b"a", b"b", b"c"]}), tmp_path / "a.parquet")
    return tmp_path


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_listing_a_shard_outlasts_short_failures(mount, shards, monkeypatch, name):
    for module in (listing, storage):
        monkeypatch.setattr(module, "locate", lambda address: (store, address))
    store = Flaky(shards, 3)
    found = list(listing._file(f"flaky://store/{name}", None))
    assert [(entry.member, entry.row, entry.error) for entry in found] == [
        (f"{number}.jpg", None, None) if name == "a.tar" else (None, number, None) for number in range(3)
    ]


def test_a_tar_shard_in_a_store_that_is_down_is_no_result(mount, shards, monkeypatch):
    monkeypatch.setattr(storage, "locate", lambda address: (Flaky(shards, 99), address))
    with pytest.raises(StorageError, match=r"slow down; run the command again"):
        list(listing._file("flaky://store/a.tar", None))

"""The monitor's folder: whole files after a power cut, a bounded size, and nothing of another bundle."""

import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.judging.results import FaceTraits
from edge_runtime.monitoring import store as stores
from edge_runtime.monitoring.store import Store
from edge_runtime.monitoring.summary import Summary

KEYS = ("key", "old")
NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
WRITER = """
import sys
from datetime import datetime, timezone
import numpy as np
from pathlib import Path
from edge_runtime.judging.results import FaceTraits
from edge_runtime.monitoring.store import Store
store, noon = Store(Path(sys.argv[1]), "key"), datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
summary = store.load_hour(noon, 33)
while True:
    summary.add(FaceTraits(np.ones(33, np.float32), 99.0, 0.5, 1.0, 99.0), "real", 0.1)
    store.save_hour(noon, summary)
    store.save_recent([summary, summary])
    store.save_status({"faces": summary.faces})
    print(summary.faces, flush=True)
"""


def faces(count: int, width: int = 3) -> Summary:
    summary = Summary(width)
    for number in range(count):
        place = np.full(width, number, np.float32)
        summary.add(FaceTraits(place, 99.0, 0.5, 1.0, 99.0), "real", 0.1)
    return summary


@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.031])
def test_killed_while_writing_nothing_is_torn_or_lost(tmp_path: Path, delay_s: float) -> None:
    said = 0
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(5):
                said = int(writer.stdout.readline())
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
            said = max([said, *map(int, writer.stdout.read().split())])
        store = Store(tmp_path, "key")
        kept = store.load_hour(NOON, 33)
        assert said <= kept.faces <= said + 1
        assert kept.sums[1, 0].tolist() == [kept.faces] * 33
        assert [block.faces for block in store.load_recent(33)] in ([said] * 2, [said + 1] * 2)
        assert store.load_status()["faces"] in (said, said + 1)
    assert said >= 10


def test_old_hours_and_too_many_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "key")
    monkeypatch.setattr(stores, "KEPT_HOURS", 4)
    for hours in range(6):
        for key in ("key", "old"):
            Store(tmp_path, key).save_hour(NOON - timedelta(hours=hours), faces(2))
    (tmp_path / "hours" / "notes.txt").write_text("mine")
    store.prune()
    assert [path.name[11:] for path in store.hours()] == [f"{at:02}-{key}.npz" for at in range(9, 13) for key in KEYS]
    monkeypatch.setattr(stores, "KEPT_BYTES", 3 * store.hours()[0].stat().st_size + 99)
    store.prune()
    assert [path.name[11:] for path in store.hours()] == ["11-old.npz", "12-key.npz", "12-old.npz"]
    assert (tmp_path / "hours" / "notes.txt").exists()


def test_a_wrong_clock_deletes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    for year in (2000, 2026, 2099):
        store.save_hour(NOON.replace(year=year), faces(2))
        store.prune()
    assert [path.name[:4] for path in store.hours()] == ["2000", "2026", "2099"]


def test_flipped_bits_are_survived(tmp_path: Path) -> None:
    store, random = Store(tmp_path, "key"), np.random.default_rng(0)
    store.save_recent([faces(9)])
    path = tmp_path / "recent.npz"
    whole = path.read_bytes()
    read = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        found = store.load_recent(3)
        read += bool(found)
        assert not found or found[0].counts.sum() == 9
    assert 0 < read < 150


def test_another_bundle_begins_anew(tmp_path: Path) -> None:
    old, new = Store(tmp_path, "old"), Store(tmp_path, "new")
    old.save_hour(NOON, faces(7))
    old.save_recent([faces(7)])
    old.save_status({"faces": 7})
    assert new.load_hour(NOON, 3).faces == 0
    assert new.load_recent(3) == []
    assert new.load_status() == {}
    assert old.load_hour(NOON, 3).faces == 7


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_file_is_named_and_replaced(tmp_path: Path, damage: bytes | None, caplog) -> None:
    store = Store(tmp_path, "key")
    store.save_hour(NOON, faces(7))
    path = store.hour_path(NOON)
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    (tmp_path / "status.json").write_text("{")
    assert store.load_hour(NOON, 3).faces == 0
    assert path.name in caplog.text
    assert store.load_status() == {}
    store.save_hour(NOON, faces(1))
    assert store.load_hour(NOON, 3).faces == 1

"""Faces kept for review: which, how many, readable by whom, and for how long."""

import dataclasses
import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError, UsageError
from edge_runtime.judging.results import FaceResult, FrameResult, Reason
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.review.kept_face import NAME, read_record
from edge_runtime.review.sealing import PrivateKey, sealer, write_key_pair
from edge_runtime.review.selection import Selector
from edge_runtime.sinks.review import ReviewSink

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=timezone.utc)
BOX = (40, 40, 120, 120)
UNCERTAIN = {"verdict": Verdict.UNCERTAIN, "reason_code": Reason.BETWEEN_THRESHOLDS}
MOMENTS = itertools.count()


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "key.txt"
    write_key_pair(path)
    return path


def public_key(key: Path) -> str:
    return key.read_text().split("# public key: ")[1].split()[0]


def keeping(folder: Path, **options) -> ReviewSink:
    """Return a sink that keeps no sample, unencrypted unless given keys."""
    defaults = {"purpose": "thresholds", "public_keys": (), "days": 14.0, "sample": 0.0}
    return ReviewSink(folder, **{**defaults, "per_hour": 100, "per_day": 100, **options})


def judged(score=0.5, *, track=None, seed=1, **changes) -> Judged:
    """Return a frame with one face; each seed is another one."""
    own = Verdict.FAKE if score >= 0.7 else Verdict.REAL if score <= 0.3 else Verdict.UNCERTAIN
    verdict = UNCERTAIN if own is Verdict.UNCERTAIN else {"verdict": own}
    face = FaceResult(BOX, 0.9, track, score, **{"frame_verdict": own, **verdict, **changes})
    moment = NOW.replace(microsecond=1000 * (next(MOMENTS) % 1000))
    result = FrameResult("door", 7, moment, width=160, height=160, precision="int8", model="1", faces=(face,))
    blots = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8))
    return Judged(result, blots.resize((160, 160)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "review.json")


def reasons(folder: Path) -> list[str]:
    return sorted(NAME.fullmatch(name)[2] for name in names(folder))


def test_only_the_private_key_opens_a_kept_face(tmp_path, key):
    folder = tmp_path / "kept"
    one = judged(0.55)
    with keeping(folder, public_keys=[public_key(key)]) as sink:
        sink.write(one)
    (path,) = folder.glob("face-*")
    assert path.suffix == ".age"
    assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    data = path.read_bytes()
    assert data.startswith(b"age-encryption.org/v1")
    assert b"PNG" not in data
    png = PrivateKey(key).opened(data)
    record = read_record(png)
    assert (record["score"], record["kept_for"], record["delete_after"][:10]) == (0.55, "uncertain", "2026-12-06")
    with Image.open(io.BytesIO(png)) as kept:
        cut = np.asarray(kept)
    left, top, right, bottom = record["box"]
    assert (cut[top:bottom, left:right] == np.asarray(one.picture)[40:120, 40:120]).all()
    write_key_pair(tmp_path / "other.txt")
    with pytest.raises(PictureError):
        PrivateKey(tmp_path / "other.txt").opened(data)


def test_purpose_and_expiry_are_stored_beside(tmp_path):
    with keeping(tmp_path / "kept", days=3.0) as sink:
        sink.write(judged())
    beside = json.loads((tmp_path / "kept/review.json").read_text())
    assert (beside["purpose"], beside["delete_after_days"], beside["encrypted_for"]) == ("thresholds", 3.0, [])
    with pytest.raises(UsageError, match="another purpose"):
        keeping(tmp_path / "kept", purpose="advertising")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"purpose": "thresholds"}'])
def test_a_damaged_description_is_written_anew(tmp_path, text):
    (tmp_path / "review.json").write_text(text)
    with keeping(tmp_path) as sink:
        sink.write(judged())
    assert json.loads((tmp_path / "review.json").read_text())["delete_after_days"] == 14.0


def test_faces_too_poor_to_review_are_left_out(tmp_path):
    with keeping(tmp_path) as sink:
        sink.write(judged(0.1))
        sink.write(judged(0.9, seed=2))
        sink.write(judged(0.5, seed=3, reason_code=Reason.TOO_DARK))
        for seed, reason in enumerate((Reason.BETWEEN_THRESHOLDS, Reason.UNLIKE, Reason.UNSTABLE), 4):
            sink.write(judged(0.5, seed=seed, reason_code=reason))
    assert reasons(tmp_path) == ["uncertain"] * 3


def test_a_track_is_kept_once_when_it_has_settled(tmp_path):
    with keeping(tmp_path) as sink:
        for seed in (1, 2):
            sink.write(judged(track=1, seed=seed))
        assert names(tmp_path) == []
        for seed in (3, 4, 5):
            sink.write(judged(track=1, seed=seed))
    assert reasons(tmp_path) == ["uncertain"]


def test_a_track_that_disagrees_with_itself_is_kept(tmp_path):
    with keeping(tmp_path) as sink:
        for seed, score in enumerate((0.9, 0.5, 0.8), 1):
            sink.write(judged(score, track=1, seed=seed, verdict=Verdict.FAKE))
        assert names(tmp_path) == []
        sink.write(judged(0.2, track=1, seed=9, verdict=Verdict.FAKE))
        sink.write(judged(0.1, track=2, seed=10))
    assert reasons(tmp_path) == ["disagreement"]
    assert read_record((tmp_path / names(tmp_path)[0]).read_bytes())["score"] == 0.2


def test_a_sample_is_drawn_whatever_the_verdict(tmp_path):
    with keeping(tmp_path / "all", sample=1.0) as everything:
        for seed, score in enumerate((0.1, 0.5, 0.9)):
            everything.write(judged(score, seed=seed))
    assert reasons(tmp_path / "all") == ["sample"] * 3
    selector, result = Selector(0.2), judged(0.9).result
    assert 60 <= sum(selector.reason(result, result.faces[0]) is not None for _ in range(500)) <= 140


def test_near_duplicates_are_left_out_also_after_a_restart(tmp_path):
    one = judged(seed=1)
    noise = np.random.default_rng(1).normal(0, 3, (160, 160, 3))
    noisy = Image.fromarray((np.asarray(one.picture) + noise).clip(0, 255).astype(np.uint8))
    with keeping(tmp_path) as sink:
        sink.write(one)
        sink.write(dataclasses.replace(judged(), picture=noisy))
    assert len(names(tmp_path)) == 1
    with keeping(tmp_path) as again:
        again.write(dataclasses.replace(judged(), picture=noisy))
        again.write(judged(seed=2))
    assert len(names(tmp_path)) == 2


def test_caps_hold_for_an_hour_and_a_day_also_after_a_restart(tmp_path, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr("edge_runtime.sinks.review.time.monotonic", lambda: now)
    seeds = itertools.count()

    def give(count):
        with keeping(tmp_path, per_hour=4, per_day=8) as sink:
            for _ in range(count):
                sink.write(judged(seed=next(seeds)))
        return len(names(tmp_path))

    # One place in four is for the sample.
    assert give(9) == 3
    assert give(9) == 3
    with keeping(tmp_path, per_hour=4, per_day=8, sample=1.0) as sink:
        for _ in range(3):
            sink.write(judged(seed=next(seeds)))
    assert reasons(tmp_path) == ["sample", *["uncertain"] * 3]
    for path in tmp_path.glob("face-*"):
        os.utime(path, (time.time() - 4000, time.time() - 4000))
    assert give(9) == 7
    for path in tmp_path.glob("face-*"):
        os.utime(path, (time.time() - 8000, time.time() - 8000))
    assert give(9) == 7


def test_faces_are_deleted_after_their_days_and_nothing_else_is(tmp_path):
    folder = tmp_path / "kept"
    with keeping(folder, days=2.0) as sink:
        sink.write(judged())
    (folder / "notes.txt").touch()
    (face,) = folder.glob("face-*")
    os.utime(face, (time.time() - 1.9 * 86400, time.time() - 1.9 * 86400))
    keeping(folder, days=2.0)
    assert face.exists()
    os.utime(face, (time.time() - 2.1 * 86400, time.time() - 2.1 * 86400))
    keeping(folder, days=2.0)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "review.json"]


def test_a_full_disk_stops_nothing_and_loses_nothing(tmp_path, monkeypatch):
    with keeping(tmp_path) as sink:
        sink.write(judged(seed=1))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        real = os.fsync

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("edge_runtime.atomic.os.fsync", full)
        sink.write(judged(seed=2))
        assert sink.losses.count == 1
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        monkeypatch.setattr("edge_runtime.atomic.os.fsync", real)
        sink.write(judged(seed=2))
    assert len(names(tmp_path)) == 2


def test_a_disk_that_is_nearly_full_is_left_alone(small_disk):
    with keeping(small_disk / "kept") as sink:
        sink.write(judged())
    assert sink.losses.count == 1
    (small_disk / "ballast").write_bytes(bytes(900_000))
    with keeping(small_disk / "kept") as again:
        again.write(judged())
    assert again.losses.count == 1
    assert names(small_disk / "kept") == []


KILLED = """
import itertools, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_review import judged, keeping
with keeping(Path(sys.argv[1]), public_keys=[sys.argv[2]], per_hour=10**6, per_day=10**6) as sink:
    for seed in itertools.count(int(sys.argv[3])):
        sink.write(judged(seed=seed))
        print(seed, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_it_kept(tmp_path, key):
    """Killed ten times at any moment: what was reported as kept opens, and no half file is left."""
    folder, script = tmp_path / "kept", KILLED.format(tests=str(Path(__file__).parent))
    reported = 0
    for number in range(10):
        command = [sys.executable, "-c", script, str(folder), public_key(key), str(1000 * number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(1 + number % 3):
                assert process.stdout.readline()
            time.sleep(0.004 * number)
            process.send_signal(signal.SIGKILL)
            process.stdout.read()
        reported += 1 + number % 3
    keeping(folder, public_keys=[public_key(key)])
    opener = PrivateKey(key)
    kept = [read_record(opener.opened(path.read_bytes())) for path in folder.glob("face-*")]
    assert len(kept) >= reported
    assert not list(folder.glob(".*"))


def test_keys_that_can_not_be_used_are_refused(tmp_path, key):
    secret = key.read_text().split()[-1]
    for wrong in ("age1nonsense", secret):
        with pytest.raises(UsageError) as error:
            sealer([wrong])
        assert secret not in str(error.value)
    with pytest.raises(UsageError, match="already exists"):
        write_key_pair(key)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        PrivateKey(key)
    (tmp_path / "empty").touch(mode=0o600)
    with pytest.raises(UsageError, match="no private key"):
        PrivateKey(tmp_path / "empty")

"""The monitor: counts a face once, finds drawn drift, stays calm without, and says so everywhere."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from helpers.monitored import drawn, save_faces

from benchmarks.studies.small import write_small_bundle
from board_setup.board import service
from board_setup.board.layout import Layout
from edge_runtime.detector import Detector
from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FaceResult, FaceTraits, FrameResult, Reason
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.monitor import TRACKS, UNJUDGED_FRAMES, Monitor
from edge_runtime.monitoring.store import hour_of
from edge_runtime.pipeline import Judged

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=timezone.utc)


def show(monitor: Monitor, detector: Detector, seeds: range, **changes: float) -> list[str]:
    """Judge drawn faces; return the states that the monitor was in."""
    found = []
    for seed in seeds:
        result = detector.detect(drawn(seed, seed % 2, **changes))
        found.append(monitor.observe(Judged(result, still=True)).result.drift["state"])
    return found


def tracked(*faces: FaceResult) -> Judged:
    return Judged(FrameResult("camera", 0, NOW, faces=faces))


def face(track: int | None, reason: Reason | None = None) -> FaceResult:
    traits = None if reason else FaceTraits(np.zeros(7, np.float32), 99.0, 0.5, 1.0, 99.0)
    score = None if reason else 0.1
    return FaceResult((0, 0, 9, 9), 0.9, track, score, Verdict.REAL, reason_code=reason, traits=traits)


@pytest.fixture(scope="module")
def detector(monitored: Bundle) -> Detector:
    return Detector(monitored, faces="off")


@pytest.mark.slow
def test_the_same_faces_stay_ok(monitored: Bundle, detector: Detector, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    found = show(monitor, detector, range(10_000, 10_800))
    assert set(found[:49]) == {"unknown"}
    assert set(found[49:]) == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"), [({"blur": 1.0}, "less sharp"), ({"dim": 0.45}, "uncertain")], ids=["blur", "dim"]
)
def test_a_change_is_found_within_200_faces(
    monitored: Bundle, detector: Detector, tmp_path: Path, change: dict[str, float], words: str
) -> None:
    monitor = Monitor(monitored, tmp_path)
    assert show(monitor, detector, range(20_000, 20_200))[-1] == "ok"
    found = show(monitor, detector, range(30_000, 30_200), **change)
    assert found[-1] == "drift"
    assert words in monitor.alarm.reason
    # Back at the old lens: the alarm ends after a whole window.
    found = show(monitor, detector, range(40_000, 40_450))
    assert found[150] == "drift"
    assert found[-1] == "ok"


def test_a_restart_goes_on_where_it_was(monitored: Bundle, detector: Detector, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    show(monitor, detector, range(50_000, 50_120), blur=1.5)
    monitor.close()
    again = Monitor(monitored, tmp_path)
    assert again.alarm == monitor.alarm
    assert again.alarm.state.value == "drift"
    assert again.recent.counts.tolist() == monitor.recent.counts.tolist()
    assert json.loads((tmp_path / "status.json").read_text())["faces"] == 120
    (hour,) = again.store.hours()
    assert again.store.load_hour(again._hour, again.baseline.summary.width).faces == 120, hour


def test_a_tracked_face_counts_once(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    for _ in range(30):
        monitor.observe(tracked(face(1), face(2, Reason.TOO_BLURRED), face(3, Reason.TOO_SMALL)))
    monitor.observe(tracked(face(4, Reason.TOO_DARK)))
    monitor.observe(tracked(face(4)))
    assert (monitor.recent.faces, monitor.recent.unjudged) == (2, 1)
    for _ in range(UNJUDGED_FRAMES):
        monitor.observe(replace(tracked(face(1)), result=replace(tracked(face(1)).result, source="other")))
    assert monitor.recent.faces == 3


def test_somebody_who_stays_while_many_pass_counts_once(monitored: Bundle, tmp_path: Path) -> None:
    """Then the numbers begin again at 1."""
    monitor = Monitor(monitored, tmp_path)
    for track in range(2, 2 * TRACKS):
        monitor.observe(tracked(face(track), face(1)))
    monitor.observe(tracked(face(2), face(3), face(2)))
    monitor.close()
    assert monitor.store.load_hour(hour_of(NOW), 7).faces == 2 * TRACKS + 1


def test_a_switch_that_fails_is_tried_again(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(Bundle.open(write_small_bundle(tmp_path / "detector")), tmp_path / "state")
    (tmp_path / "state" / "hours").rmdir()
    (tmp_path / "state" / "hours").touch()
    monitor.switch(monitored)
    assert monitor.observe(tracked(face(1))).result.drift["state"] == "unknown"
    assert monitor.baseline is None
    (tmp_path / "state" / "hours").unlink()
    monitor.observe(tracked(face(1)))
    assert (monitor.recent_faces, monitor.losses.count) == (1, 1)


def test_faces_that_cannot_be_judged_alarm_too(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    for track in range(100):
        for _ in range(UNJUDGED_FRAMES):
            monitor.observe(tracked(face(track, Reason.TOO_BLURRED)))
    assert monitor.alarm.state.value == "drift"
    assert "100% of the faces are too dark or too blurred" in monitor.alarm.reason


def test_each_hour_has_its_own_summary(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    for hours in (0, 0, 1, 3):
        result = FrameResult("picture", 0, NOW + timedelta(hours=hours), faces=(face(None),))
        monitor.observe(Judged(result, still=True))
    monitor.close()
    names = [path.name[11:13] for path in monitor.store.hours()]
    assert names == ["12", "13", "15"]
    at_noon = monitor.store.load_hour(NOW.replace(minute=0), 7)
    assert at_noon.faces == 2


def test_a_bundle_without_statistics_is_unknown(tmp_path: Path, caplog) -> None:
    bundle = Bundle.open(write_small_bundle(tmp_path / "detector"))
    monitor = Monitor(bundle, tmp_path / "state")
    assert monitor.observe(tracked(face(1))).result.drift["state"] == "unknown"
    status = json.loads((tmp_path / "state" / "status.json").read_text())
    assert status["state"] == "unknown"
    assert "reference statistics" in status["reason"]
    assert "reference statistics" in caplog.text


def test_a_folder_that_cannot_be_made_is_refused(monitored: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--monitor"):
        Monitor(monitored, tmp_path / "file" / "state")


def test_two_processes_never_share_a_folder(monitored: Bundle, tmp_path: Path) -> None:
    first = Monitor(monitored, tmp_path / "state")
    pictures = save_faces(tmp_path / "faces", range(1))
    command = [sys.executable, "-m", "edge_runtime.cli", str(pictures), "--model", str(monitored.path)]
    command += ["--monitor", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another process keeps its summaries there" in " ".join(done.stderr.split())
    first.close()
    first.close()
    Monitor(monitored, tmp_path / "state").close()


def test_a_clock_that_jumps_keeps_every_face(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path)
    jumps = (NOW, NOW.replace(year=2000), NOW.replace(year=2099), NOW - timedelta(minutes=20), NOW)
    for time in jumps:
        monitor.observe(Judged(FrameResult("picture", 0, time, faces=(face(None),)), still=True))
    monitor.close()
    kept = [monitor.store.load_hour(hour_of(time), 7).faces for time in jumps[:3]]
    assert kept == [3, 1, 1]
    assert Monitor(monitored, tmp_path).recent.faces == 5


def test_a_full_disk_does_not_stop_it(
    monitored: Bundle, detector: Detector, tmp_path: Path, monkeypatch, caplog
) -> None:
    monitor = Monitor(monitored, tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monitor.store, "save_recent", full)
    assert show(monitor, detector, range(100))[-1] == "ok"
    assert "No space left" in caplog.text
    assert monitor.losses.count == 1


def test_edge_detect_says_it_and_setup_board_reads_it(monitored: Bundle, tmp_path: Path) -> None:
    pictures = save_faces(tmp_path / "faces", range(60_000, 60_110), blur=1.5)
    root = tmp_path / "root"
    folder = root / service.MONITOR.lstrip("/")
    command = [sys.executable, "-m", "edge_runtime.cli", str(pictures), "--model", str(monitored.path), "--quiet"]
    command += ["--faces", "off", "--jsonl", str(tmp_path / "out.jsonl")]
    done = subprocess.run(
        command, env={**os.environ, "DEEPFAKE_EDGE_MONITOR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[0]["drift"]["state"] == "unknown"
    frames = [line for line in lines if line["state"] == "ok"]
    assert frames[-1]["drift"]["state"] == "drift"
    assert "less sharp" in frames[-1]["drift"]["reason"]
    assert "drift monitor: drift" in done.stderr
    text = service.drift(Layout(str(root)))
    assert text.startswith("drift since 20")
    assert "less sharp" in text
    assert service.drift(Layout(str(tmp_path))) == "nothing is monitored yet"
    (folder / "status.json").write_text("{}")
    assert "can't be read" in service.drift(Layout(str(root)))


def test_a_new_bundle_begins_anew(monitored: Bundle, tmp_path: Path) -> None:
    monitor = Monitor(monitored, tmp_path / "state")
    monitor.observe(tracked(face(1)))
    monitor.switch(Bundle.open(write_small_bundle(tmp_path / "other")))
    assert monitor.observe(tracked(face(2))).result.drift["state"] == "unknown"
    assert monitor.recent is None
    monitor.switch(monitored)
    monitor.observe(tracked(face(3)))
    assert monitor.recent.faces == 2
    strange = replace(face(4), traits=FaceTraits(np.zeros(9, np.float32), 99.0, 0.5, 1.0, 99.0))
    monitor.observe(tracked(strange))
    assert monitor.recent.faces == 2

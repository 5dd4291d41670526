import csv
import dataclasses
import errno
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FaceResult, FrameResult, SourceState
from edge_runtime.model.contract import DEMO_NOTICE, Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.printable import printable
from edge_runtime.sinks.encoders import find_ffmpeg
from edge_runtime.sinks.lines import COLUMNS, CsvSink, JsonlSink
from edge_runtime.sinks.live import LiveView
from edge_runtime.sinks.snapshots import SnapshotSink, blurred, snapshot_name
from edge_runtime.sinks.terminal import PlainLines, frame_lines
from edge_runtime.sinks.video import VideoSink
from edge_runtime.sources.opencv import cv2

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=timezone.utc)
FACE = FaceResult((8, 8, 40, 40), 0.9, 1, 0.97, Verdict.FAKE, None, 0.95)


def frame(number=0, faces=(FACE,), size=(64, 48), **changes):
    values = {"source": "door", "device": "CPU", "precision": "int8", "model": "1", **changes}
    result = FrameResult(frame=number, time=NOW, faces=faces, width=size[0], height=size[1], **values)
    picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8))
    return Judged(result, picture, fps=10.0, position_s=number / 10)


def fill(sink, count, **changes):
    """Write `count` frames."""
    for number in range(count):
        sink.write(frame(number, **changes))


def with_verdict(verdict, number):
    return frame(number, (dataclasses.replace(FACE, verdict=verdict),))


def test_json_lines_are_on_disk_at_once(tmp_path):
    path = tmp_path / "out.jsonl"
    for number in range(3):
        with JsonlSink(path) as sink:
            sink.write(frame(number))
            assert [json.loads(line)["frame"] for line in path.open()] == list(range(number + 1))


def test_a_cut_line_does_not_spoil_the_next(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"source": 1}\n{"cut')
    with JsonlSink(tmp_path / "out.jsonl") as sink:
        sink.write(frame())
    first, _, last = (tmp_path / "out.jsonl").read_text().splitlines()
    assert (first, json.loads(last)["source"]) == ('{"source": 1}', "door")


def test_csv_has_one_header_and_one_line_per_face(tmp_path):
    path = tmp_path / "out.csv"
    for _ in range(2):
        with CsvSink(path) as sink:
            sink.write(frame(0, (FACE, dataclasses.replace(FACE, track=2))))
            sink.write(frame(1, (), error="line\none"))
    rows = list(csv.DictReader(path.open()))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["track"] for row in rows] == ["1", "2", ""] * 2
    assert rows[0]["verdict"] == "fake"
    assert rows[2]["error"] == "line one"
    assert len(path.read_text().splitlines()) == 7


def test_long_files_are_rotated_and_few_kept(tmp_path):
    path = tmp_path / "out.jsonl"
    with JsonlSink(path, rotate_at=2000) as sink:
        fill(sink, 100)
    files = sorted(found.name for found in tmp_path.iterdir())
    assert files == ["out.1.jsonl", "out.2.jsonl", "out.3.jsonl", "out.4.jsonl", "out.5.jsonl", "out.jsonl"]
    kept = [json.loads(line)["frame"] for name in files[-2::-1] + files[-1:] for line in (tmp_path / name).open()]
    assert kept == list(range(kept[0], 100))
    assert all((tmp_path / name).stat().st_size < 2600 for name in files)


@pytest.mark.parametrize("rotate_at", [None, 2000])
@pytest.mark.parametrize("put_there", [None, b"", b'{"source": "older"}\n', b"RIFF"])
def test_a_file_moved_by_hand_is_begun_anew(tmp_path, rotate_at, put_there):
    path, moved = tmp_path / "out.jsonl", tmp_path / "moved.jsonl"
    with JsonlSink(path, rotate_at=rotate_at) as sink:
        fill(sink, 20)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file != path}
        path.rename(moved)
        if put_there is not None:
            path.write_bytes(put_there)
        for number in (100, 101):
            sink.write(frame(number))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    foreign = put_there == b"RIFF"
    lines = (moved if foreign else path).read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines[-2:]] == [100, 101]
    assert not foreign or path.read_bytes() == put_there


def test_every_rotated_csv_has_a_header(tmp_path):
    with CsvSink(tmp_path / "out.csv", rotate_at=600) as sink:
        fill(sink, 20)
    assert all(path.read_text().startswith("source,frame") for path in tmp_path.iterdir())


def test_lines_on_a_full_device_are_lost():
    with JsonlSink("/dev/full") as sink:
        sink.write(frame())
        assert sink.losses.count == 1


FULL = """
import resource, signal, sys
from edge_runtime.sinks.lines import LineFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = LineFile(sys.argv[1], begins="x")
for number in range(20):
    file.append("x" * 150)
print(file.losses.count)
"""


def test_a_full_disk_keeps_no_half_line(tmp_path):
    path = tmp_path / "out.txt"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "14\n"
    assert path.read_text() == ("x" * 150 + "\n") * 6


def test_a_header_lost_to_a_full_disk_comes_later(small_disk):
    path = small_disk / "out.csv"
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    with CsvSink(path) as sink:
        sink.write(frame(0))
        (small_disk / "ballast").unlink()
        sink.write(frame(1))
        assert sink.losses.count == 1
    (row,) = csv.DictReader(path.open())
    assert row["frame"] == "1"


@pytest.mark.parametrize("name", ["=cmd|x", "+1", "-1.jpg", "@a", "a;=cmd|x", "\t=x", "\n=x"])
def test_no_cell_is_a_formula(tmp_path, name):
    with CsvSink(tmp_path / "out.csv") as sink:
        sink.write(frame(source=name, error="a-b.jpg"))
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert not any(part.strip().startswith(("=", "+", "-", "@")) for part in re.split(r"[;\t]", row["source"]))
    assert row["error"] == "a-b.jpg"


def test_writing_resumes_when_the_disk_has_room(small_disk):
    path = small_disk / "out.jsonl"
    with JsonlSink(path) as sink:
        (small_disk / "ballast").write_bytes(bytes(900_000))
        number = 0
        while sink.losses.count < 3 and number < 5000:
            sink.write(frame(number))
            number += 1
        assert sink.losses.count == 3
        assert all(json.loads(line) for line in path.open())
        (small_disk / "ballast").unlink()
        sink.write(frame(number))
    assert json.loads(path.read_text().splitlines()[-1])["frame"] == number


def test_pictures_and_videos_leave_room(small_disk):
    with SnapshotSink(small_disk / "s") as snapshots, VideoSink(small_disk / "v.avi") as video:
        snapshots.write(frame())
        video.write(frame())
    assert (snapshots.losses.count, video.losses.count) == (1, 1)
    assert list((small_disk / "s").iterdir()) == []


def test_first_loss_and_first_success_are_logged(small_disk, caplog):
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    with JsonlSink(small_disk / "out.jsonl") as sink:
        fill(sink, 3)
        (small_disk / "ballast").unlink()
        fill(sink, 2)
    lost, again = caplog.messages
    assert "out.jsonl: can't be written (No space left on device)" in lost
    assert "lost so far: 3" in again


def test_a_read_only_disk_only_loses_snapshots(small_disk, monkeypatch):
    monkeypatch.setattr("edge_runtime.sinks.disk.SPARE", 0)
    with SnapshotSink(small_disk / "s", max_age_s=0.0) as sink:
        sink.write(frame(0))
        assert len(list((small_disk / "s").iterdir())) == 1
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        sink.write(with_verdict(Verdict.REAL, 1))
        assert sink.losses.count == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_has_every_frame_with_boxes(tmp_path, suffix):
    path = tmp_path / f"seen{suffix}"
    with VideoSink(path) as sink:
        fill(sink, 12, size=(320, 240), faces=(dataclasses.replace(FACE, box=(80, 80, 200, 200)),))
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 12
    assert frames[0].shape == (240, 320, 3)
    orange = frames[0][80, 100:180].mean(axis=0)
    assert orange[2] > orange[0] + 60


def frames_of(path):
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


@pytest.mark.parametrize("fps", [60.0, 4.2098])
def test_a_changing_rate_keeps_its_times(tmp_path, fps):
    times = [*(number / 30 for number in range(60)), *(2 + number / 5 for number in range(51))]
    with VideoSink(tmp_path / "seen.avi") as sink:
        for number, time_s in enumerate(times):
            sink.write(dataclasses.replace(frame(number), fps=fps, position_s=time_s))
    capture = cv2.VideoCapture(str(tmp_path / "seen.avi"))
    assert frames_of(tmp_path / "seen.avi") / capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.0, abs=0.1)


def test_a_live_video_runs_as_fast_as_the_clock(tmp_path, monkeypatch):
    now = itertools.count(100.0, 1 / 45)
    monkeypatch.setattr("edge_runtime.sinks.video.time.monotonic", lambda: next(now))
    with VideoSink(tmp_path / "seen.avi") as sink:
        for number in range(90):
            sink.write(dataclasses.replace(frame(number), fps=None, position_s=None))
    assert abs(frames_of(tmp_path / "seen.avi") - 30) <= 12


def fourcc(path):
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").lower()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_videos_are_h264_where_there_is_an_encoder(tmp_path, monkeypatch, caplog, suffix):
    if find_ffmpeg() is None:
        pytest.skip("needs ffmpeg")
    for name in ("with", "without"):
        with VideoSink(tmp_path / f"{name}{suffix}") as sink:
            fill(sink, 10)
        monkeypatch.setenv("PATH", "")
    assert [fourcc(tmp_path / f"{name}{suffix}") for name in ("with", "without")] == [b"h264", b"fmp4"]
    assert [frames_of(tmp_path / f"{name}{suffix}") for name in ("with", "without")] == [10, 10]
    (note,) = caplog.messages
    assert note.startswith(f"{tmp_path}/without{suffix}: there is no H.264 encoder here")


def test_an_encoder_that_dies_costs_only_frames(tmp_path, monkeypatch):
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ' libx264 '\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with VideoSink(tmp_path / "seen.mp4") as sink:
        fill(sink, 40)
    assert 30 <= sink.losses.count <= 40


def test_another_frame_size_stays_in_one_video(tmp_path):
    with VideoSink(tmp_path / "seen.avi") as sink:
        sink.write(frame(0, size=(320, 240)))
        sink.write(frame(1, size=(641, 479)))
    assert frames_of(tmp_path / "seen.avi") == 2


def test_a_long_video_is_rotated(tmp_path):
    with VideoSink(tmp_path / "seen.avi", rotate_at=100_000) as sink:
        fill(sink, 60, size=(320, 240))
    videos = sorted(tmp_path.iterdir())
    assert len(videos) > 1
    assert all(cv2.VideoCapture(str(video)).read()[0] for video in videos)


def test_a_video_that_is_there_already_is_kept(tmp_path):
    for count in (3, 5):
        with VideoSink(tmp_path / "seen.avi") as sink:
            fill(sink, count)
    assert [frames_of(tmp_path / name) for name in ("seen.1.avi", "seen.avi")] == [3, 5]


def test_a_video_that_can_not_be_renamed_continues(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr("edge_runtime.sinks.video.rotate", refused)
    with VideoSink(tmp_path / "seen.avi", rotate_at=20_000) as sink:
        fill(sink, 30, size=(320, 240))
    assert frames_of(tmp_path / "seen.avi") == 30


def test_a_snapshot_needs_a_new_verdict(tmp_path):
    with SnapshotSink(tmp_path / "s") as sink:
        fill(sink, 5)
        sink.write(with_verdict(Verdict.UNCERTAIN, 6))
        sink.write(with_verdict(Verdict.REAL, 7))
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert names == ["edge-20261122T100000000Z-door-0-fake.jpg", "edge-20261122T100000000Z-door-7-real.jpg"]


def test_snapshots_are_private(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o755)
    for folder in (tmp_path / "new/s", tmp_path / "mine"):
        with SnapshotSink(folder) as sink:
            sink.write(frame(0))
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_an_open_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match="chmod 700"):
        SnapshotSink(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_set_clock_deletes_no_snapshots(tmp_path, monkeypatch):
    with SnapshotSink(tmp_path / "s", max_age_s=1000.0) as sink:
        sink.write(frame(0))
        real = time.time
        monkeypatch.setattr("edge_runtime.sinks.kept.time.time", lambda: real() + 1e6)
        sink.write(with_verdict(Verdict.REAL, 1))
        assert len(list((tmp_path / "s").iterdir())) == 2


def test_a_clock_that_was_behind_at_the_start_keeps_no_old_snapshots(tmp_path, monkeypatch):
    days, real = 86400.0, time.time
    with SnapshotSink(tmp_path / "s") as sink:
        sink.write(frame(0))
    (old,) = (tmp_path / "s").iterdir()
    os.utime(old, (real() - 20 * days, real() - 20 * days))
    monkeypatch.setattr("edge_runtime.sinks.kept.time.time", lambda: real() - 40 * days)
    with SnapshotSink(tmp_path / "s", max_age_s=14 * days) as sink:
        sink.write(frame(1))
        assert old.exists()
        monkeypatch.setattr("edge_runtime.sinks.kept.time.time", real)
        sink.write(with_verdict(Verdict.REAL, 2))
    assert not old.exists()
    assert len(list((tmp_path / "s").iterdir())) == 2


@pytest.mark.parametrize("days", [-1.0, 1e7, math.inf, math.nan])
def test_pictures_are_kept_for_a_time_that_exists(tmp_path, days):
    with pytest.raises(UsageError, match=r"can't be kept for .* days; give 0 to 36500"):
        SnapshotSink(tmp_path / "s", max_age_s=days * 86400.0)


def test_a_picture_wider_than_a_jpeg_is_kept_smaller(tmp_path):
    with SnapshotSink(tmp_path / "s") as sink:
        sink.write(frame(0, size=(70_000, 48)))
    (path,) = (tmp_path / "s").iterdir()
    with Image.open(path) as kept:
        assert kept.width == 65_500


def test_a_snapshots_name_leads_nowhere():
    assert not {"/", "\0"} & set(snapshot_name(frame(source="http://cam/../../etc/passwd?a=\0").result))


def test_old_snapshots_are_deleted_and_no_other_files(tmp_path):
    folder = tmp_path / "s"
    with SnapshotSink(folder) as sink:
        sink.write(frame(0))
    (old,) = folder.iterdir()
    (folder / "holiday.jpg").write_bytes(b"mine")
    for path in folder.iterdir():
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    with SnapshotSink(folder, max_age_s=100.0) as sink:
        sink.write(frame(1))
    assert not old.exists()
    assert (folder / "holiday.jpg").exists()
    assert len(list(folder.iterdir())) == 2


def test_the_oldest_snapshots_make_room(tmp_path):
    folder = tmp_path / "s"
    with SnapshotSink(folder, max_bytes=20_000) as sink:
        for number in range(12):
            sink.write(frame(number, (dataclasses.replace(FACE, track=number),)))
    kept = sorted(int(path.name.split("-")[3]) for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000
    assert kept == list(range(12 - len(kept), 12))


def test_a_blurred_face_keeps_no_features():
    pixels = np.random.default_rng(1).integers(0, 256, (120, 120, 3), np.uint8)
    after = np.asarray(blurred(Image.fromarray(pixels), [(40, 40, 80, 80)])).astype(int)
    assert after[40:80, 40:80].std() < pixels[40:80, 40:80].std() / 3
    assert (after[100:, 100:] == pixels[100:, 100:]).all()


def test_plain_lines_have_source_verdict_probability_time():
    out = io.StringIO()
    with PlainLines(out) as sink:
        sink.write(frame(3, latency_ms=9.8))
        sink.write(frame(4, ()))
    assert out.getvalue().splitlines() == [
        "door #3  face 1  fake (known traces)  0.950  10 ms",
        "door #4  no face  0 ms",
    ]


def test_a_journal_gets_failures_and_recoveries():
    out = io.StringIO()
    with PlainLines(out, failures_only=True) as sink:
        sink.write(frame(1))
        sink.write(Judged(FrameResult("door", 1, NOW, SourceState.LOST, error="unplugged")))
        sink.write(frame(2))
        sink.write(frame(3))
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == ["door #1", "door #2"]
    assert "lost: unplugged" in out.getvalue()


def test_a_journal_gets_each_failure_once(tmp_path):
    out = io.StringIO()
    with PlainLines(out, failures_only=True) as sink:
        for number in range(0, 1800, 2):
            sink.write(frame(number, error="broken"))
            sink.write(frame(number + 1, error="cut off"))
        sink.write(frame(1800))
        sink.write(frame(1801, error="broken"))
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == [
        *("door #0", "door #1", "door #1800", "door #1801")
    ]


def test_faces_of_one_picture_are_numbered():
    faces = tuple(dataclasses.replace(FACE, track=None, box=(left, 8, left + 32, 40)) for left in (8, 50))
    first, second = frame_lines(frame(faces=faces).result, 0.0)
    assert "face 1 at 8,8 to 40,40  fake" in first
    assert "face 2 at 50,8 to 82,40  fake" in second


def test_every_line_names_a_demonstration_model():
    assert all(DEMO_NOTICE in line for line in frame_lines(frame(notice=DEMO_NOTICE).result, 25.0))
    assert DEMO_NOTICE in frame_lines(frame(faces=(), notice=DEMO_NOTICE).result, 25.0)[0]


def test_names_can_not_control_the_terminal():
    assert printable("Zoë \x1b[2J.jpg") == r"Zoë \x1b[2J.jpg"


def shown(view):
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(view.render())
    return console.export_text()


def test_the_live_view_shows_figures_faces_and_losses():
    view = LiveView(Console(file=io.StringIO()))
    uncertain = FaceResult((0, 0, 9, 9), 0.8, 2, None, Verdict.UNCERTAIN, "too dark")
    view.write(frame(5, (FACE, uncertain), age_ms=41.0, dropped=7, notice=DEMO_NOTICE))
    text = shown(view)
    for part in ("door", "FPS", "age 41 ms", "dropped 7", "CPU int8", "fake", "0.950", "too dark", DEMO_NOTICE):
        assert part in text
    view.write(Judged(FrameResult("door", 0, NOW, SourceState.LOST, error="unplugged")))
    assert "lost" in shown(view)
    assert "unplugged" in shown(view)


def picture(number, **changes):
    return dataclasses.replace(frame(source=f"{number}.jpg", **changes), still=True, fps=None, position_s=None)


def test_the_live_view_shows_only_the_last_picture():
    view = LiveView(Console(file=io.StringIO()))
    view.write(frame())
    for number in range(50):
        view.write(picture(number))
    assert [name in shown(view) for name in ("door", "49.jpg", "48.jpg")] == [True, True, False]


def test_every_broken_picture_is_printed():
    out = io.StringIO()
    with PlainLines(out, failures_only=True) as sink:
        for number in range(50):
            sink.write(picture(number, error="broken"))
    assert len(out.getvalue().splitlines()) == 50


def test_brackets_in_names_are_not_markup():
    view = LiveView(Console(file=io.StringIO()))
    view.write(frame(source="[red]x[/red].mp4"))
    assert "[red]x[/red].mp4" in shown(view)


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
@pytest.mark.parametrize("zeros", [bytes(4096) + b"later lines\n", b"\0", None])
def test_what_a_power_cut_left_is_put_aside(tmp_path, sink, zeros):
    path = tmp_path / "results"
    zeros = zeros or {JsonlSink: b'{"sour', CsvSink: b"source,fr"}[sink]
    path.write_bytes(zeros)
    written = sink(path)
    written.write(frame())
    written.close()
    assert path.read_bytes().startswith((b'{"source":', b"source,frame,"))
    assert (tmp_path / "results.1").read_bytes() == zeros


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0", b'{\n  "contract": {}\n}', b"RIFF"])
def test_lines_are_not_appended_to_other_files(tmp_path, sink, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds something else"):
        sink(path)
    assert path.read_bytes() == content

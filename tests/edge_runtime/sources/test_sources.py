import errno
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions, camera, open_source, open_sources
from edge_runtime.sources.files import Folder, Pictures
from edge_runtime.sources.opencv import cv2


def names(source):
    return [frame.source for frame in source.frames(threading.Event())]


def test_a_folder_gives_its_pictures_and_those_below_in_order(tmp_path, red):
    for name in ("b.png", "a.jpg", "below/c.JPG", ".hidden.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        red.save(path, "JPEG")
    found = [name.removeprefix(f"{tmp_path}/") for name in names(open_source(str(tmp_path)))]
    assert found == ["a.jpg", "b.png", "below/c.JPG"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no pictures in it"):
        open_source(str(tmp_path))


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(names(open_source(str(tmp_path)))) == 1


def test_a_pattern_names_pictures(tmp_path, red):
    for name in ("a1.jpg", "a2.jpg", "b.jpg", "a3.txt"):
        red.save(tmp_path / name, "JPEG")
    assert len(names(open_source(f"{tmp_path}/a*"))) == 2
    assert len(names(open_source(f"{tmp_path}/**/*.jpg"))) == 3
    with pytest.raises(SourceError, match="no picture or video matches"):
        open_source(f"{tmp_path}/z*")


def test_a_pattern_names_videos_too(tmp_path, red):
    red.save(tmp_path / "a.png")
    writer = cv2.VideoWriter(str(tmp_path / "b.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, red.size)
    for _ in range(2):
        writer.write(np.asarray(red))
    writer.release()
    (tmp_path / "c.mp4").write_text("no video")
    source = open_source(f"{tmp_path}/*")
    *frames, gap = source.frames(threading.Event())
    assert [(Path(frame.source).name, frame.index) for frame in frames] == [("a.png", 0), ("b.avi", 0), ("b.avi", 1)]
    assert gap.failed
    assert not source.still
    assert open_source(f"{tmp_path}/*.png").still


def test_a_file_whose_name_has_a_bracket_is_no_pattern(tmp_path, red):
    red.save(tmp_path / "photo[1].jpg")
    assert names(open_source(str(tmp_path / "photo[1].jpg"))) == [str(tmp_path / "photo[1].jpg")]


def test_a_picture_without_a_suffix_is_read_as_a_picture(tmp_path, red):
    red.save(tmp_path / "upload", "JPEG")
    assert isinstance(open_source(str(tmp_path / "upload")), Pictures)


def test_a_tilde_is_the_home(tmp_path, red, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    red.save(tmp_path / "a.jpg")
    (frame,) = open_source("~/a.jpg").frames(threading.Event())
    assert frame.load().size == red.size


@pytest.mark.parametrize("text", ["gone.mp4", "http://", "http://[::1", "rtsp://:99999"])
def test_what_can_not_be_a_source_is_refused_with_its_name(text):
    with pytest.raises(SourceError, match=r"gone|http|rtsp"):
        open_source(text)


def test_a_text_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(SourceError, match="neither a picture nor a video"):
        open_source(str(tmp_path / "notes.mp4"))


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(SourceError, match="neither a picture nor a video"):
        open_source(str(tmp_path / "empty"))


def test_one_missing_source_among_others_fails_alone(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    good, bad = open_sources([str(tmp_path / "a.jpg"), str(tmp_path / "gone.mp4")])
    assert len(names(good)) == 1
    (gap,) = bad.frames(threading.Event())
    assert gap.failed
    assert "gone.mp4: not found" in gap.error


def test_where_nothing_can_be_read_the_reason_is_raised():
    with pytest.raises(SourceError, match="gone"):
        open_sources(["gone.mp4", "gone.avi"])


def test_a_camera_that_is_not_there_is_told_with_those_that_are_and_what_to_check():
    with pytest.raises(SourceError, match=r"no camera /dev/video77; cameras here: .*group `video`"):
        open_sources([], cameras=["77"])


def test_a_cameras_other_name_is_a_camera_too():
    with pytest.raises(SourceError, match=r"no camera /dev/door-camera; cameras here: "):
        open_sources([], cameras=["/dev/door-camera"])


def test_of_a_camera_the_nodes_that_give_no_pictures_are_not_listed(tmp_path, monkeypatch):
    told = {"video0": (0x84A00001, 0x04200001), "video1": (0x84A00001, 0x04A00000), "video2": (0x1, 0)}
    for name in (*told, "video3", "video10"):
        (tmp_path / name).touch()

    def ioctl(file, request, answer):
        assert (request, len(answer)) == (0x80685600, 104)
        name = Path(f"/proc/self/fd/{file}").readlink().name
        if name not in told:
            raise OSError(errno.ENOTTY, "no terminal")
        struct.pack_into("=II", answer, 84, *told[name])

    def opened(path, flags):
        if path.name == "video10":
            raise PermissionError(errno.EACCES, "denied")
        return open_file(path, flags)

    open_file = os.open
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    monkeypatch.setattr(camera, "NAMES", tmp_path)
    monkeypatch.setattr("fcntl.ioctl", ioctl)
    monkeypatch.setattr("os.open", opened)
    assert [(Path(node).name, name) for node, name in camera.list_cameras()] == [
        ("video0", "unknown"),
        ("video2", "unknown"),
        ("video10", "unknown (no permission; group video)"),
    ]
    assert camera.cameras_text().endswith("video10 unknown (no permission; group video)")


def test_pictures_named_one_by_one_become_one_source(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    (source,) = open_sources([str(tmp_path / "a.jpg"), str(tmp_path / "gone.jpg")])
    assert [Path(name).name for name in names(source)] == ["a.jpg", "gone.jpg"]


def test_a_name_that_can_not_be_one_is_refused_in_one_line():
    with pytest.raises(SourceError, match="can't be opened"):
        open_source("a" * 300)


def test_a_watched_folder_gives_new_pictures_once_they_are_complete(tmp_path, red):
    folder, stop, seen = Folder(tmp_path, watch=True), threading.Event(), []
    reader = threading.Thread(target=lambda: seen.extend(frame.source for frame in folder.frames(stop)))
    reader.start()
    data = (red.save(tmp_path / "early.png"), (tmp_path / "early.png").read_bytes())[1]
    with (tmp_path / "late.png").open("wb") as file:
        for part in (data[:50], data[50:100], data[100:]):
            file.write(part)
            file.flush()
            time.sleep(0.3)
    until(lambda: len(seen) == 2)
    stop.set()
    reader.join()
    assert seen == [str(tmp_path / "early.png"), str(tmp_path / "late.png")]


class Steps:
    """Stands for the event that ends a watch: takes a step each time it is waited for, and is set after the last."""

    def __init__(self, *steps):
        self._steps, self.pauses = list(steps), []

    def is_set(self):
        return len(self.pauses) > len(self._steps)

    def wait(self, seconds):
        if len(self.pauses) < len(self._steps):
            self._steps[len(self.pauses)]()
        self.pauses.append(seconds)


def test_a_watched_folder_that_vanishes_and_comes_back_is_not_judged_twice(tmp_path, red, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.files.SETTLED_S", 0.0)
    folder, away = tmp_path / "in", tmp_path / "away"
    folder.mkdir()
    red.save(folder / "a.png")
    stop = Steps(
        lambda: folder.rename(away),
        lambda: folder.mkdir(),
        lambda: (folder.rmdir(), away.rename(folder)),
        lambda: red.save(folder / "b.png"),
        lambda: red.save(folder / "a.png", compress_level=0),
    )
    seen = [Path(frame.source).name for frame in Folder(folder, watch=True).frames(stop)]
    assert seen == ["a.png", "b.png", "a.png"]


def test_a_folder_that_takes_long_to_look_at_is_looked_at_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.files.pictures_below", lambda folder: time.sleep(0.1) or iter(()))
    stop = Steps(lambda: None)
    assert list(Folder(tmp_path, watch=True).frames(stop)) == []
    assert all(pause >= 1.0 for pause in stop.pauses)


def test_a_watched_folder_may_be_empty_or_come_later(tmp_path):
    assert open_source(str(tmp_path), SourceOptions(watch=True)).endless


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()

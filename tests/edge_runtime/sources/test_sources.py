"""Opening sources: pictures, folders, globs, videos and cameras."""

import errno
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from helpers.videos import write_video
from helpers.waiting import until

from edge_runtime.errors import SourceError
from edge_runtime.sources import Gap, SourceOptions, camera, open_source, open_sources
from edge_runtime.sources.files import Folder, Pictures


def names(source):
    return [frame.source for frame in source.frames(threading.Event())]


def test_a_folder_gives_all_pictures_in_order(tmp_path, red):
    for name in ("b.png", "a.jpg", "below/c.JPG", ".hidden.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        red.save(path, "JPEG")
    found = [name.removeprefix(f"{tmp_path}/") for name in names(open_source(str(tmp_path)))]
    assert found == ["a.jpg", "b.png", "below/c.JPG"]


def test_an_empty_folder_is_refused_unless_watched(tmp_path):
    assert open_source(str(tmp_path), SourceOptions(watch=True)).endless
    with pytest.raises(SourceError, match="no pictures in it"):
        open_source(str(tmp_path))


def test_links_are_followed_once(tmp_path, red):
    for name in ("in/a.jpg", "other/deep/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        red.save(tmp_path / name)
    (tmp_path / "in/above").symlink_to(tmp_path / "in")
    (tmp_path / "in/other").symlink_to("../other")
    (tmp_path / "in/z").symlink_to("../other/deep")
    (tmp_path / "in/gone").symlink_to("nowhere")
    found = [name.removeprefix(f"{tmp_path}/in/") for name in names(open_source(str(tmp_path / "in")))]
    assert found == ["a.jpg", "other/deep/b.jpg"]


@pytest.fixture
def nest(tmp_path, red):
    """Makes folders in folders, with a picture in the innermost, and removes them."""

    def make(name, levels):
        red.save(tmp_path / "a.jpg")
        folder = os.open(tmp_path, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open("b.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        os.write(file, (tmp_path / "a.jpg").read_bytes())
        os.close(file)
        os.close(folder)
        return tmp_path

    yield make
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_deep_folders_are_read(nest):
    assert len(names(open_source(str(nest("d", 1100))))) == 2


def test_folders_that_can_not_be_read_fail(nest):
    frame, gap = open_source(str(nest("d" * 250, 20))).frames(threading.Event())
    assert frame.source.endswith("a.jpg")
    assert gap.failed
    assert "File name too long" in gap.error


@pytest.mark.parametrize("watch", [False, True])
def test_an_unreadable_subfolder_fails_once(tmp_path, red, monkeypatch, watch):
    red.save(tmp_path / "a.jpg")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr("edge_runtime.sources.files.SETTLED_S", 0.0)
    items = list(Folder(tmp_path, watch=watch).frames(Steps(lambda: None, lambda: None)))
    (gap,) = (item for item in items if isinstance(item, Gap))
    assert gap.failed
    assert "secret: can't be read" in gap.error


def test_a_pattern_matches_pictures(tmp_path, red):
    for name in ("a1.jpg", "a2.jpg", "b.jpg", "a3.txt"):
        red.save(tmp_path / name, "JPEG")
    assert len(names(open_source(f"{tmp_path}/a*"))) == 2
    assert len(names(open_source(f"{tmp_path}/**/*.jpg"))) == 3
    with pytest.raises(SourceError, match="no picture or video matches"):
        open_source(f"{tmp_path}/z*")


def test_a_pattern_matches_videos_too(tmp_path, red):
    red.save(tmp_path / "a.png")
    write_video(tmp_path / "b.avi", [red, red])
    (tmp_path / "c.mp4").write_text("no video")
    source = open_source(f"{tmp_path}/*")
    *frames, gap = source.frames(threading.Event())
    assert [(Path(frame.source).name, frame.index) for frame in frames] == [("a.png", 0), ("b.avi", 0), ("b.avi", 1)]
    assert gap.failed
    assert not source.still
    assert open_source(f"{tmp_path}/*.png").still


def test_odd_names_are_files(tmp_path, red, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    red.save(tmp_path / "photo[1].jpg")
    red.save(tmp_path / "upload", "JPEG")
    assert names(open_source(str(tmp_path / "photo[1].jpg"))) == [str(tmp_path / "photo[1].jpg")]
    assert isinstance(open_source(str(tmp_path / "upload")), Pictures)
    (frame,) = open_source("~/photo[1].jpg").frames(threading.Event())
    assert frame.load().size == red.size


@pytest.mark.parametrize(
    "text",
    ["gone.mp4", "http://", "http://[::1", "rtsp://:99999", "rtsp://a..b/", "a" * 300, "~nobody-here/x.jpg", ""],
)
def test_what_can_not_be_opened_is_named(text):
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert (text or "empty") in str(caught.value)


@pytest.mark.parametrize("content", [b"no video", b""])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "notes.mp4").write_bytes(content)
    with pytest.raises(SourceError, match="neither a picture nor a video"):
        open_source(str(tmp_path / "notes.mp4"))


def test_one_missing_source_fails_alone(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    good, bad = open_sources([str(tmp_path / "a.jpg"), str(tmp_path / "gone.mp4")])
    assert len(names(good)) == 1
    (gap,) = bad.frames(threading.Event())
    assert gap.failed
    assert "gone.mp4: not found" in gap.error
    with pytest.raises(SourceError, match=r"gone\.mp4"):
        open_sources(["gone.mp4", "gone.avi"])


@pytest.mark.parametrize(("name", "device"), [("77", "/dev/video77"), ("/dev/door-camera", "/dev/door-camera")])
def test_a_missing_camera_lists_those_that_exist(name, device):
    with pytest.raises(SourceError, match=rf"no camera {device}; cameras here: .*group `video`"):
        open_sources([], cameras=[name])


def test_nodes_without_pictures_are_not_listed(tmp_path, monkeypatch):
    capabilities = {"video0": (0x84A00001, 0x04200001), "video1": (0x84A00001, 0x04A00000), "video2": (0x1, 0)}
    for name in (*capabilities, "video3", "video10"):
        (tmp_path / name).touch()

    def ioctl(file, request, answer):
        assert (request, len(answer)) == (0x80685600, 104)
        name = Path(f"/proc/self/fd/{file}").readlink().name
        if name not in capabilities:
            raise OSError(errno.ENOTTY, "no terminal")
        struct.pack_into("=II", answer, 84, *capabilities[name])

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


def test_pictures_in_a_row_become_one_source(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    (source,) = open_sources([str(tmp_path / "a.jpg"), str(tmp_path / "gone.jpg")])
    assert [Path(name).name for name in names(source)] == ["a.jpg", "gone.jpg"]


def test_a_watched_folder_waits_for_whole_pictures(tmp_path, red, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.files.SETTLED_S", 0.6)
    folder, stop, seen = Folder(tmp_path, watch=True), threading.Event(), []
    reader = threading.Thread(target=lambda: seen.extend(frame.source for frame in folder.frames(stop)))
    reader.start()
    red.save(tmp_path / "early.png")
    data = (tmp_path / "early.png").read_bytes()
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
    """Replaces the event that ends a watch: each wait takes one step, and after the last one it is set."""

    def __init__(self, *steps):
        self._steps, self.pauses = list(steps), []

    def is_set(self):
        return len(self.pauses) > len(self._steps)

    def wait(self, seconds):
        if len(self.pauses) < len(self._steps):
            self._steps[len(self.pauses)]()
        self.pauses.append(seconds)


def test_a_watched_folder_that_comes_back_is_not_judged_twice(tmp_path, red, monkeypatch):
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


def test_a_large_folder_is_scanned_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.files.pictures_below", lambda folder: time.sleep(0.1) or iter(()))
    stop = Steps(lambda: None)
    assert list(Folder(tmp_path, watch=True).frames(stop)) == []
    assert all(pause >= 1.0 for pause in stop.pauses)

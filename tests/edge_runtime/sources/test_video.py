"""Video files as people have them: whole ones end without a failure, cut ones with one."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from helpers.videos import write_video
from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.sources import Frame, open_source
from edge_runtime.sources.video import Video

FFMPEG = shutil.which("ffmpeg")
PICTURE = ("-f", "lavfi", "-i", "testsrc=duration=4:size=64x48:rate=30")
SOUND = ("-f", "lavfi", "-i", "sine=duration=9")


@pytest.fixture
def ffmpeg(tmp_path):
    """Writes a video with FFmpeg's arguments."""
    if FFMPEG is None:
        pytest.skip("needs ffmpeg")

    def write(name, *arguments):
        path = tmp_path / name
        subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments), str(path)], check=True)
        return path

    return write


def read(path):
    """Return the frames of a video and its failures."""
    items = list(Video(path).frames(threading.Event()))
    return [item for item in items if isinstance(item, Frame)], [item for item in items if not isinstance(item, Frame)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "video", "sound"),
    [
        *((suffix, "libx264", "aac") for suffix in ("mp4", "mkv", "ts")),
        ("webm", "libvpx", "libopus"),
        ("avi", "mpeg4", "mp3"),
        ("flv", "flv1", "mp3"),
        ("wmv", "wmv2", "wmav2"),
        ("mpg", "mpeg2video", "mp2"),
    ],
)
def test_sound_may_last_longer(ffmpeg, suffix, video, sound):
    rate = 48000 if suffix == "webm" else 44100
    frames, failures = read(ffmpeg(f"a.{suffix}", *PICTURE, *SOUND, "-c:v", video, "-c:a", sound, "-ar", rate))
    assert (len(frames), failures) == (120, [])


@pytest.mark.slow
def test_edited_and_live_recordings_are_whole(ffmpeg, tmp_path):
    whole = ffmpeg("whole.mp4", *PICTURE, "-c:v", "libx264", "-g", 240)
    frames, failures = read(ffmpeg("trimmed.mp4", "-ss", 2.5, "-i", whole, "-t", 1, "-c", "copy"))
    assert 0 < len(frames) < 60
    assert not failures
    with (tmp_path / "piped.mkv").open("wb") as file:
        subprocess.run(
            [FFMPEG, "-v", "error", "-i", whole, "-c", "copy", "-f", "matroska", "-"], check=True, stdout=file
        )
    frames, failures = read(tmp_path / "piped.mkv")
    assert (len(frames), failures) == (120, [])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4"])
def test_a_changing_rate_is_whole_and_has_its_times(ffmpeg, suffix):
    codec = "libvpx" if suffix == "webm" else "libx264"
    select = ("-vf", "select='lt(t,1)+not(mod(n,10))'", "-fps_mode", "vfr")
    frames, failures = read(ffmpeg(f"a.{suffix}", *PICTURE, *select, "-c:v", codec))
    assert not failures
    assert frames[-1].position_s == pytest.approx(3.667, abs=0.01)
    assert len(frames) == 39


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "wmv", "mov", "flv", "ts"])
def test_a_cut_file_breaks_off(ffmpeg, suffix):
    codec = {"webm": "libvpx", "wmv": "wmv2", "flv": "flv1"}.get(suffix, "libx264")
    path = ffmpeg(f"a.{suffix}", *PICTURE, "-c:v", codec, "-movflags", "faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 + 1])
    frames, failures = read(path)
    assert 0 < len(frames) < 120
    assert failures[0].failed


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_own_videos_are_whole_or_cut(tmp_path, red, suffix):
    codec = "MJPG" if suffix == "avi" else "mp4v"
    path = write_video(tmp_path / f"a.{suffix}", [red] * 20, codec=codec)
    frames, failures = read(path)
    assert [frame.position_s for frame in frames] == pytest.approx([number / 25 for number in range(20)], abs=0.002)
    assert not failures
    if suffix != "mp4":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        assert read(path)[1][0].failed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "turn", "size"), [("2/1", 0, (128, 48)), ("1/2", 0, (64, 96)), ("2/1", 90, (48, 128))]
)
def test_pixels_become_square(ffmpeg, ratio, turn, size):
    flat = ffmpeg("flat.mp4", *PICTURE, "-vf", f"setsar={ratio}", "-c:v", "libx264")
    path = ffmpeg("sar.mp4", "-i", flat, "-c", "copy", "-metadata:s:v", f"rotate={turn}") if turn else flat
    assert read(path)[0][0].load().size == size


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libx264-same-size"])
def test_a_change_of_size_ends_with_a_failure(ffmpeg, tmp_path, codec):
    codec, _, same = codec.partition("-")
    parts = [
        ffmpeg(f"{size}.ts", *PICTURE, "-t", 1, "-vf", f"scale={size}", "-bf", 0, "-c:v", codec, *more)
        for size, more in (("128:64", ()), ("128:64" if same else "64:128", ("-g", 3)))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, failures = read(path)
    assert len(frames) == (60 if same else 30)
    assert len(failures) == (0 if same else 1)


@pytest.mark.slow
def test_covers_are_never_videos(ffmpeg, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "cover.jpg")
    cover = ("-i", tmp_path / "cover.jpg", "-map", 0, "-map", 1, "-disposition:v", "attached_pic")
    for name in ("a.m4a", "b.mp4", "c.mp3", "d.flac"):
        with pytest.raises(SourceError, match="sound"):
            open_source(str(ffmpeg(name, *SOUND, *cover, "-c:v", "mjpeg")))


@pytest.mark.slow
def test_video_with_sound_is_a_video(ffmpeg):
    ogg = ffmpeg("a.ogv", *PICTURE, *SOUND, "-c:v", "libtheora", "-c:a", "libvorbis", "-t", 1)
    assert len(list(open_source(str(ogg)).frames(threading.Event()))) == 30


def test_jpegs_in_a_row_are_a_video(tmp_path, red):
    red.save(tmp_path / "a.jpg")
    (tmp_path / "a.mjpeg").write_bytes((tmp_path / "a.jpg").read_bytes() * 3)
    for name in ("a.mjpeg", "*.mjpeg"):
        assert len(list(open_source(str(tmp_path / name)).frames(threading.Event()))) == 3


@pytest.mark.parametrize(
    ("form", "name"), [("JPEG2000", "a.mp4"), ("TGA", "a"), ("WEBP", "b"), ("PPM", "c"), ("AVIF", "d")]
)
def test_stills_are_never_videos(tmp_path, form, name):
    Image.new("RGB", (64, 48), "red").save(tmp_path / name, form)
    source = open_source(str(tmp_path / name))
    assert source.still
    assert [Path(frame.source).name for frame in source.frames(threading.Event())] == [name]

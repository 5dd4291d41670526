import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.cli import parse_size
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.sources.opencv import cv2


@pytest.fixture
def detect(bundle_path, tmp_path):
    """Runs edge-detect with the tiny bundle in an empty folder."""

    def run(*arguments, model=bundle_path, **options):
        command = [sys.executable, "-m", "edge_runtime.cli", *map(str, arguments)]
        environment = {**os.environ, **({"DEEPFAKE_EDGE_MODEL": str(model)} if model else {})}
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(command, check=False, **options)

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_judged_and_told_in_lines_and_json(detect, tmp_path, red, blue):
    (tmp_path / "in").mkdir()
    red.save(tmp_path / "in" / "a.png")
    blue.save(tmp_path / "in" / "b.png")
    done = detect("in", "--jsonl", "out.jsonl", "--csv", "out.csv")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("in/a.png  fake  1.")
    assert second.startswith("in/b.png  real  0.")
    assert "2 frames, 2 faces" in done.stderr
    assert "0 failed" in done.stderr
    assert [line["faces"][0]["verdict"] for line in lines(tmp_path / "out.jsonl")] == ["fake", "real"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_broken_picture_among_others_is_named_and_the_others_are_judged(detect, tmp_path, red):
    red.save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("not a picture")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    (tmp_path / "d.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.jpg")
    Image.new("RGB", (1, 1), (200, 20, 20)).save(tmp_path / "f.png")
    Image.new("L", (20_000, 10)).save(tmp_path / "g.png")
    red.convert("CMYK").save(tmp_path / "h.jpg")
    red.convert("L").save(tmp_path / "i.png")
    Image.new("F", (64, 64)).save(tmp_path / "j.tiff")
    Image.fromarray(np.asarray(red.convert("L"), np.uint16) << 8).save(tmp_path / "k.png")
    red.save(tmp_path / "l.gif", save_all=True, append_images=[red.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    red.crop((0, 0, 64, 40)).save(tmp_path / "m.jpg", exif=exif)
    done = detect(".", "--jsonl", "out.jsonl")
    assert done.returncode == 1
    found = {line["source"]: line for line in lines(tmp_path / "out.jsonl")}
    assert len(found) == 13
    for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg", "j.tiff"):
        assert name in found[name]["error"]
    for name in ("a.jpg", "f.png", "g.png", "h.jpg", "i.png", "k.png", "l.gif", "m.jpg"):
        assert found[name]["error"] is None
    assert (found["m.jpg"]["width"], found["m.jpg"]["height"]) == (40, 64)
    assert "Traceback" not in done.stderr
    assert "5 failed" in done.stderr


def test_nothing_to_look_at_is_an_error(detect):
    done = detect()
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing to look at")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--camera", "77"], "no camera /dev/video77"),
        (["gone.mp4"], "gone.mp4: not found"),
        (["gone.jpg", "gone.png"], "gone.jpg: not found"),
        (["a.png", "--rotate", "lots"], "no size"),
        (["a.png", "--jsonl", "no/such/folder.jsonl"], "can't be written"),
        (["a.png", "--video", "out.gif"], "must end in"),
        (["a.png", "--precision", "fp16"], "holds no fp16"),
        (["a.png", "--device", "GPU"], "no device GPU"),
        (["a.png", "--model", "nowhere"], "no bundle"),
        (["rtsp://"], "no address"),
    ],
)
def test_what_can_not_start_ends_with_2_and_one_line(detect, tmp_path, red, arguments, says):
    if arguments[-1] == "GPU" and Path("/dev/dri/renderD128").exists():
        pytest.skip("a GPU is here")
    red.save(tmp_path / "a.png")
    done = detect(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_bundle_with_a_changed_byte_judges_nothing(detect, tmp_path, bundle_path, red):
    red.save(tmp_path / "a.png")
    weights = shutil.copytree(bundle_path, tmp_path / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    done = detect("a.png", "--jsonl", "out.jsonl", model="changed")
    assert done.returncode == 2
    assert done.stderr == "error: changed: int8/model.bin was changed; export or copy the bundle again\n"
    assert not (tmp_path / "out.jsonl").exists()


def test_cameras_are_listed(detect):
    done = detect("--list-cameras")
    assert done.returncode == 0
    assert "/dev/video" in done.stdout or "no cameras; check the cable" in done.stdout


def test_a_demonstration_model_says_so_in_every_output(detect, demo_path, tmp_path, red):
    red.save(tmp_path / "a.png")
    done = detect("a.png", "--jsonl", "out.jsonl", "--csv", "out.csv", model=demo_path)
    for text in (done.stdout, done.stderr, (tmp_path / "out.jsonl").read_text(), (tmp_path / "out.csv").read_text()):
        assert DEMO_NOTICE in text


def test_json_on_standard_output_is_alone_there(detect, tmp_path, red):
    red.save(tmp_path / "a.png")
    done = detect("a.png", "--jsonl", "-")
    assert json.loads(done.stdout)["source"] == "a.png"
    assert "a.png  fake" in done.stderr


def test_a_reader_that_goes_away_is_no_error(detect, tmp_path, red, bundle_path):
    (tmp_path / "in").mkdir()
    for number in range(50):
        red.save(tmp_path / "in" / f"{number:03}.png")
    command = f"{sys.executable} -m edge_runtime.cli in --jsonl - --model {bundle_path} 2>err | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert json.loads(done.stdout)["frame"] == 0
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_where_standard_output_is_full_detection_goes_on(detect, tmp_path, red):
    (tmp_path / "in").mkdir()
    for number in range(3):
        red.save(tmp_path / "in" / f"{number}.png")
    with Path("/dev/full").open("w") as full:
        done = detect("in", "--jsonl", "out.jsonl", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert len(lines(tmp_path / "out.jsonl")) == 3
    told, summary = done.stderr.splitlines()
    assert told.startswith("note: <stdout>: can't be written (No space left on device)")
    assert "3 results could not be written" in summary


def test_pictures_come_through_standard_input(detect, tmp_path, red):
    red.save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("rb") as stdin:
        done = detect("-", "--faces", "off", "--jsonl", "out.jsonl", stdin=stdin)
    assert done.returncode == 0
    assert lines(tmp_path / "out.jsonl")[0]["source"] == "-"


def video(path, picture, frames=10):
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, picture.size)
    for _ in range(frames):
        writer.write(np.asarray(picture)[:, :, ::-1])
    writer.release()


def test_a_video_is_judged_and_drawn_into_another(detect, tmp_path, red):
    video(tmp_path / "in.avi", red)
    jsonl = ("--jsonl", "out.jsonl")
    done = detect("in.avi", "--faces", "off", *jsonl, "--video", "seen.mp4", "--snapshots", "kept", "--blur-snapshots")
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "out.jsonl")
    assert [line["frame"] for line in found] == list(range(10))
    assert {line["faces"][0]["track"] for line in found} == {1}
    assert cv2.VideoCapture(str(tmp_path / "seen.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_video_is_refused_where_the_bundle_can_not_find_faces_in_it(detect, tmp_path, red):
    video(tmp_path / "in.avi", red)
    done = detect("in.avi", "--jsonl", "out.jsonl")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("give --faces off, which takes the whole picture for the face")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_video_that_breaks_off_gives_what_there_is(detect, tmp_path, red):
    video(tmp_path / "in.avi", red, 40)
    whole = (tmp_path / "in.avi").read_bytes()
    (tmp_path / "in.avi").write_bytes(whole[: len(whole) * 2 // 3])
    done = detect("in.avi", "--faces", "off", "--jsonl", "out.jsonl")
    assert done.returncode == 1
    assert "breaks off after" in done.stdout
    assert "Traceback" not in done.stderr
    assert 10 < len(lines(tmp_path / "out.jsonl")) < 42


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_watch_cleanly(bundle_path, tmp_path, red, number):
    red.save(tmp_path / "a.png")
    arguments = [".", "--watch", "--jsonl", "out.jsonl", "--model", str(bundle_path)]
    command = [sys.executable, "-m", "edge_runtime.cli", *arguments]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out = tmp_path / "out.jsonl"
    until(lambda: out.exists() and out.read_text().count("\n") == 1)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0
    assert "1 frames" in errors
    assert len(lines(out)) == 1


def test_on_a_terminal_a_video_is_shown_in_a_live_view(bundle_path, tmp_path, red):
    video(tmp_path / "in.avi", red, 60)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_runtime.cli", "in.avi", "--faces", "off", "--model", str(bundle_path)]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass
    assert child.wait(30) == 0
    assert b"redness 1.4.0, int8 on CPU" in shown
    assert b"60 frames" in shown


def test_a_picture_is_judged_without_importing_what_is_not_needed(bundle_path, tmp_path, red):
    red.save(tmp_path / "a.png")
    code = (
        "import sys; sys.argv = ['edge-detect', 'a.png']\n"
        "import atexit; atexit.register(lambda: print('\\n'.join(name for name in sys.modules if sys.modules[name])))\n"
        "from edge_runtime.cli import main; main()"
    )
    environment = {**os.environ, "DEEPFAKE_EDGE_MODEL": str(bundle_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines())
    libraries = {"torch", "cv2", "fastapi", "matplotlib", "sklearn", "rich.live", "openvino_telemetry", "http.client"}
    ours = {"faces", "drawing", "sources.video", "sources.live", "sinks.video", "sinks.live", "sinks.lines", "web"}
    assert not loaded & (libraries | {f"edge_runtime.{name}" for name in ours})
    assert "edge_runtime.inference.classifier" in loaded


@pytest.mark.parametrize(("text", "size"), [("500", 500), ("20M", 20 << 20), ("2GB", 2 << 30), (" 3k ", 3072)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["1.5G", "0", "-1", "", "M"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="no size"):
        parse_size(text)


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()

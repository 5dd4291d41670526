"""The command edge-detect: in this process where that shows the same, else as a real one."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.videos import write_video
from helpers.waiting import until
from PIL import Image

import edge_runtime
from edge_runtime.cli import main, parse_size
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.sources.opencv import cv2


@pytest.fixture
def detect(bundle_path, tmp_path, monkeypatch, capfd):
    """Runs edge-detect in this process, with the tiny bundle in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=bundle_path):
        monkeypatch.setenv("DEEPFAKE_EDGE_MODEL", str(model))
        monkeypatch.setattr(sys, "argv", ["edge-detect", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=out, stderr=err)

    return run


@pytest.fixture
def spawn(bundle_path, tmp_path):
    """Starts edge-detect as a process of its own."""

    def start(*arguments, **options):
        command = [sys.executable, "-m", "edge_runtime.cli", *map(str, arguments)]
        environment = {**os.environ, "DEEPFAKE_EDGE_MODEL": str(bundle_path), "TERM": "xterm"}
        options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, text=True, **options)

    return start


def lines(path, closing=False):
    """Return the JSON lines of frames, or those that close a source."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if (line["state"] == "summary") is closing]


@pytest.fixture
def _many(tmp_path, red):
    """Thirty pictures in a folder `in`."""
    (tmp_path / "in").mkdir()
    for number in range(30):
        red.save(tmp_path / "in" / f"{number}.png")


def test_a_folder_is_judged(detect, tmp_path, red, blue):
    (tmp_path / "in").mkdir()
    red.save(tmp_path / "in" / "a.png")
    blue.save(tmp_path / "in" / "b.png")
    done = detect("in", "--jsonl", "out.jsonl", "--csv", "out.csv")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("in/a.png  fake (known traces)  1.")
    assert second.startswith("in/b.png  real (no known traces)  0.")
    assert "2 frames, 2 faces" in done.stderr
    assert [line["faces"][0]["verdict"] for line in lines(tmp_path / "out.jsonl")] == ["fake", "real"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_broken_pictures_are_named_and_the_rest_judged(detect, tmp_path, red):
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
    broken = {name for name, line in found.items() if line["error"] is not None}
    assert broken == {"b.jpg", "c.jpg", "d.jpg", "e.jpg", "j.tiff"}
    assert set(found) - broken == {"a.jpg", "f.png", "g.png", "h.jpg", "i.png", "k.png", "l.gif", "m.jpg"}
    assert all(name in found[name]["error"] for name in broken)
    assert (found["m.jpg"]["width"], found["m.jpg"]["height"]) == (40, 64)
    assert "5 failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no input"),
        (["--camera", "77"], "no camera /dev/video77"),
        (["gone.mp4"], "gone.mp4: not found"),
        (["gone.jpg", "gone.png"], "gone.jpg: not found"),
        (["a.png", "--jsonl", "-", "--rotate", "lots"], "not a size"),
        (["a.png", "--rotate", "20M"], "--rotate needs --jsonl, --csv or --video"),
        (["a.png", "--rotate", "20M", "--snapshots", "kept"], "--rotate needs --jsonl, --csv or --video"),
        (["a.png", "--blur-snapshots"], "--blur-snapshots needs --snapshots"),
        (["a.png", "--snapshot-days", "7"], "--snapshot-days needs --snapshots"),
        (["a.png", "--snapshot-space", "500M"], "--snapshot-space needs --snapshots"),
        (["a.png", "--review-key", "age1x"], "--review-key needs --review"),
        (["a.png", "--review-purpose", "thresholds"], "--review-purpose needs --review"),
        (["a.png", "--review-unencrypted"], "--review-unencrypted needs --review"),
        (["a.png", "--review-days", "14"], "--review-days needs --review"),
        (["a.png", "--review-per-hour", "12"], "--review-per-hour needs --review"),
        (["a.png", "--review-per-day", "60"], "--review-per-day needs --review"),
        (["a.png", "--review-sample", "0.02"], "--review-sample needs --review"),
        (["a.png", "--disagreements", "d.jsonl"], "--disagreements needs --shadow, the bundle of a second detector"),
        (["a.png", "--jsonl", "no/such/folder.jsonl"], "can't be written"),
        (["a.png", "--video", "out.gif"], "must end in"),
        (["a.png", "--video", "no/out.mp4"], "not a folder"),
        (["a.png", "--precision", "fp16"], "fp16"),
        (["a.png", "--device", "GPU"], "GPU"),
        (["a.png", "--model", "nowhere"], "nowhere"),
        (["rtsp://"], "not an address"),
    ],
)
def test_unusable_arguments_end_with_2_and_one_line(detect, tmp_path, red, arguments, says):
    if arguments[-1:] == ["GPU"] and Path("/dev/dri/renderD128").exists():
        pytest.skip("a GPU is here")
    red.save(tmp_path / "a.png")
    done = detect(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_changed_bundle_judges_nothing(detect, tmp_path, bundle_path, red):
    red.save(tmp_path / "a.png")
    weights = shutil.copytree(bundle_path, tmp_path / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    done = detect("a.png", "--jsonl", "out.jsonl", model="changed")
    assert done.returncode == 2
    assert "changed: int8/model.bin" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


SHIPPED = "detector: faces, shipped with deepfake-edge 0."


def test_a_shipped_detector_needs_no_option(detect, bundle_path, tmp_path, monkeypatch, red):
    monkeypatch.setattr("edge_runtime.model.bundle.SHIPPED", tmp_path / "detectors")
    shutil.copytree(bundle_path, tmp_path / "detectors/faces")
    red.save(tmp_path / "a.png")
    done = detect("a.png", model="")
    assert done.stdout.startswith("a.png  fake")
    assert f"\n{SHIPPED}" in done.stderr
    assert "no camera /dev/video77" in detect("--camera", "77", model="").stderr


@pytest.mark.slow
def test_the_page_finds_a_shipped_detector(bundle_path, tmp_path):
    package = Path(edge_runtime.__file__).parent
    shutil.copytree(package, tmp_path / "edge_runtime", ignore=shutil.ignore_patterns("__pycache__", "detectors"))
    shutil.copytree(bundle_path, tmp_path / "edge_runtime/detectors/faces")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{package.parent}", "DEEPFAKE_EDGE_MODEL": ""}
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "edge_runtime.web.cli", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path / "empty", env=environment
    ) as server:
        assert SHIPPED in server.stdout.readline()
        server.terminate()


def test_cameras_are_listed(detect):
    done = detect("--list-cameras")
    assert done.returncode == 0
    assert "/dev/video" in done.stdout or "no cameras; check the cable" in done.stdout


def test_every_output_names_a_demonstration_model(detect, demo_path, tmp_path, red):
    red.save(tmp_path / "a.png")
    done = detect("a.png", "--jsonl", "out.jsonl", "--csv", "out.csv", model=demo_path)
    for text in (done.stdout, done.stderr, (tmp_path / "out.jsonl").read_text(), (tmp_path / "out.csv").read_text()):
        assert DEMO_NOTICE in text


def test_json_has_standard_output_for_itself(detect, tmp_path, red):
    red.save(tmp_path / "a.png")
    done = detect("a.png", "--jsonl", "-")
    frame, closing = map(json.loads, done.stdout.splitlines())
    assert (frame["source"], closing["state"]) == ("a.png", "summary")
    assert "a.png  fake" in done.stderr


@pytest.mark.usefixtures("_many")
def test_a_reader_that_leaves_is_no_error(tmp_path, bundle_path):
    command = f"{sys.executable} -m edge_runtime.cli in --jsonl - --model {bundle_path} 2>err | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert json.loads(done.stdout)["frame"] == 0
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.usefixtures("_many")
def test_a_full_standard_output_stops_nothing(spawn, tmp_path):
    with Path("/dev/full").open("w") as full:
        child = spawn("in", "--jsonl", "out.jsonl", stdout=full)
        note, _, _, summary, *_ = child.communicate(timeout=60)[1].splitlines()
    assert child.returncode == 1
    assert len(lines(tmp_path / "out.jsonl")) == 30
    assert note.startswith("note: <stdout>: can't be written (No space left on device)")
    assert "30 results could not be written" in summary


def test_standard_input_is_judged(spawn, tmp_path, red):
    red.save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("rb") as stdin:
        child = spawn("-", "--faces", "off", "--jsonl", "out.jsonl", stdin=stdin)
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert lines(tmp_path / "out.jsonl")[0]["source"] == "-"


def test_a_video_is_judged_and_drawn(detect, tmp_path, red):
    write_video(tmp_path / "in.avi", [red] * 10)
    outputs = ("--jsonl", "out.jsonl", "--video", "seen.mp4", "--snapshots", "kept", "--blur-snapshots")
    done = detect("in.avi", "--faces", "off", *outputs)
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "out.jsonl")
    assert [line["frame"] for line in found] == list(range(10))
    assert {line["faces"][0]["track"] for line in found} == {1}
    assert cv2.VideoCapture(str(tmp_path / "seen.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_video_ends_with_its_verdict(detect, tmp_path, red, blue):
    write_video(tmp_path / "in.avi", [blue] * 25 + [red] * 25 + [blue] * 10)
    done = detect("in.avi", "--faces", "off", "--jsonl", "out.jsonl")
    assert "  fake: traces of a generator it knows" in done.stderr
    assert "  fake from 0:01.0 to 0:02.0" in done.stderr
    assert all(len(line) <= 80 for line in done.stderr.splitlines()[:-1])
    (closing,) = lines(tmp_path / "out.jsonl", closing=True)
    assert (closing["source"], closing["verdict"], closing["fake_s"]) == ("in.avi", "fake", [[1.0, 1.96]])
    assert [(face["track"], face["verdict"], face["judged"]) for face in closing["faces"]] == [
        (1, "real", 25),
        (2, "fake", 25),
        (3, "uncertain", 10),
    ]
    assert closing["detector"] in done.stderr


def test_a_folder_ends_with_a_count(detect, tmp_path, red, blue, grey):
    for name, picture in (("in/a/1.png", red), ("in/a/2.png", blue), ("in/b/1.png", grey), ("in/b/2.png", blue)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    (tmp_path / "in/b/3.png").touch()
    done = detect("in", "--by-folder", "--jsonl", "out.jsonl")
    *_, first, second, total, real, fake, counts, _, _ = done.stderr.splitlines()
    assert (first.split(), second.split()) == (["1", "1", "0", "0", "0", "in/a"], ["1", "0", "1", "1", "0", "in/b"])
    assert total == "2 real, 1 fake, 1 uncertain, 1 unreadable"
    assert real == "real: no traces of the generators it knows"
    assert fake == "fake: traces of a generator it knows"
    assert counts.startswith("4 frames, 4 faces")
    (closing,) = lines(tmp_path / "out.jsonl", closing=True)
    assert (closing["source"], closing["real"], closing["unreadable"]) == ("in", 2, 1)


def test_inputs_are_never_overwritten(detect, tmp_path, red):
    before = write_video(tmp_path / "clip.avi", [red] * 3).read_bytes()
    for output in ("--video", "--jsonl", "--csv"):
        done = detect("clip.avi", "--faces", "off", output, "./clip.avi", "--snapshots", "kept")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "clip.avi").read_bytes() == before
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["vid\udce9o.avi", "2026-01-02T10:15:30.avi", "file:x.avi"])
def test_videos_may_have_any_name(detect, tmp_path, red, name):
    (tmp_path / os.fsdecode(os.fsencode(name))).write_bytes(write_video(tmp_path / "a.avi", [red] * 3).read_bytes())
    outputs = ("--video", f"out{name}", "--jsonl", f"{name}.jsonl", "--snapshots", f"{name}.d")
    done = detect(name, f"*{name[3:]}", "--faces", "off", *outputs)
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / f"{name}.jsonl")) == 6
    shutil.copy(tmp_path / f"out{name}", tmp_path / "seen.avi")
    assert cv2.VideoCapture(str(tmp_path / "seen.avi")).get(cv2.CAP_PROP_FRAME_COUNT) >= 6


def test_a_video_needs_a_face_model(detect, tmp_path, red):
    write_video(tmp_path / "in.avi", [red] * 10)
    done = detect("in.avi", "--jsonl", "out.jsonl")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--faces off" in line
    assert not (tmp_path / "out.jsonl").exists()


def test_a_cut_video_is_judged_as_far_as_it_goes(detect, tmp_path, red):
    whole = write_video(tmp_path / "in.avi", [red] * 40).read_bytes()
    (tmp_path / "in.avi").write_bytes(whole[: len(whole) * 2 // 3])
    done = detect("in.avi", "--faces", "off", "--jsonl", "out.jsonl")
    assert done.returncode == 1
    assert "breaks off" in done.stdout
    assert 10 < len(lines(tmp_path / "out.jsonl")) < 42


ENDING = """
import sys
from edge_runtime.cli import main
from edge_runtime.errors import UsageError
from edge_runtime.sinks.terminal import PlainLines

def fails(sink, judged):
    raise UsageError("the output is gone")

PlainLines.write = fails
sys.argv = ["edge-detect", "in.avi", "--faces", "off"]
main()
"""


@pytest.mark.slow
def test_an_error_while_frames_are_read_ends_with_2(bundle_path, tmp_path, picture_of_colour):
    write_video(tmp_path / "in.avi", [picture_of_colour(200, 30, (640, 480))] * 100)
    environment = {**os.environ, "DEEPFAKE_EDGE_MODEL": str(bundle_path)}
    command = [sys.executable, "-c", ENDING]
    codes = [subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode for _ in range(15)]
    assert set(codes) == {2}


def test_a_signal_ends_a_watch_cleanly(spawn, tmp_path, red):
    red.save(tmp_path / "a.png")
    child = spawn(".", "--watch", "--jsonl", "out.jsonl")
    out = tmp_path / "out.jsonl"
    until(lambda: out.exists() and out.read_text().count("\n") == 1, 30.0)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert len(lines(out)) == 1


@pytest.mark.slow
def test_a_terminal_shows_a_live_view(spawn, tmp_path, red):
    write_video(tmp_path / "in.avi", [red] * 60)
    ours, theirs = pty.openpty()
    child = spawn("in.avi", "--faces", "off", stdout=theirs, stderr=theirs)
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


def test_a_picture_needs_few_imports(bundle_path, tmp_path, red):
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
    ours = {
        "inference.faces",
        "pixels.drawing",
        "sources.video",
        "sources.reconnect",
        "sinks.video",
        "sinks.live",
        "web",
    }
    assert not loaded & (libraries | {f"edge_runtime.{name}" for name in ours | {"sinks.lines", "sinks.snapshots"}})
    assert "edge_runtime.inference.classifier" in loaded


def test_sizes_are_read():
    assert [parse_size(text) for text in ("500", "20M", "2GB", " 3k ")] == [500, 20 << 20, 2 << 30, 3072]
    for text in ("1.5G", "0", "-1", "", "M"):
        with pytest.raises(UsageError, match="not a size"):
            parse_size(text)


def test_faces_are_kept_for_review(detect, tmp_path, red):
    (tmp_path / "in").mkdir()
    red.save(tmp_path / "in" / "a.png")
    asked = ("in", "--review", "kept", "--review-purpose", "thresholds", "--review-sample", "1")
    done = detect(*asked, "--review-unencrypted")
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "kept").glob("face-*-sample-*.png")
    with Image.open(kept) as picture:
        assert json.loads(picture.info["deepfake-edge"])["verdict"] == "fake"
    assert json.loads((tmp_path / "kept/review.json").read_text())["purpose"] == "thresholds"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--review-purpose", "thresholds"], id="no key"),
        pytest.param(["--review-unencrypted"], id="no purpose"),
        pytest.param(["--review-purpose", "thresholds", "--review-key", "age1x"], id="not a key"),
        pytest.param(["--review-purpose", "thresholds", "--review-key", "x", "--review-unencrypted"], id="both"),
    ],
)
def test_without_key_and_purpose_nothing_is_kept(detect, tmp_path, red, options):
    (tmp_path / "in").mkdir()
    red.save(tmp_path / "in" / "a.png")
    done = detect("in", "--review", "kept", "--review-sample", "1", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--review" in done.stderr
    assert not (tmp_path / "kept").exists()

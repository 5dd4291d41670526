"""SIGHUP to a running edge-detect: a new bundle is loaded and switched to between two frames, a bad one is refused."""

import contextlib
import functools
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.golden import add_golden
from helpers.waiting import until

from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.golden import Golden
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.systemd import reloading_on_hangup


@pytest.fixture
def make_version(tmp_path, make_bundle, red):
    """Writes a bundle of this version whose golden answers are off by `error`."""

    def make(version: str, error: float = 0.0) -> Path:
        folder = make_bundle(tmp_path / version, precisions=("fp32",), version=version)
        bundle = Bundle.open(folder)
        logits = Classifier(bundle.model("fp32"), bundle.contract).logits(face_pixels(red, None, bundle.contract))
        answers = {"fp32": {"native": (logits.mean(axis=0, keepdims=True) + error).tolist()}}
        golden = Golden(["golden/0.png"], {"native": "here"}, answers, {"fp32": {"CPU": 0.5, "GPU": 0.5}})
        add_golden(folder, golden, [red])
        return folder

    return make


def link(folder: Path, target: Path) -> None:
    """Let `folder` be a link to `target`, as setup-board switches versions."""
    folder.with_suffix(".new").symlink_to(target)
    folder.with_suffix(".new").replace(folder)


@pytest.fixture
def running(tmp_path, make_version, red):
    """An edge-detect that watches a folder, whose bundle is the link `current`, and the file of its results."""
    link(tmp_path / "current", make_version("1.0.0"))
    (tmp_path / "in").mkdir()
    results = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "edge_runtime.cli", "in", "--watch", "--model", "current", "--jsonl", results]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        feeding = threading.Event()
        thread = threading.Thread(target=feed, args=(tmp_path / "in", red, feeding))
        thread.start()
        try:
            until(lambda: len(versions(results)) > 2, 60)
            yield process, results
        finally:
            feeding.set()
            thread.join()
            process.terminate()
            process.wait()


def feed(folder: Path, picture, ended: threading.Event) -> None:
    for number in range(10_000):
        if ended.wait(0.05):
            return
        picture.save(folder / ".next.png")
        (folder / ".next.png").rename(folder / f"{number:05}.png")


def versions(results: Path) -> list[str]:
    """Return the model's version of each result."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [json.loads(line)["model"] for line in lines if '"ok"' in line]


def test_hangup_switches_between_two_frames(running, tmp_path, make_version) -> None:
    process, results = running
    link(tmp_path / "current", make_version("2.0.0"))
    process.send_signal(signal.SIGHUP)
    until(lambda: versions(results)[-1] == "2.0.0", 30)
    process.terminate()
    assert process.wait(30) == 0
    seen = versions(results)
    assert seen == sorted(seen)
    frames = [json.loads(line)["source"] for line in results.read_text().splitlines() if '"ok"' in line]
    # Every picture is judged once, in order.
    assert [Path(frame).stem for frame in frames] == [f"{number:05}" for number in range(len(frames))]
    said = (tmp_path / "err").read_text()
    assert "now judging with redness 2.0.0, fp32 on CPU" in said
    # The end names the one that judged last.
    assert re.findall("^detector: .*(1.0.0|2.0.0)", said, re.MULTILINE) == ["2.0.0"]


@pytest.mark.parametrize("bad", ["golden", "file", "missing"])
def test_bad_bundle_leaves_the_old_running(running, tmp_path, make_version, bad) -> None:
    process, results = running
    folder = make_version("3.0.0", error=9.0 if bad == "golden" else 0.0)
    if bad == "file":
        (folder / "fp32" / "model.bin").write_bytes(b"damaged")
    link(tmp_path / "current", tmp_path / "nowhere" if bad == "missing" else folder)
    process.send_signal(signal.SIGHUP)
    told = {"golden": "WRONG", "file": "was changed", "missing": "no bundle"}[bad]
    until(lambda: told in (tmp_path / "err").read_text(), 30)
    (line,) = [line for line in (tmp_path / "err").read_text().splitlines() if "refused" in line]
    assert line.startswith("note: the new bundle is refused, the old one stays in use: ")
    count = len(versions(results))
    until(lambda: len(versions(results)) > count + 2, 30)
    assert set(versions(results)) == {"1.0.0"}
    assert process.poll() is None
    # The next one is taken all the same.
    link(tmp_path / "current", make_version("4.0.0"))
    process.send_signal(signal.SIGHUP)
    until(lambda: versions(results)[-1] == "4.0.0", 30)


def test_hangup_reuses_no_track_number(tmp_path, make_version, red) -> None:
    """The source is a camera's snapshot address."""
    link(tmp_path / "current", make_version("1.0.0"))
    (tmp_path / "camera").mkdir()
    red.save(tmp_path / "camera" / "now.jpg", quality=95)
    results = tmp_path / "out.jsonl"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "camera"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as camera:
        threading.Thread(target=camera.serve_forever, daemon=True).start()
        command = [sys.executable, "-m", "edge_runtime.cli", f"http://127.0.0.1:{camera.server_port}/now.jpg"]
        command += ["--model", "current", "--faces", "off", "--jsonl", results]
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: versions(results)[2:], 30)
            link(tmp_path / "current", make_version("2.0.0"))
            process.send_signal(signal.SIGHUP)
            until(lambda: versions(results)[-1] == "2.0.0", 30)
        finally:
            process.terminate()
            process.wait(30)
            camera.shutdown()
    lines = map(json.loads, results.read_text().splitlines())
    assert {(line["model"], face["track"]) for line in lines for face in line["faces"]} == {("1.0.0", 1), ("2.0.0", 2)}


def test_hangups_during_a_reload_are_one_more(monkeypatch) -> None:
    calls, go_on = [], threading.Event()

    def reload() -> None:
        calls.append(time.monotonic())
        go_on.wait(10)

    with reloading_on_hangup(reload):
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(calls) == 1)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
        go_on.set()
        until(lambda: len(calls) == 2)
    assert len(calls) == 2
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_reload_that_fails_leaves_the_next_one_working(caplog) -> None:
    calls = []

    def reload() -> None:
        calls.append(time.monotonic())
        raise MemoryError("1.2 GB")

    with reloading_on_hangup(reload):
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            until(lambda count=count: len(calls) == count)
            until(lambda count=count: len(caplog.records) == count)
    (first, _) = caplog.records
    assert "MemoryError: 1.2 GB" in first.message
    assert first.exc_info is None


def test_a_run_needs_no_standard_input(tmp_path, make_version, red) -> None:
    (tmp_path / "in").mkdir()
    red.save(tmp_path / "in" / "red.png")
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "edge_runtime.cli", "in", "--watch"]
    results = tmp_path / "out.jsonl"
    command += ["--model", make_version("1.0.0"), "--jsonl", results]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: versions(results) or process.poll() is not None, 30)
        process.terminate()
        assert process.wait(30) == 0, process.stdout.read()
    finally:
        process.kill()


def test_hangup_of_a_terminal_ends_the_run(tmp_path, make_version) -> None:
    (tmp_path / "in").mkdir()
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edge_runtime.cli", "in", "--watch", "--model", make_version("1.0.0")]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(theirs)
    try:
        time.sleep(3)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP
    finally:
        process.kill()
        with contextlib.suppress(OSError):
            os.close(ours)

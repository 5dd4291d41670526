"""SIGHUP to a running edge-serve: a new bundle is loaded and switched to between two requests, a bad one is refused."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from helpers.golden import add_true_golden
from helpers.videos import write_video
from helpers.waiting import until
from PIL import Image

from board_setup.signatures import sign_bundle
from board_setup.workstation.sign import make_key
from edge_runtime.model.bundle import sha256
from edge_runtime.model.contract import Calibration

pytestmark = pytest.mark.slow


@pytest.fixture
def make_version(tmp_path: Path, make_colour_bundle) -> Callable[..., Path]:
    """Writes a bundle of this version; the golden answers of one that is not `right` belong to another picture."""

    def make(version: str, *, right: bool = True, **changes: object) -> Path:
        folder = make_colour_bundle(tmp_path / version, version=version, **changes)
        add_true_golden(folder)
        if not right:
            path, manifest = folder / "golden" / "golden.json", folder / "model.json"
            before = sha256(path)
            path.write_text(json.dumps({**json.loads(path.read_text()), "logits": {"fp32": {"native": [[9.5, -9.5]]}}}))
            manifest.write_text(manifest.read_text().replace(before, sha256(path)))
        return folder

    return make


def link(folder: Path, target: Path) -> None:
    """Let `folder` be a link to `target`, as setup-board switches versions."""
    folder.with_suffix(".new").symlink_to(target)
    folder.with_suffix(".new").replace(folder)


class Client(threading.Thread):
    """Sends pictures one after the other, and keeps what was answered."""

    def __init__(self, base: str, picture: bytes) -> None:
        super().__init__()
        self.base, self.picture, self.ended = base, picture, threading.Event()
        self.statuses: list[int] = []
        self.answers: list[dict] = []

    def run(self) -> None:
        while not self.ended.wait(0.1):
            query = {"heat": len(self.answers) % 2 == 0}
            answer = httpx2.post(
                f"{self.base}/predict", params=query, files={"image": ("a.jpg", self.picture)}, timeout=60
            )
            self.statuses.append(answer.status_code)
            self.answers.append(answer.json())

    @property
    def versions(self) -> list[str]:
        return [answer["model"] for answer in self.answers]


@pytest.fixture
def running(tmp_path: Path, make_version, face) -> Iterator[tuple[subprocess.Popen, Client]]:
    """A real edge-serve with the bundle at the link `current`, its drift monitor, a camera, and a client."""
    link(tmp_path / "current", make_version("1.0.0"))
    write_video(tmp_path / "door.avi", [Image.open(io.BytesIO(face()))] * 300, fps=2)
    command = [sys.executable, "-m", "edge_runtime.web.cli", "--port", "0", "--model", "current", "--monitor", "seen"]
    command += ["--camera", "door.avi"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        until(lambda: "Ctrl-C ends" in (tmp_path / "out").read_text(), 60)
        client = Client(re.search(r"http://\S+:\d+", (tmp_path / "out").read_text()).group(), face())
        client.start()
        try:
            until(lambda: len(client.answers) > 2, 60)
            yield process, client
        finally:
            client.ended.set()
            client.join()
    finally:
        process.terminate()
        process.wait(30)


def test_hangup_switches_between_two_requests(running, tmp_path, make_version) -> None:
    process, client = running
    link(tmp_path / "current", make_version("2.0.0"))
    process.send_signal(signal.SIGHUP)
    until(lambda: client.versions[-1] == "2.0.0", 60)
    count = len(client.answers)
    until(lambda: len(client.answers) > count + 2, 60)
    assert client.versions == sorted(client.versions)
    assert set(client.statuses) == {200}
    assert {answer["verdict"] for answer in client.answers} == {"fake"}
    assert {bool(answer["faces"][0]["heat"]) for answer in client.answers[-4:]} == {True, False}
    assert httpx2.get(f"{client.base}/model", timeout=20).json()["contract"]["version"] == "2.0.0"
    text = httpx2.get(f"{client.base}/metrics", timeout=20).text
    assert 'deepfake_edge_model_info{architecture="colour",version="2.0.0"} 1' in text
    assert json.loads((tmp_path / "seen" / "status.json").read_text())["model"] == "2.0.0"
    assert client.answers[-1]["drift"]["state"] == "unknown"
    told = (tmp_path / "out").read_text().splitlines()[-1]
    assert told == f"now judging with colour 2.0.0, FP32 on CPU, detector: {tmp_path}/2.0.0, unsigned"


@pytest.mark.parametrize("bad", ["golden", "missing", "unsigned"])
def test_bad_bundle_leaves_the_old_running(running, tmp_path, make_version, bad) -> None:
    process, client = running
    folder = make_version("3.0.0", right=bad != "golden")
    trusted = Path(os.environ["XDG_CONFIG_HOME"], "deepfake-edge", "trusted")
    if bad == "unsigned":
        make_key(str(tmp_path / "lab"), passphrase=False)
        trusted.mkdir(parents=True)
        shutil.copy(tmp_path / "lab.pub", trusted)
    try:
        link(tmp_path / "current", tmp_path / "nowhere" if bad == "missing" else folder)
        process.send_signal(signal.SIGHUP)
        told = {"golden": "WRONG", "missing": "no bundle", "unsigned": "unsigned; this machine"}
        until(lambda: told[bad] in (tmp_path / "err").read_text(), 60)
        (line,) = [line for line in (tmp_path / "err").read_text().splitlines() if "refused" in line]
        assert line.startswith("WARNING: the new bundle is refused, the old one stays in use: ")
        count = len(client.answers)
        until(lambda: len(client.answers) > count + 2, 60)
        assert set(client.versions) == {"1.0.0"}
        assert set(client.statuses) == {200}
        # The next one is taken all the same.
        good = make_version("4.0.0")
        if bad == "unsigned":
            sign_bundle(str(good), str(tmp_path / "lab"))
        link(tmp_path / "current", good)
        process.send_signal(signal.SIGHUP)
        until(lambda: client.versions[-1] == "4.0.0", 60)
    finally:
        shutil.rmtree(trusted.parent, ignore_errors=True)


def test_the_live_page_switches_between_two_frames(running, tmp_path, make_version) -> None:
    """The video lasts longer than the test, so it is not opened again in between."""
    process, client = running
    unsure = {"fp32": Calibration(low=1e-6, high=1 - 1e-6, fitted=True)}
    with httpx2.stream("GET", f"{client.base}/live/events", params={"pictures": True}, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        statuses = (json.loads(line.removeprefix("data: ")) for line in lines)
        verdicts = (face["verdict"] for status in statuses for face in status["faces"])
        assert next(verdict for verdict in verdicts if verdict != "uncertain") == "fake"
        link(tmp_path / "current", make_version("2.0.0", calibrations=unsure))
        process.send_signal(signal.SIGHUP)
        assert next(verdict for verdict in verdicts if verdict != "fake") == "uncertain"
        assert [next(verdicts) for _ in range(5)] == ["uncertain"] * 5
    assert "live page" not in (tmp_path / "err").read_text()

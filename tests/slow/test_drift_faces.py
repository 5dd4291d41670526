"""Drift on real faces: a bundle of a shared checkpoint, 30 days of its own source, and six changes."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studies.drift import CHANGES, false_alarms, judge, noticed, states
from edge_runtime.detector import Detector
from edge_runtime.judging.results import FrameResult
from edge_runtime.monitoring.alarm import DriftState

EXPORT = "from export.cli import main; main()"


@pytest.fixture(scope="module")
def halves(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test faces of the checkpoint's source, one half for the reference, the other for the camera."""
    folder = tmp_path_factory.mktemp("halves")
    for kind in ("real", "fake"):
        for number, path in enumerate(sorted((shared / "faces" / "stylegan" / "test" / kind).iterdir())):
            place = folder / ("reference" if number % 2 == 0 else "camera") / kind
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return folder


@pytest.fixture(scope="module")
def detector(shared: Path, halves: Path) -> Detector:
    checkpoint = shared / "checkpoints" / "efficientnet_lite0_faces.pth"
    command = [sys.executable, "-c", EXPORT, str(checkpoint), "--arch", "efficientnet_lite0", "--input", "native"]
    command += ["--labels", "real,fake", "--calibration", str(halves / "reference"), "--only", "fp32,int8"]
    subprocess.run([*command, "--out", str(halves / "detector")], check=True)
    return Detector(halves / "detector", faces="off")


@pytest.fixture(scope="module")
def usual(detector: Detector, halves: Path) -> list[FrameResult]:
    return judge(detector, halves / "camera", 1000)


def test_thirty_days_of_the_same_source(detector: Detector, usual: list[FrameResult], tmp_path: Path) -> None:
    for run in range(3):
        rng = random.Random(run)
        drawn = [result for _ in range(30) for result in rng.sample(usual, 200)]
        found, _ = states(detector.bundle, drawn, tmp_path / str(run))
        assert false_alarms(found) <= 1
        assert DriftState.DRIFT not in found


@pytest.mark.parametrize(
    "change", ["second_source", "multi/fake/sdxl", "multi/fake/sd3", "multi/fake/progan", *CHANGES]
)
def test_a_change_is_found_within_200_faces(
    detector: Detector, usual: list[FrameResult], shared: Path, halves: Path, tmp_path: Path, change: str
) -> None:
    if change in CHANGES:
        results = judge(detector, halves / "camera", 300, CHANGES[change])
    else:
        results = judge(detector, shared / "faces" / change, 300)
    rng = random.Random(0)
    drawn = [*rng.sample(usual, 300), *rng.sample(results, min(200, len(results)))]
    found, checks = states(detector.bundle, drawn, tmp_path)
    after = noticed(found[300:], DriftState.WATCH, DriftState.DRIFT)
    assert after is not None, checks
    assert after <= 200

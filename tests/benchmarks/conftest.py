import json
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image

from benchmarks.measure.cases import Case, Engine, Mode
from benchmarks.measure.circumstances import Circumstances
from benchmarks.results.schema import Accuracy, BundleFacts, Report, Row
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle, Manifest, sha256
from edge_runtime.model.contract import Calibration, ModelContract, PixelRecipe
from edge_runtime.model.golden import GOLDEN, Golden

SIZE = 32
"""Pixels a side of the tiny network."""


def tiny_network(seed: int = 0) -> ov.Model:
    """A network that sees how much colour a picture has: one convolution, a mean, two logits."""
    generator = np.random.default_rng(seed)
    given = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="input")
    kernel = ops.constant(generator.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32))
    features = ops.relu(ops.convolution(given, kernel, [2, 2], [1, 1], [1, 1], [1, 1]))
    mean = ops.reduce_mean(features, np.array([2, 3]), keep_dims=False)
    logits = ops.matmul(mean, ops.constant(generator.normal(0, 1, (8, 2)).astype(np.float32)), False, False)
    logits.output(0).set_names({"logits"})
    return ov.Model([logits], [given], "tiny")


def make_bundle(folder: Path, *, architecture: str = "tiny", seed: int = 0) -> Bundle:
    """A bundle of the tiny network in two precisions, with one golden picture."""
    folder.mkdir(parents=True)
    for name, compressed in (("fp32", False), ("fp16", True)):
        (folder / name).mkdir()
        ov.save_model(tiny_network(seed), folder / name / "model.xml", compress_to_fp16=compressed)
    (folder / "golden").mkdir()
    grey = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    grey.save(folder / "golden" / "0.png")
    contract = ModelContract(
        architecture,
        input_size=SIZE,
        pixels=PixelRecipe(resize_to=SIZE),
        calibrations={"fp32": Calibration(), "fp16": Calibration()},
    )
    planes = (128 / 255 - np.asarray(contract.mean)) / np.asarray(contract.scale)
    given = np.broadcast_to(planes.reshape(1, 3, 1, 1), (1, 3, SIZE, SIZE)).astype(np.float32)
    answer = openvino_core().compile_model(tiny_network(seed), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([given])[0]
    logits = {name: {"native": answer.astype(float).tolist()} for name in ("fp32", "fp16")}
    tolerance = {name: {"CPU": 0.01, "GPU": 0.1} for name in ("fp32", "fp16")}
    (folder / GOLDEN).write_text(Golden(["golden/0.png"], {"native": "the workstation"}, logits, tolerance).to_json())
    files = {str(f.relative_to(folder)): sha256(f) for f in folder.rglob("*") if f.is_file()}
    (folder / "model.json").write_text(Manifest(contract, files, name=architecture).to_json())
    return Bundle.open(folder)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """Pictures that any network with colours can tell apart: reddish real ones, bluish fakes."""
    folder, generator = tmp_path_factory.mktemp("faces"), np.random.default_rng(1)
    for name, tint in (("real", (60, 0, 0)), ("fake", (0, 0, 60))):
        (folder / name).mkdir()
        for number in range(12):
            pixels = generator.integers(0, 190, (48, 48, 3)) + np.asarray(tint)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def circumstances() -> Circumstances:
    return Circumstances.here("edge-benchmark --data faces --out report")


@pytest.fixture(scope="session")
def make_report(circumstances):
    """Return a function that makes up a report: {case key part: rounds} for one bundle, seeded noise."""

    def make(
        *,
        rounds: int = 5,
        spread: float = 0.01,
        seed: int = 0,
        slower: float = 1.0,
        fps: dict[str, float] | None = None,
        isas: tuple[str, ...] = ("native",),
        auc: dict[str, float] | None = None,
        bundles: tuple[str, ...] = ("resnet50",),
        **changes,
    ) -> Report:
        generator = np.random.default_rng(seed)
        speeds = fps or {"fp32": 40.0, "fp16": 40.0, "int8": 100.0}
        rows = [
            made_up_row(Case(name, engine, precision, "CPU", mode, isa), speed / slower, rounds, spread, generator)
            for isa in isas
            for name in bundles
            for engine, precision, speed in [
                *((Engine.RUNTIME, precision, speed) for precision, speed in speeds.items()),
                (Engine.ARTICLE, "fp32", 12.0 * slower),
            ]
            for mode in (Mode if engine is Engine.RUNTIME else [Mode.LATENCY])
        ]
        found = auc or {"fp32": 0.95, "fp16": 0.95, "int8": 0.948}
        accuracies = [
            made_up_accuracy(name, p, isa, v, found["fp32"])
            for isa in isas
            for name in bundles
            for p, v in found.items()
        ]
        facts = tuple(
            BundleFacts(n, n, "1.0.0", False, "ab" * 32, {"fp32": 94.0, "fp16": 47.0, "int8": 24.0}) for n in bundles
        )
        values = {
            "circumstances": circumstances,
            "bundles": facts,
            "data": {"faces": 200, "shown": 32, "fingerprint": "cd" * 32},
            "settings": {"rounds": rounds, "seconds": 2.0, "frames": 1_000_000, "warmup_frames": 5},
            "rows": tuple(rows),
            "accuracies": tuple(accuracies),
        }
        return Report(**{**values, **changes})

    return make


def made_up_row(case: Case, fps: float, rounds: int, spread: float, generator: np.random.Generator) -> Row:
    def noisy(value: float) -> float:
        return float(value * np.exp(generator.normal(0, spread)))

    figures = [
        {
            "model_fps": noisy(1.05 * fps),
            "end_to_end_fps": noisy(fps),
            **{
                f"end_to_end_{name}_ms": noisy(factor * 1000 / fps)
                for name, factor in (("p50", 1.0), ("p95", 1.2), ("p99", 1.5), ("max", 2.0))
            },
            "first_verdict_s": noisy(0.6),
            "rss_peak_mb": noisy(200.0),
            "cpu_use": noisy(1.9),
            "foreign_load": 0.01,
            "pace": noisy(100.0),
        }
        for _ in range(rounds)
    ]
    latencies = tuple(float(v) for v in 1000 / fps * np.linspace(0.95, 1.6, 101) ** 2)
    facts = {"threads": 2, "streams": 2, "kernels": {"Convolution, jit_avx512_I8": 53}}
    return Row(case, tuple(figures), facts, latencies, 0.01, 0)


def made_up_accuracy(name: str, precision: str, isa: str, auc: float, fp32: float) -> Accuracy:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": min(1.0, value + 0.01)}

    names = ("auc", "accuracy", "f1", "tpr_at_1_fpr", "tpr_at_5_fpr", "eer", "ece")
    change = (
        None if precision == "fp32" else {"value": auc - fp32, "low": auc - fp32 - 0.002, "high": auc - fp32 + 0.002}
    )
    changed, difference = (None, None) if precision == "fp32" else (3, 0.02)
    figures = {key: figure(auc) for key in names}
    return Accuracy(
        name, precision, "CPU", isa, 200, figures, change, changed, difference, "right (logits within 0.001)"
    )


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())

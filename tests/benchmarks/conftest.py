from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.engines.common import picture_pixels
from benchmarks.measure.cases import Case, EngineKind, Mode
from benchmarks.measure.circumstances import Circumstances
from benchmarks.results.schema import Accuracy, BundleFacts, DataFacts, GoldenState, Report, Row, Settings
from benchmarks.studies.small import small_contract, write_small_bundle
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from edge_runtime.model.golden import GOLDEN, Golden
from export.bundle.files import write_manifest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    """A bundle of the small network in two precisions, with one golden picture."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    contract = small_contract(architecture="tiny", calibrations={"fp32": Calibration(), "fp16": Calibration()})
    opened = Bundle.open(write_small_bundle(folder, contract, ("fp32", "fp16")))
    (folder / "golden").mkdir()
    Image.new("RGB", (contract.input_size,) * 2, (128, 128, 128)).save(folder / "golden" / "0.png")
    logits = Classifier(opened.model("fp32"), contract).logits(picture_pixels(folder / "golden" / "0.png", contract))
    golden = Golden(
        pictures=["golden/0.png"],
        isas={"native": "the workstation"},
        logits={name: {"native": logits.astype(float).tolist()} for name in ("fp32", "fp16")},
        tolerance={name: {"CPU": 0.01, "GPU": 0.1} for name in ("fp32", "fp16")},
    )
    (folder / GOLDEN).write_text(golden.to_json())
    write_manifest(folder, contract, "tiny", {})
    return Bundle.open(folder)


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
    """Return a function that makes up a report with seeded noise."""

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
        cases = [
            Case(name, precision, mode, engine=engine, isa=isa)
            for isa in isas
            for name in bundles
            for engine, precision in [*((EngineKind.RUNTIME, p) for p in speeds), (EngineKind.ARTICLE, "fp32")]
            for mode in (Mode if engine is EngineKind.RUNTIME else [Mode.LATENCY])
        ]
        # The article's loop is never slowed.
        rates = [12.0 if c.engine is EngineKind.ARTICLE else speeds[c.precision] / slower for c in cases]
        rows = [made_up_row(case, fps, generator, spread, rounds) for case, fps in zip(cases, rates, strict=True)]
        found = auc or {"fp32": 0.95, "fp16": 0.95, "int8": 0.948}
        accuracies = [
            made_up_accuracy(n, p, i, v, found["fp32"]) for i in isas for n in bundles for p, v in found.items()
        ]
        sizes = {"fp32": 94.0, "fp16": 47.0, "int8": 24.0}
        values = {
            "circumstances": circumstances,
            "bundles": tuple(BundleFacts(n, n, "1.0.0", demo=False, sha256="ab" * 32, sizes_mb=sizes) for n in bundles),
            "data": DataFacts(faces=200, shown=32, fingerprint="cd" * 32),
            "settings": Settings(rounds=rounds),
            "rows": tuple(rows),
            "accuracies": tuple(accuracies),
        }
        return Report(**{**values, **changes})

    return make


def made_up_row(case: Case, fps: float, generator: np.random.Generator, spread: float, rounds: int) -> Row:
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
        bundle=name,
        precision=precision,
        device="CPU",
        isa=isa,
        pictures=200,
        figures=figures,
        auc_change=change,
        changed=changed,
        difference=difference,
        golden=GoldenState.RIGHT,
        golden_difference=0.001,
        golden_tolerance=0.01,
    )

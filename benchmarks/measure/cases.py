"""What is measured: cases (which engine runs which network where and how), and what one round of a case gave."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Engine(str, Enum):
    """Who computes: this project's runtime, or a row to compare with."""

    RUNTIME = "runtime"
    ARTICLE = "article"
    PYTORCH = "pytorch"
    ONNXRUNTIME = "onnxruntime"
    CEILING = "benchmark_app"


ENGINE_NAMES: Mapping[Engine, str] = {
    Engine.RUNTIME: "this project",
    Engine.ARTICLE: "the article's loop",
    Engine.PYTORCH: "PyTorch, channels last",
    Engine.ONNXRUNTIME: "ONNX Runtime",
    Engine.CEILING: "benchmark_app (ceiling)",
}


class Mode(str, Enum):
    """One frame after the other, or as many at once as pays."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


ISA_NAMES: Mapping[str, str] = {
    "native": "native",
    "avx2": "workstation, capped to AVX2",
    "sse42": "workstation, capped to SSE4.2",
}


@dataclass(frozen=True)
class Case:
    """One row of the report.

    Attributes:
        bundle: the bundle's name in this report.
        engine: who computes.
        precision: fp32, fp16 or int8.
        device: an OpenVINO device, CPU or GPU.
        mode: latency or throughput.
        isa: a key of `board_setup.isa.CAPS`.
        streams: inferences side by side; 0 leaves it to the engine.
    """

    bundle: str
    engine: Engine
    precision: str
    device: str
    mode: Mode
    isa: str
    streams: int = 0

    @property
    def key(self) -> str:
        """Return what two reports know the same case by."""
        parts = (self.bundle, self.engine.value, self.precision, self.device, self.mode.value, self.isa)
        return "/".join(parts) + (f"/{self.streams}" if self.streams else "")

    def __str__(self) -> str:
        streams = f", {self.streams} streams" if self.streams else ""
        cap = "" if self.isa == "native" else f", {ISA_NAMES[self.isa]}"
        who = "" if self.engine is Engine.RUNTIME else f" by {ENGINE_NAMES[self.engine]}"
        return f"{self.bundle} {self.precision.upper()} on {self.device}{who}, {self.mode.value}{streams}{cap}"


@dataclass(frozen=True)
class Limits:
    """How long one timing takes: until `seconds` have passed or `frames` were done; the warm-up is not timed.

    `delay` slows every frame of the runtime by this share of its own time, so that it can be seen whether a comparison
    of reports finds it.
    """

    seconds: float = 2.0
    frames: int = 1_000_000
    warmup_frames: int = 5
    delay: float = 0.0


@dataclass(frozen=True)
class Job:
    """What a child process is asked: a case, where its files lie, and how long to measure.

    Attributes:
        case: what to measure.
        bundle: the bundle's folder.
        checkpoint: the PyTorch checkpoint, for the engines that need one.
        pictures: paths of the pictures that all engines are shown.
        limits: how long.
        started: `time.monotonic()` when the process was started.
        outputs: whether the logits of the pictures are wanted, to be held against others.
        sustained_s: seconds of a sustained run; 0 for a usual round.
        series: the file that a sustained run writes a line a second to.
    """

    case: Case
    bundle: str
    checkpoint: str | None
    pictures: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    started: float = 0.0
    outputs: bool = True
    sustained_s: float = 0.0
    series: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Job":
        """Read what `to_dict` wrote."""
        case = dict(values["case"])
        case["engine"], case["mode"] = Engine(case["engine"]), Mode(case["mode"])
        changed = {
            "case": Case(**case),
            "pictures": tuple(values["pictures"]),
            "limits": Limits(**values["limits"]),
        }
        return cls(**{**values, **changed})


MAX_AUC_LOSS = 0.01
"""How much AUC may be lost against FP32 in what is recommended, where the user asks for nothing else."""

FIGURES: Mapping[str, str] = {
    "model_fps": "frames/s",
    "end_to_end_fps": "frames/s",
    "model_p50_ms": "ms",
    "model_p95_ms": "ms",
    "model_p99_ms": "ms",
    "model_max_ms": "ms",
    "end_to_end_p50_ms": "ms",
    "end_to_end_p95_ms": "ms",
    "end_to_end_p99_ms": "ms",
    "end_to_end_max_ms": "ms",
    "first_verdict_s": "s",
    "rss_peak_mb": "MB",
    "cpu_use": "cores",
    "temperature_c": "°C",
    "clock_mhz": "MHz",
    "throttled": "times",
    "energy_j": "J a frame",
    "foreign_load": "share of all cores",
    "pace": "GFLOP/s",
}
"""What one round may give, and in which unit. A figure that can't be read here is missing, never 0."""

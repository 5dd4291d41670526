"""What is measured: a case is one engine with one network in one place, a round is one measurement of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

ONNX_FILE = "onnx/model.onnx"
MAX_AUC_LOSS = 0.01
"""Default for the AUC that a recommended network may lose against FP32."""

UNLIMITED_FRAMES = 1_000_000

STEADY = 1.3
"""The machine's pace counts as steady if its 90th percentile is at most this many times its 10th."""


class EngineKind(str, Enum):
    """This project's runtime, or a baseline to compare it with."""

    RUNTIME = "runtime"
    ARTICLE = "article"
    PYTORCH = "pytorch"
    ONNXRUNTIME = "onnxruntime"
    CEILING = "benchmark_app"


ENGINE_NAMES: Mapping[EngineKind, str] = {
    EngineKind.RUNTIME: "this project",
    EngineKind.ARTICLE: "the article's loop",
    EngineKind.PYTORCH: "PyTorch, channels last",
    EngineKind.ONNXRUNTIME: "ONNX Runtime",
    EngineKind.CEILING: "benchmark_app (ceiling)",
}


class Mode(str, Enum):
    """One frame at a time, or as many in parallel as gives the most frames/s."""

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

    `device` is an OpenVINO device, `isa` a key of `board_setup.isa.CAPS`; with 0 `streams` the engine decides.
    """

    bundle: str
    precision: str
    mode: Mode
    engine: EngineKind = EngineKind.RUNTIME
    device: str = "CPU"
    isa: str = "native"
    streams: int = 0

    @property
    def key(self) -> str:
        """The name under which `compare` finds the same case in another report."""
        parts = (self.bundle, self.engine.value, self.precision, self.device, self.mode.value, self.isa)
        return "/".join(parts) + (f"/{self.streams}" if self.streams else "")

    def has(self, **wanted: Any) -> bool:
        """Return whether the case has these attributes."""
        return all(getattr(self, name) == value for name, value in wanted.items())

    def __str__(self) -> str:
        streams = f", {self.streams} stream{'s' * (self.streams > 1)}" if self.streams else ""
        cap = "" if self.isa == "native" else f", {ISA_NAMES[self.isa]}"
        engine = "" if self.engine is EngineKind.RUNTIME else f" by {ENGINE_NAMES[self.engine]}"
        return f"{self.bundle} {self.precision.upper()} on {self.device}{engine}, {self.mode.value}{streams}{cap}"


@dataclass(frozen=True)
class TimingLimits:
    """A timing ends after `seconds` or `frames`, whichever comes first; `warmup_frames` before it are not timed.

    `delay` slows every frame of the runtime by this share of its own time, to check that `compare` finds it.
    """

    seconds: float = 2.0
    frames: int = UNLIMITED_FRAMES
    warmup_frames: int = 5
    delay: float = 0.0


@dataclass(frozen=True)
class Job:
    """One measurement for a worker process.

    Attributes:
        bundle, checkpoint, pictures: paths; every engine gets the same pictures.
        started: `time.monotonic()` when the process was started.
        outputs: whether to return the logits of the pictures.
        sustained_s: seconds of a sustained run; 0 for a normal round.
        series: the file to which a sustained run appends a line per second.
    """

    case: Case
    bundle: str
    checkpoint: str | None
    pictures: tuple[str, ...]
    limits: TimingLimits = field(default_factory=TimingLimits)
    started: float = 0.0
    outputs: bool = True
    sustained_s: float = 0.0
    series: str = ""


@dataclass(frozen=True)
class Round:
    """What one worker process measured.

    Attributes:
        figures: by the names in FIGURES; a figure that this machine can't measure is missing, never 0.
        facts: versions and settings of what ran.
        logits: [N][2] of the pictures' first crops; empty where the engine gives none.
        latencies_ms: percentiles 0 to 100 of the latency from file to verdict.
    """

    figures: dict[str, float]
    facts: dict[str, Any]
    logits: list[list[float]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


FIGURES: Mapping[str, str] = {
    "model_fps": "frames/s",
    "end_to_end_fps": "frames/s",
    **{f"{what}_{name}_ms": "ms" for what in ("model", "end_to_end") for name in ("p50", "p95", "p99", "max")},
    "first_verdict_s": "s",
    "rss_peak_mb": "MB",
    "cpu_use": "cores",
    "temperature_c": "°C",
    "clock_mhz": "MHz",
    "throttled": "times",
    "energy_j": "J per frame",
    "foreign_load": "share of all cores",
    "pace": "GFLOP/s",
}
"""The figures of a round and their units."""

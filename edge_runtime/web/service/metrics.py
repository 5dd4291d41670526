"""The service's metrics for Prometheus, and the machine's temperature."""

from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edge_runtime.web.http.problems import ProblemKind
from edge_runtime.web.schemas import Prediction

THERMAL = Path("/sys/class/thermal")
LATENCY_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 320)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        names: dict[str, Any] = {"namespace": "deepfake_edge", "registry": registry}
        self._pictures = Counter("pictures", "Pictures judged, by verdict", ["verdict"], **names)
        self._faces = Counter("faces", "Faces judged, by verdict", ["verdict"], **names)
        self._problems = Counter("problems", "Requests refused or failed, by type", ["type"], **names)
        latency_help = "From a picture's last byte to its result"
        self._latency = Histogram("latency_seconds", latency_help, buckets=LATENCY_BUCKETS_S, **names)
        self.batches = Histogram("batch_crops", "Crops per batch", buckets=BATCH_BUCKETS, **names)
        self.queue = Gauge("queue_crops", "Crops waiting for the detector", **names)
        self.live_frames = Counter("live_frames", "Camera frames judged", **names)
        self.live_dropped = Counter("live_frames_dropped", "Camera frames skipped in favour of a newer one", **names)
        age_help = "From a camera frame's capture to its result"
        self.live_age = Histogram("live_frame_age_seconds", age_help, buckets=LATENCY_BUCKETS_S, **names)
        self.viewers = Gauge("live_viewers", "Viewers of the live page", **names)
        self.model = Info("model", "The model in use", **names)
        registry.register(_Temperatures())
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def count_problem(self, kind: ProblemKind) -> None:
        """Count a request, or one picture of a request, that was refused or failed."""
        self._problems.labels(kind.value).inc()

    def count_prediction(self, prediction: Prediction, latency_s: float) -> None:
        """Count a judged picture."""
        self._pictures.labels(prediction.verdict.value if prediction.verdict else "no_face").inc()
        for face in prediction.faces:
            self._faces.labels(face.verdict.value).inc()
        self._latency.observe(latency_s)


class _Temperatures(Collector):
    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("deepfake_edge_temperature_celsius", "Temperature of the machine", labels=["sensor"])
        for sensor, value in temperatures().items():
            family.add_metric([sensor], value)
        return [family]


def temperatures(thermal: Path = THERMAL) -> dict[str, float]:
    """Return the temperature in °C of each of the kernel's thermal zones, by type; empty if there are none."""
    found: dict[str, float] = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        try:
            name, value = (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
        found[name] = max(value, found.get(name, value))
    return found


def temperature(thermal: Path = THERMAL) -> float | None:
    """Return the processor's temperature in °C, or the hottest zone's if the processor has none of its own."""
    found = temperatures(thermal)
    return found.get("x86_pkg_temp", max(found.values(), default=None))

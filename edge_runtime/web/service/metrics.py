"""What the service counts, for Prometheus, and the machine's temperature."""

from collections.abc import Callable
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

THERMAL = Path("/sys/class/thermal")
LATENCIES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 320)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        names: dict[str, Any] = {"namespace": "deepfake_edge", "registry": registry}
        self.pictures = Counter("pictures", "Pictures judged, by verdict", ["verdict"], **names)
        self.faces = Counter("faces", "Faces judged, by verdict", ["verdict"], **names)
        self.problems = Counter("problems", "Requests that were refused or failed", ["type"], **names)
        self.latency = Histogram(
            "latency_seconds", "From a picture's last byte to its verdict", buckets=LATENCIES_S, **names
        )
        self.batches = Histogram("batch_crops", "Crops that were computed together", buckets=BATCHES, **names)
        self.queue = Gauge("queue_crops", "Crops that wait for the detector", **names)
        self.live_frames = Counter("live_frames", "Frames of the camera that were judged", **names)
        self.live_dropped = Counter("live_frames_dropped", "Frames of the camera that a newer one replaced", **names)
        self.live_age = Histogram(
            "live_frame_age_seconds", "From when a frame was taken to its verdict", buckets=LATENCIES_S, **names
        )
        self.viewers = Gauge("live_viewers", "Who watches the live page", **names)
        self.model = Info("model", "What judges", **names)
        registry.register(_Temperatures(temperatures))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)


class _Temperatures(Collector):
    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("deepfake_edge_temperature_celsius", "Temperature of the machine", labels=["sensor"])
        for sensor, value in self._read().items():
            family.add_metric([sensor], value)
        return [family]


def temperatures(thermal: Path = THERMAL) -> dict[str, float]:
    """Return the temperature in °C of each of the kernel's thermal zones, by the zone's type; empty without any."""
    found: dict[str, float] = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        try:
            name, value = (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
        found[name] = max(value, found.get(name, value))
    return found


def temperature(thermal: Path = THERMAL) -> float | None:
    """Return the processor's temperature in °C: its package's where that is known, else the hottest zone's."""
    found = temperatures(thermal)
    return found.get("x86_pkg_temp", max(found.values(), default=None))

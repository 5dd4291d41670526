"""The figures for Prometheus that edge-detect and edge-serve have in common."""

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.judging.results import SourceState
from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring.alarm import DriftState
from edge_runtime.monitoring.exposition import Computed, Counter, Family, Gauge, Histogram, Labels, Samples, exposition
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.pipeline import Judged

PREFIX = "deepfake_edge_"
THERMAL = Path("/sys/class/thermal")
LATENCY_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of one program; `monitor` is what notices drift, if anything does."""

    def __init__(self, bundle: Bundle, monitor: Monitor | None = None) -> None:
        self.monitor, self._model = monitor, bundle.contract
        self._dropped: dict[str, int] = {}
        latency_help = "From a picture's last byte, or the start of work on a frame, to its result"
        age_help = "From a camera frame's capture to its result"
        self.families: list[Family] = []
        self.faces = self.counter("faces_total", "Faces judged, by verdict", "verdict")
        self.latency = self.histogram("latency_seconds", latency_help, LATENCY_BUCKETS_S)
        self.live_frames = self.counter("live_frames_total", "Camera frames judged")
        self.live_dropped = self.counter("live_frames_dropped_total", "Camera frames skipped in favour of a newer one")
        self.live_age = self.histogram("live_frame_age_seconds", age_help, LATENCY_BUCKETS_S)
        self.computed("model_info", "The model in use", self._model_info)
        self.computed("temperature_celsius", "Temperature of the machine", temperature_samples)
        if monitor is not None:
            self.computed("drift_state", "1 for the state of the drift monitor, else 0", self._drift_state)
            self.computed("drift_info", "The reason for that state", self._drift_info)
            self.computed("drift_level", "Each check over what chance explains; 2 is drift", self._drift_level)
            self.computed("drift_faces", "The latest faces, which are compared", self._drift_faces)

    def text(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return exposition([*self.families, *process_families()])

    def counter(self, name: str, description: str, label: str = "") -> Counter:
        """Add a counter."""
        self.families.append(counter := Counter(PREFIX + name, description, label))
        return counter

    def gauge(self, name: str, description: str, label: str = "") -> Gauge:
        """Add a gauge."""
        self.families.append(gauge := Gauge(PREFIX + name, description, label))
        return gauge

    def histogram(self, name: str, description: str, bounds: tuple[float, ...]) -> Histogram:
        """Add a histogram."""
        self.families.append(histogram := Histogram(PREFIX + name, description, bounds))
        return histogram

    def computed(self, name: str, description: str, samples: Samples) -> None:
        """Add a gauge that is computed when asked for."""
        self.families.append(Computed(PREFIX + name, description, samples))

    def switch(self, bundle: Bundle) -> None:
        """Name another model from now on."""
        self._model = bundle.contract

    def _model_info(self) -> Iterator[tuple[Labels, float]]:
        yield {"architecture": self._model.architecture, "version": self._model.version}, 1.0

    def _drift_state(self) -> Iterator[tuple[Labels, float]]:
        assert self.monitor is not None
        for state in DriftState:
            yield {"state": state.value}, float(self.monitor.alarm.state is state)

    def _drift_info(self) -> Iterator[tuple[Labels, float]]:
        assert self.monitor is not None
        alarm = self.monitor.alarm
        yield {"state": alarm.state.value, "reason": alarm.reason}, 1.0

    def _drift_level(self) -> Iterator[tuple[Labels, float]]:
        assert self.monitor is not None
        for check in self.monitor.checks:
            yield {"check": check.name}, check.level

    def _drift_faces(self) -> Iterator[tuple[Labels, float]]:
        assert self.monitor is not None
        yield {}, float(self.monitor.recent_faces)


class DetectMetrics(Metrics):
    """The metrics of edge-detect, which sees every result."""

    def __init__(self, bundle: Bundle, monitor: Monitor | None = None) -> None:
        super().__init__(bundle, monitor)
        self.frames = self.counter("frames_total", "Frames and pictures judged")
        self.failures = self.counter("failures_total", "Frames and inputs that could not be read")
        self.up = self.gauge("source_up", "Whether a camera or stream gives frames", "source")

    def observe(self, judged: Judged) -> Judged:
        """Count one result."""
        result, live = judged.result, judged.given is not None and judged.given.live
        if live:
            self.up.set(float(result.state is SourceState.OK), result.source)
        if result.error is not None:
            self.failures.inc()
        elif result.state is SourceState.OK:
            self.frames.inc()
            self.latency.observe(result.latency_ms / 1e3)
            for face in result.faces:
                self.faces.inc(of=face.verdict.value)
            if live:
                self.live_frames.inc()
                self.live_age.observe(result.age_ms / 1e3)
                self.live_dropped.inc(max(0, result.dropped - self._dropped.get(result.source, 0)))
                self._dropped[result.source] = result.dropped
        return judged

    def close(self) -> None:
        """Do nothing: there is nothing to save."""


def process_families() -> Iterator[Family]:
    """Yield what the process uses, under the names that Prometheus' clients have in common."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    except (OSError, ValueError, IndexError):
        return
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    values = (
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the process",
            (int(fields[11]) + int(fields[12])) / ticks,
        ),
        ("process_resident_memory_bytes", "gauge", "Resident memory of the process", int(fields[21]) * page),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory of the process", int(fields[20])),
        ("process_start_time_seconds", "gauge", "Start of the process, Unix time", booted + int(fields[19]) / ticks),
        ("process_open_fds", "gauge", "Open file descriptors", opened),
    )
    for name, kind, description, value in values:
        yield Computed(name, description, lambda value=value: iter([({}, float(value))]), kind)  # type: ignore[misc]
    labels = {"implementation": platform.python_implementation(), "version": platform.python_version()}
    yield Computed("python_info", "The Python that runs it", lambda: iter([(labels, 1.0)]))


def temperature_samples() -> Iterator[tuple[Labels, float]]:
    """Yield the temperature of each sensor."""
    for sensor, value in temperatures().items():
        yield {"sensor": sensor}, value


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

"""Counters, gauges and histograms in Prometheus' text format, without a library."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Samples = Callable[[], Iterator[tuple[Labels, float]]]
"""Computes a family's samples."""


def sample(name: str, value: float, labels: Labels | None = None) -> str:
    """Return one line of the format."""
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    inside = ",".join(f'{key}="{text.translate(escapes)}"' for key, text in (labels or {}).items())
    number = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, repr(float(value)))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


class Counter:
    """Counts, apart by the value of one label if it has one; names end in `_total` by convention."""

    kind = "counter"

    def __init__(self, name: str, description: str, label: str = "") -> None:
        self.name, self.description, self._label = name, description, label
        self._values: dict[str, float] = {} if label else {"": 0.0}
        self._lock = threading.Lock()

    def inc(self, by: float = 1.0, of: str = "") -> None:
        """Add `by` to the count of label value `of`."""
        with self._lock:
            self._values[of] = self._values.get(of, 0.0) + by

    def samples(self) -> Iterator[str]:
        """Yield the lines."""
        with self._lock:
            values = dict(self._values)
        for of, value in values.items():
            yield sample(self.name, value, {self._label: of} if self._label else None)


class Gauge(Counter):
    """Holds a value that may fall."""

    kind = "gauge"

    def set(self, value: float, of: str = "") -> None:
        """Replace the value of label value `of`."""
        with self._lock:
            self._values[of] = value


class Computed:
    """A family whose samples are computed when asked for: pairs of labels and value."""

    def __init__(self, name: str, description: str, samples: Samples, kind: str = "gauge") -> None:
        self.name, self.description, self.kind, self._samples = name, description, kind, samples

    def samples(self) -> Iterator[str]:
        """Yield the lines."""
        for labels, value in self._samples():
            yield sample(self.name, value, labels)


class Histogram:
    """Counts observations up to each of some bounds."""

    kind = "histogram"

    def __init__(self, name: str, description: str, bounds: Sequence[float]) -> None:
        self.name, self.description = name, description
        self._bounds, self._counts, self._sum = [*bounds, math.inf], [0] * (len(bounds) + 1), 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count one observation."""
        with self._lock:
            self._sum += value
            self._counts[next(i for i, bound in enumerate(self._bounds) if value <= bound)] += 1

    def samples(self) -> Iterator[str]:
        """Yield the lines."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        running = 0
        for bound, count in zip(self._bounds, counts, strict=True):
            running += count
            yield sample(f"{self.name}_bucket", running, {"le": "+Inf" if bound == math.inf else repr(float(bound))})
        yield sample(f"{self.name}_count", running)
        yield sample(f"{self.name}_sum", total)


Family = Counter | Gauge | Histogram | Computed


def exposition(families: Sequence[Family]) -> str:
    """Return all families in Prometheus' text format."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.description}", f"# TYPE {family.name} {family.kind}"]
        lines += family.samples()
    return "\n".join(lines) + "\n"

"""Sensors of the machine: temperature, clock, throttling, energy, the load of other processes, and its pace.

A value that the machine does not report is None, never 0; virtual machines report no temperature, clock or energy.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

SYS = Path("/sys")
PACE_SIDE = 512
"""Rows and columns of the matrices that `pace` multiplies."""


@dataclass(frozen=True)
class SensorReading:
    """One reading of all sensors.

    Attributes:
        temperature_c: of the hottest thermal zone.
        clock_mhz: current mean over the cores.
        throttled: how often cores and package were throttled by heat since boot.
        energy_uj: for each RAPL package its counter in microjoules and the value at which it wraps around.
    """

    temperature_c: float | None
    clock_mhz: float | None
    throttled: int | None
    energy_uj: tuple[tuple[int, int], ...] | None

    def energy_since(self, before: "SensorReading") -> float | None:
        """Return the joules that all packages used since `before`."""
        if self.energy_uj is None or before.energy_uj is None or len(self.energy_uj) != len(before.energy_uj):
            return None
        pairs = zip(before.energy_uj, self.energy_uj, strict=True)
        return sum((now - then) % (full + 1) for (then, _), (now, full) in pairs) / 1e6


def read_sensors(sys: Path = SYS) -> SensorReading:
    """Read all sensors."""
    temperatures = _numbers(sys.glob("class/thermal/thermal_zone*/temp"))
    clocks = _numbers(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    counts = _numbers(sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"))
    # Packages only (intel-rapl:0); their parts (intel-rapl:0:0) are included in them.
    packages = sorted(sys.glob("class/powercap/intel-rapl:[0-9]"))
    energies = _numbers(package / "energy_uj" for package in packages)
    ranges = _numbers(package / "max_energy_range_uj" for package in packages)
    complete = packages and len(packages) == len(energies) == len(ranges)
    return SensorReading(
        temperature_c=max(temperatures) / 1000.0 if temperatures else None,
        clock_mhz=sum(clocks) / len(clocks) / 1000.0 if clocks else None,
        throttled=sum(counts) if counts else None,
        energy_uj=tuple(zip(energies, ranges, strict=True)) if complete else None,
    )


def _numbers(paths: Iterable[Path]) -> list[int]:
    found = (read_text(path) for path in paths)
    return [int(text) for text in found if text.lstrip("-").isdigit()]


def read_text(path: Path) -> str:
    """Return a small file's text, stripped; empty if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class LoadMeter:
    """Measures what share of all cores other processes use from its construction on."""

    def __init__(self) -> None:
        self._start, self._taken, self._own = time.monotonic(), _taken_s(), _children_s()

    def read(self) -> float:
        """Return the share, 0 to 1; CPU time of child processes that have ended counts as our own."""
        others = _taken_s() - self._taken - (_children_s() - self._own)
        cores_s = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, others / cores_s))


def _taken_s() -> float:
    """Return the core seconds since boot that were used here or stolen by other virtual machines."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def pace(seconds: float = 0.06) -> float:
    """Return the machine's current speed: GFLOP/s of a fixed matrix product on all cores."""
    left = np.full((PACE_SIDE, PACE_SIDE), 0.5, np.float32)
    (left @ left).sum()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not count:
        left @ left
        count += 1
    return 2e-9 * PACE_SIDE**3 * count / passed

"""What the machine feels while it is measured: temperature, clock, throttling, energy, and the load of others.

All from Linux' own files. What a machine does not show (a virtual one shows none) is None, never 0.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SYS = Path("/sys")
PROC = Path("/proc")
PACE_SIDE = 512
"""Rows and columns of the matrices whose product tells the machine's pace."""


@dataclass(frozen=True)
class Reading:
    """One look at the machine.

    Attributes:
        temperature_c: the hottest thermal zone, °C.
        clock_mhz: mean over the cores, as they run now.
        throttled: how often cores and package were slowed down for their heat since the machine started.
        energy_uj: microjoules of each RAPL package, with the value at which it begins anew.
    """

    temperature_c: float | None
    clock_mhz: float | None
    throttled: int | None
    energy_uj: tuple[tuple[int, int], ...] | None

    def energy_since(self, before: "Reading") -> float | None:
        """Return the joules that all packages took since `before`."""
        if self.energy_uj is None or before.energy_uj is None or len(self.energy_uj) != len(before.energy_uj):
            return None
        pairs = zip(before.energy_uj, self.energy_uj, strict=True)
        return sum((now - then) % (full + 1) for (then, _), (now, full) in pairs) / 1e6


def read_sensors(sys: Path = SYS) -> Reading:
    """Look at the machine."""
    temperatures = _numbers(sys.glob("class/thermal/thermal_zone*/temp"))
    clocks = _numbers(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    counts = _numbers(sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return Reading(
        max(temperatures) / 1000.0 if temperatures else None,
        sum(clocks) / len(clocks) / 1000.0 if clocks else None,
        sum(counts) if counts else None,
        _energy(sys),
    )


def _energy(sys: Path) -> tuple[tuple[int, int], ...] | None:
    # Packages only (intel-rapl:0): their parts (intel-rapl:0:0) are counted in them.
    packages = sorted(sys.glob("class/powercap/intel-rapl:[0-9]"))
    energies = _numbers(package / "energy_uj" for package in packages)
    limits = _numbers(package / "max_energy_range_uj" for package in packages)
    if not packages or not len(packages) == len(energies) == len(limits):
        return None
    return tuple(zip(energies, limits, strict=True))


def _numbers(paths: Iterable[Path]) -> list[int]:
    found = (read_text(path) for path in paths)
    return [int(text) for text in found if text.lstrip("-").isdigit()]


def read_text(path: Path) -> str:
    """Return a small file's text without its line end; empty where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class CpuTime:
    """Seconds of all cores together since the machine started: `busy` working, `stolen` by other virtual machines."""

    busy: float
    stolen: float

    @property
    def taken(self) -> float:
        """Return what was not there for whoever else wanted it."""
        return self.busy + self.stolen


def read_cpu_time(proc: Path = PROC) -> CpuTime | None:
    """Return how busy the whole machine has been; None where it does not tell."""
    fields = (read_text(proc / "stat").splitlines() or [""])[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = (int(value) for value in fields[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return CpuTime((user + nice + system + irq + soft) / tick, steal / tick)


def foreign_load(
    before: CpuTime | None, after: CpuTime | None, own_s: float, wall_s: float, cores: int
) -> float | None:
    """Return which share of all cores, 0 to 1, others used in `wall_s` seconds beside our own `own_s` CPU seconds."""
    if before is None or after is None or wall_s <= 0:
        return None
    return min(1.0, max(0.0, (after.taken - before.taken - own_s) / (wall_s * cores)))


def pace(seconds: float = 0.06) -> float:
    """Return how fast the machine itself is just now, in GFLOP/s of a fixed matrix product on all cores."""
    left = np.full((PACE_SIDE, PACE_SIDE), 0.5, np.float32)
    (left @ left).sum()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not count:
        left @ left
        count += 1
    return 2e-9 * PACE_SIDE**3 * count / passed

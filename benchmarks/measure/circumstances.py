"""The circumstances of a measurement: machine, software versions, commit and load."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure.sensors import SYS, read_text
from board_setup.isa import cpu_flags, emulator, widest_isa
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.profile import driver_packages, processor_name

FLAGS = ("sse4_2", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""The CPU flags that change which kernels run."""

PACKAGES = ("openvino", "numpy", "pillow", "torch", "onnxruntime", "nncf")


@dataclass(frozen=True)
class Circumstances:
    """Where and when a report was made.

    Attributes:
        made: ISO 8601, UTC.
        commit: git commit, with `+` if the working tree differs from it; outside a clone the project's version.
        processor: name and number of cores.
        isa: the widest instruction set that changes how INT8 is computed.
        flags: the CPU flags in FLAGS that this CPU has.
        emulator: the emulator and its options if the command ran under one (times are then meaningless), else empty.
        governor, turbo: the clock's; `not readable` if Linux does not show it.
        devices: OpenVINO's devices, full name by device.
        load: load average of the last minute at the start.
        threads: environment variables that set thread counts.
    """

    made: str
    command: str
    commit: str
    processor: str
    isa: str
    flags: tuple[str, ...]
    memory_gb: float
    virtual: bool
    emulator: str
    kernel: str
    system: str
    python: str
    governor: str
    turbo: str
    devices: Mapping[str, str]
    drivers: tuple[str, ...]
    packages: Mapping[str, str]
    load: float
    threads: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, command: str) -> "Circumstances":
        """Return the circumstances of this process."""
        core, flags = openvino_core(), cpu_flags()
        around = emulator()
        return cls(
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=command,
            commit=commit(),
            processor=processor_name(),
            isa="SSE4.2 (emulated)" if around else widest_isa(flags),
            flags=tuple(flag for flag in FLAGS if flag in flags),
            memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
            virtual="hypervisor" in flags,
            emulator=" ".join([Path(around[0]).name, *around[1:]]) if around else "",
            kernel=platform.release(),
            system=system_name(),
            python=platform.python_version(),
            governor=governor(),
            turbo=turbo(),
            devices={name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in core.available_devices},
            drivers=tuple(driver_packages()),
            packages={name: found for name in PACKAGES if (found := package_version(name))},
            load=round(os.getloadavg()[0], 2),
            threads={name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        )


def package_version(name: str) -> str:
    """Return a package's version, empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit(folder: Path = Path(__file__).parent) -> str:
    """Return the git commit, with `+` if the working tree differs from it; outside a clone the project's version."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return package_version("deepfake-edge")
    return done.stdout.strip() or package_version("deepfake-edge")


def system_name(release: Path = Path("/etc/os-release")) -> str:
    """Return the operating system's name and version."""
    lines = dict(line.split("=", 1) for line in read_text(release).splitlines() if "=" in line)
    return lines.get("PRETTY_NAME", sys.platform).strip('"')


def governor(sys_folder: Path = SYS) -> str:
    """Return the cores' clock governors, without duplicates."""
    paths = sys_folder.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({read_text(path) for path in paths} - {""})) or "not readable"


def turbo(sys_folder: Path = SYS) -> str:
    """Return whether turbo is on, off or not readable."""
    cpu = sys_folder / "devices/system/cpu"
    values_of = {"intel_pstate/no_turbo": {"0": "on", "1": "off"}, "cpufreq/boost": {"1": "on", "0": "off"}}
    found = (values.get(read_text(cpu / name)) for name, values in values_of.items())
    return next((value for value in found if value), "not readable")


def facts_line(facts: Mapping[str, Any]) -> str:
    """Return the facts of a measurement, without its kernels, in one line."""
    shown = {name: value for name, value in facts.items() if name != "kernels" and value not in ("", [], {})}
    texts = {name: " ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in shown.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())

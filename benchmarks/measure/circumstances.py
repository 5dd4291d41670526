"""The circumstances of a measurement: no figure of a report stands without them."""

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

from benchmarks.measure.children import emulator
from benchmarks.measure.sensors import PROC, SYS, read_text
from board_setup.isa import cpu_flags, widest_isa
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
        command: as it was typed.
        commit: the project's git commit, with `+` where files were changed since, or its version outside of git.
        processor: name and cores.
        isa: the widest instruction set that changes INT8.
        flags: the CPU flags that change which kernels run.
        memory_gb: of the whole machine.
        virtual: whether it is a virtual machine.
        emulator: the emulator's name where the whole command ran under one; its times mean nothing.
        kernel, system, python: what runs below.
        governor: of the clock, `not readable` where Linux does not show it.
        turbo: whether the clock may rise above its base, `not readable` likewise.
        devices: OpenVINO's devices by name.
        drivers: packages of Intel's GPU driver.
        packages: versions by name.
        load: of the last minute when the run began (how many processes wanted a core).
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
        """Look around."""
        core, flags = openvino_core(), cpu_flags()
        around = emulator()
        return cls(
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=command,
            commit=commit(),
            processor=processor_name(),
            isa="SSE4.2 (emulated)" if around else widest_isa(flags),
            flags=tuple(flag for flag in FLAGS if flag in flags),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
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
    """Return the git commit of the code that runs, with `+` where it was changed since; outside of git its version."""
    described = ["git", "-C", str(folder), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(described, capture_output=True, text=True, check=False)
    except OSError:
        return package_version("deepfake-edge")
    return done.stdout.strip() or package_version("deepfake-edge")


def system_name(release: Path = Path("/etc/os-release")) -> str:
    """Return what the operating system calls itself."""
    lines = dict(line.split("=", 1) for line in read_text(release).splitlines() if "=" in line)
    return lines.get("PRETTY_NAME", sys.platform).strip('"')


def governor(sys_folder: Path = SYS) -> str:
    """Return the cores' clock governors, each once."""
    paths = sys_folder.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({read_text(path) for path in paths} - {""})) or "not readable"


def turbo(sys_folder: Path = SYS) -> str:
    """Return whether the clock may rise above its base: on, off or not readable."""
    cpu = sys_folder / "devices/system/cpu"
    meaning = {"intel_pstate/no_turbo": {"0": "on", "1": "off"}, "cpufreq/boost": {"1": "on", "0": "off"}}
    found = (values.get(read_text(cpu / name)) for name, values in meaning.items())
    return next((value for value in found if value), "not readable")


def busy_processes(proc: Path = PROC) -> int:
    """Return how many processes want a core now, this one included; 0 where it can't be read."""
    fields = read_text(proc / "loadavg").split()
    return int(fields[3].split("/")[0]) if len(fields) > 3 else 0


def facts_line(facts: Mapping[str, Any]) -> str:
    """Return the facts of a measurement, kernels left out, as one line."""
    shown = {name: value for name, value in facts.items() if name != "kernels" and value not in ("", [], {})}
    return ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in shown.items())


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

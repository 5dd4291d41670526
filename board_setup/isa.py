"""Instruction sets: what this CPU has, and how a process is capped to those of another CPU.

OpenVINO's CPU plugin picks its kernels by instruction set when it is imported, so a cap applies to a whole process and
is set in its environment before it starts. Both variables are needed: with only oneDNN's, OpenVINO's own kernels would
still use the wider set, and a network may fail to compile or run many times slower.
"""

import os
import platform
import sys
from typing import Dict, FrozenSet, List, Mapping, Optional

BOARD = "sse42"
"""The AIxBoard's Celeron N5105 (Tremont cores) has SSE4.2 and no AVX of any kind."""

CAPS: Mapping[str, Mapping[str, str]] = {
    "native": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2"},
    "sse42": {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41"},
}
"""The environment that caps a process to each instruction set."""

CAP_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA")


def capped_environment(isa: str, base: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Return the environment for a child process capped to `isa`, a key of CAPS, from `base` or this process's own.

    Raises:
        ValueError: `isa` is not a key of CAPS.
    """
    if isa not in CAPS:
        raise ValueError(f"unknown instruction set {isa!r}; choose one of {', '.join(CAPS)}")
    environment = dict(os.environ if base is None else base)
    for variable in CAP_VARIABLES:
        environment.pop(variable, None)
    environment.update(CAPS[isa])
    return environment


def current_cap(environment: Optional[Mapping[str, str]] = None) -> str:
    """Return the cap of this process: a key of CAPS, `native` if none is set."""
    source = os.environ if environment is None else environment
    seen = {variable: source[variable] for variable in CAP_VARIABLES if variable in source}
    for isa, cap in CAPS.items():
        if dict(cap) == seen:
            return isa
    return "partly capped (" + ", ".join(f"{name}={value}" for name, value in sorted(seen.items())) + ")"


def parse_cpu_flags(cpuinfo: str) -> FrozenSet[str]:
    """Return the CPU flags of the first processor in the text of `/proc/cpuinfo`."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def cpu_flags(path: str = "/proc/cpuinfo") -> FrozenSet[str]:
    """Return this CPU's flags as Linux names them; empty if they can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_cpu_flags(file.read())
    except OSError:
        return frozenset()


def widest_isa(flags: FrozenSet[str]) -> str:
    """Return the name of the widest instruction set in `flags` that changes how INT8 is computed."""
    ladder = (
        ("amx_int8", "AMX INT8"),
        ("avx512_vnni", "AVX-512 VNNI"),
        ("avx_vnni", "AVX VNNI"),
        ("avx512f", "AVX-512"),
        ("avx2", "AVX2"),
        ("avx", "AVX"),
        ("sse4_2", "SSE4.2"),
    )
    for flag, name in ladder:
        if flag in flags:
            return name
    return platform.machine() or "unknown"


def lacks_avx(flags: Optional[FrozenSet[str]] = None, environment: Optional[Mapping[str, str]] = None) -> bool:
    """Return whether OpenVINO computes without AVX here: the CPU has none, or the process is capped."""
    known = cpu_flags() if flags is None else flags
    return current_cap(environment) == BOARD or bool(known and "avx" not in known)


def emulator(proc: str = "/proc") -> List[str]:
    """Return the command line of the qemu-user that runs this process, without the program; empty if none does.

    A child of an emulated process would run natively, so it must be started under the emulator again. qemu-user fakes
    `/proc/self`, but not the same files under `task`: these name qemu and its options.
    """
    thread = os.path.join(proc, "self", "task", str(os.getpid()))
    try:
        real = os.readlink(os.path.join(thread, "exe"))
        with open(os.path.join(thread, "cmdline"), "rb") as file:
            words = os.fsdecode(file.read()).rstrip("\0").split("\0")
    except OSError:
        return []
    if not os.path.basename(real).startswith("qemu-"):
        return []
    # Python 3.8 does not know its command line; nothing there is measured under an emulator.
    program: List[str] = getattr(sys, "orig_argv", [])
    return [real, *words[1 : len(words) - len(program)]]

"""Checks of the CPU: instruction sets, clock and temperature; and of the memory."""

import re

from board_setup.board import layout
from board_setup.board.doctor.row import Row, State
from board_setup.board.doctor.system import System, dotted, field
from board_setup.isa import parse_cpu_flags, widest_isa

SLOWS_DOWN_C = 85.0
TOO_HOT_C = 100.0
NEEDED_MB = 512


def check_cpu(system: System) -> Row:
    """Check the instruction sets, which decide which OpenVINO runs and how fast."""
    text = system.read("/proc/cpuinfo")
    flags = parse_cpu_flags(text)
    model = field(text, "model name") or "unknown CPU"
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    seen = f"{model}, {cores} core{'' if cores == 1 else 's'}, {widest_isa(flags)}"
    if not flags:
        return Row("cpu", State.WARNING, f"{model}: its flags can't be read", "cat /proc/cpuinfo")
    if "sse4_2" not in flags:
        return Row("cpu", State.FAULT, f"{seen}: OpenVINO needs SSE4.2; use another board")
    if "avx" not in flags:
        supported = f"{dotted(layout.OPENVINO_FROM)} to below {dotted(layout.OPENVINO_BELOW)}"
        seen += f", no AVX: OpenVINO {supported} runs here, later versions may not"
    return Row("cpu", State.OK, seen)


def check_memory(system: System) -> Row:
    """Check for the memory that the runtime (up to 220 MB), the system and its page cache need."""
    text = system.read("/proc/meminfo")
    total_mb, available_mb = (
        int(kilobytes.split()[0]) // 1024 if kilobytes else 0
        for kilobytes in (field(text, "MemTotal"), field(text, "MemAvailable"))
    )
    seen = f"{total_mb} MB, {available_mb} MB of it available"
    if available_mb >= NEEDED_MB:
        return Row("memory", State.OK, seen)
    return Row("memory", State.WARNING, seen + "; the detector takes up to 250 MB", "ps aux --sort=-rss | head")


def check_governor(system: System) -> Row:
    """Check for a governor that keeps the clock low, which halves the frame rate."""
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq/"
    governor, driver = system.read(cpu + "scaling_governor"), system.read(cpu + "scaling_driver")
    if not governor:
        return Row("governor", State.OK, "this system does not control the clock")
    if governor == "powersave" and driver != "intel_pstate":
        fix = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return Row("governor", State.WARNING, f"{governor} ({driver}) keeps the lowest clock", fix)
    return Row("governor", State.OK, f"{governor} ({driver})")


def check_temperature(system: System) -> Row:
    """Check the temperature: above 90 °C the CPU slows down."""
    texts = map(system.read, system.glob("/sys/class/thermal/thermal_zone*/temp"))
    degrees = [int(text) / 1000.0 for text in texts if re.fullmatch(r"-?\d+", text)]
    if not degrees:
        return Row("temperature", State.OK, "not measured here")
    hottest = max(degrees)
    if hottest < SLOWS_DOWN_C:
        return Row("temperature", State.OK, f"{hottest:.0f} °C")
    state = State.WARNING if hottest < TOO_HOT_C else State.FAULT
    return Row("temperature", state, f"{hottest:.0f} °C: the CPU slows down", "cool it: a fan, a heat sink, less sun")

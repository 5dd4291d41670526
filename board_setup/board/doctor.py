"""What a board has and lacks: a row each, with what was seen and the command that mends it. Nothing is changed."""

import json
import os
import re
import sys
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from board_setup.board import layout
from board_setup.board.system import NOT_FOUND, TIMED_OUT, System
from board_setup.isa import parse_cpu_flags, widest_isa

OK, WARNING, FAULT = "ok", "warning", "fault"
STATES = (OK, WARNING, FAULT)
"""From best to worst; the place in this order is the exit code."""

SIGILL_CODE = 132
LOOK_FOR_WHEEL = "setup-board twin -- python -m edge_runtime.model.check   (on the workstation; it names the wheel)"
CHECK_S = 600.0
"""A small board that is busy judging faces takes minutes to check the runtime beside that; one that hangs, for ever."""
NO_FACES = "the bundle holds none: pictures of one face each are judged, a camera is not, so the service ends at once"
BRING_FACES = "export-openvino … --face-model FILE   (on the workstation; then pack and install that bundle)"
LAST_DRIVER_FOR_OLD_CHIPS = (24, 35, 30872, 22)
"""From this version on `intel-opencl-icd` no longer knows Gen8, Gen9 and Gen11 graphics."""

GENERATIONS = {
    **dict.fromkeys((0x16, 0x22), "Gen8"),
    **dict.fromkeys((0x19, 0x1A, 0x31, 0x3E, 0x59, 0x5A, 0x87, 0x9B), "Gen9"),
    **dict.fromkeys((0x45, 0x4E, 0x8A), "Gen11"),
}
"""Intel graphics that need the older driver, by the upper byte of their PCI device number."""

KNOWN_RELEASES = {"ubuntu": ("20.04", "22.04", "24.04"), "debian": ("12", "13")}
EARLIEST_YEAR = 2026
MEGABYTE = 1 << 20


class Row(NamedTuple):
    """One finding: what was looked at, how it is, what was seen, and the command that mends it ("" where none is)."""

    name: str
    state: str
    seen: str
    mend: str = ""


def examine(system: Optional[System] = None, *, model: Optional[str] = None, now: Optional[float] = None) -> List[Row]:
    """Examine a machine, this one by default.

    Args:
        system: the machine.
        model: the bundle to check; by default the runtime looks for one as it always does.
        now: the machine's clock, seconds since 1970.
    """
    seen = system or System()
    rows: List[Row] = []
    for check in CHECKS:
        rows.extend(check(seen))
    rows.append(check_clock(seen, time.time() if now is None else now))
    rows.extend(check_runtime(seen, model))
    return rows


def exit_code(rows: List[Row]) -> int:
    """Return 0 where all is well, 1 for a warning, 2 for a fault: the worst row decides."""
    return max((STATES.index(row.state) for row in rows), default=0)


def as_text(rows: List[Row]) -> str:
    """Return the rows for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.state:<8} {row.name:<{width}}  {row.seen}")
        if row.mend:
            lines.append(f"{'':<8} {'':<{width}}  → {row.mend}")
    counts = [sum(row.state == state for row in rows) for state in STATES]
    lines.append(f"{counts[0]} ok, {counts[1]} to look at, {counts[2]} at fault")
    return "\n".join(lines)


def as_json(rows: List[Row]) -> str:
    """Return the rows for a program."""
    return json.dumps({"worst": STATES[exit_code(rows)], "rows": [row._asdict() for row in rows]}, indent=2)


def check_cpu(system: System) -> List[Row]:
    """The instruction sets decide which OpenVINO runs and how fast."""
    text = system.read("/proc/cpuinfo")
    flags = parse_cpu_flags(text)
    model = _field(text, "model name") or "unknown CPU"
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    name = f"{model}, {cores} core{'' if cores == 1 else 's'}, {widest_isa(flags)}"
    if not flags:
        return [Row("cpu", WARNING, f"{model}: its flags can't be read", "cat /proc/cpuinfo")]
    if "sse4_2" not in flags:
        return [Row("cpu", FAULT, f"{name}: OpenVINO needs SSE4.2; use another board")]
    if "avx" not in flags:
        name += f", no AVX: OpenVINO {_range()} runs here, later ones may not"
    return [Row("cpu", OK, name)]


def check_memory(system: System) -> List[Row]:
    """The runtime takes up to 220 MB; the system and a page cache need the rest."""
    text = system.read("/proc/meminfo")
    total, available = (_kilobytes(text, name) // 1024 for name in ("MemTotal", "MemAvailable"))
    seen = f"{total} MB, {available} MB of it available"
    if available >= 512:
        return [Row("memory", OK, seen)]
    return [Row("memory", WARNING, seen + "; the detector takes up to 250 MB", "ps aux --sort=-rss | head")]


def check_disk(system: System) -> List[Row]:
    """A version with its programs takes about 700 MB."""
    done = system.run(["df", "-B1", "--output=avail", "/var"])
    free = done.out.split()[-1:]
    if done.code or not free or not free[0].isdigit():
        return [Row("disk", WARNING, "free space below /var can't be told", "df -h /var")]
    megabytes = int(free[0]) // MEGABYTE
    seen = f"{megabytes} MB free below /var"
    if megabytes >= 2048:
        return [Row("disk", OK, seen)]
    state = WARNING if megabytes >= 300 else FAULT
    mend = f"sudo apt-get clean; {_tool(system)} versions"
    return [Row("disk", state, seen + "; a version takes about 700 MB", mend)]


def check_distribution(system: System) -> List[Row]:
    """The distribution decides which Python and which driver packages there are."""
    seen = _os_release(system).get("PRETTY_NAME", "unknown distribution")
    name, version = _release(system)
    if version in KNOWN_RELEASES.get(name, ()):
        return [Row("system", OK, seen)]
    return [Row("system", WARNING, seen + "; Ubuntu 20.04 to 24.04 and Debian 12, 13 are what this is made for")]


def check_python(system: System) -> List[Row]:
    """The runtime needs Python 3.10 or newer; the vendor's Ubuntu 20.04 has 3.8."""
    names = [f"python{major}.{minor}" for major, minor in reversed(_pythons())]
    found = [path for name in names for path in (f"/usr/bin/{name}", f"/usr/local/bin/{name}") if system.exists(path)]
    own = system.glob(layout.BOARD.programs + "/python-*/bin/python3")
    if found or own:
        return [Row("python", OK, (own + found)[0])]
    if system.live and (3, 10) <= sys.version_info[:2] < layout.PYTHON_BELOW:
        return [Row("python", OK, sys.executable)]
    mend = "setup-board pack --python ARCHIVE --out kit.tar   (on the workstation; then install --kit kit.tar here)"
    return [Row("python", FAULT, "none from 3.10 to 3.13; the runtime needs one", mend)]


def check_gpu(system: System) -> List[Row]:
    """The GPU is worth having, not needed: its device node, then the driver for its generation."""
    graphics = _intel_graphics(system)
    if graphics is None:
        return [Row("gpu", OK, "no Intel graphics; the CPU is used")]
    nodes = system.glob("/dev/dri/renderD*")
    if not nodes:
        mend = "lsmod | grep i915; sudo dmesg | grep i915"
        return [Row("gpu", WARNING, f"Intel graphics {graphics:04x}, but no /dev/dri/renderD*: CPU only", mend)]
    name = f"Intel graphics {graphics:04x} ({GENERATIONS.get(graphics >> 8, 'Gen12 or newer')})"
    return [Row("gpu", OK, f"{name}, {', '.join(nodes)}"), _check_driver(system, graphics)]


def _check_driver(system: System, graphics: int) -> Row:
    installed = _packages(system)
    generation = GENERATIONS.get(graphics >> 8)
    old = installed.get("intel-opencl-icd-legacy1") or installed.get("intel-opencl-icd-legacy")
    current = installed.get("intel-opencl-icd")
    if generation is None:
        if current:
            return Row("gpu driver", OK, f"intel-opencl-icd {current}")
        return Row("gpu driver", WARNING, "no OpenCL driver: CPU only", "sudo apt-get install intel-opencl-icd")
    if old:
        return Row("gpu driver", OK, f"the driver for {generation}, {old}")
    if current and _version(current) < LAST_DRIVER_FOR_OLD_CHIPS:
        return Row("gpu driver", OK, f"intel-opencl-icd {current}, which still knows {generation}")
    seen = f"intel-opencl-icd {current} no longer knows {generation}" if current else "no OpenCL driver"
    return Row("gpu driver", WARNING, seen + ": CPU only", _driver_for_old_chips(system, bool(current)))


def _driver_for_old_chips(system: System, replaced: bool) -> str:
    """Return the command that brings the driver for Gen8, Gen9 and Gen11 to this distribution.

    `replaced`: a newer driver than the distribution's own is installed.
    """
    release = _release(system)
    if not replaced and release in (("ubuntu", "22.04"), ("ubuntu", "24.04"), ("debian", "12")):
        return "sudo apt-get install intel-opencl-icd   (this distribution's own version still knows this chip)"
    if release == ("ubuntu", "20.04"):
        return "do-release-upgrade   (the driver for this chip needs Ubuntu 22.04 or newer; the CPU works as it is)"
    return "sudo apt-get install intel-opencl-icd-legacy1   (with its libigc1, from Intel's releases, 24.35.30872)"


def check_groups(system: System) -> List[Row]:
    """Cameras belong to the group `video`, the GPU to `render`."""
    done = system.run(["id", "-nG"])
    groups = set(done.out.split())
    if "root" in groups:
        return [Row("groups", OK, "root, who may use cameras and GPU")]
    wanted = ["video"] + (["render"] if system.glob("/dev/dri/renderD*") else [])
    missing = [group for group in wanted if group not in groups]
    if not missing:
        return [Row("groups", OK, f"in {' and '.join(wanted)}")]
    mend = f"sudo usermod -aG {','.join(missing)} $USER   (then log in again)"
    return [Row("groups", WARNING, f"not in {' and '.join(missing)}", mend)]


def check_cameras(system: System) -> List[Row]:
    """Each camera with its formats, and who holds it."""
    if not system.exists("/dev"):
        return [
            Row("camera", WARNING, "no /dev here: a container without devices", "docker run --device /dev/video0 …")
        ]
    holders = _camera_holders(system)
    rows, barred = [], []
    for path in _by_number(system.glob("/dev/video*")):
        try:
            formats = system.camera_formats(path)
        except PermissionError:
            barred.append(path)
            continue
        if formats is None and not holders.get(path):
            continue
        name = system.read(f"/sys/class/video4linux/{os.path.basename(path)}/name") or "a camera"
        seen = f"{path} {name} ({_few(formats or [])})"
        if holders.get(path):
            rows.append(_held_camera(system, seen, holders[path]))
        else:
            rows.append(Row("camera", OK, seen + ("" if _is_root(system) else "; who holds it is told with sudo")))
    if barred:
        mend = "sudo usermod -aG video $USER   (then log in again)"
        rows.append(Row("camera", WARNING, f"{', '.join(barred)}: you may not open it", mend))
    return rows or [Row("camera", WARNING, "none found", "plug one in, then: ls -l /dev/video*; sudo dmesg | tail")]


def _is_root(system: System) -> bool:
    return system.run(["id", "-u"]).out == "0"


def _few(formats: List[str]) -> str:
    """Name the formats that matter first, and how many more there are."""
    ordered = sorted(formats, key=lambda name: name not in ("MJPG", "YUYV", "NV12"))
    more = f" and {len(ordered) - 4} more" if len(ordered) > 4 else ""
    return ", ".join(ordered[:4]) + more if ordered else "formats unknown"


def _held_camera(system: System, seen: str, holders: List[str]) -> Row:
    """Tell of a camera that programs have open; whoever feeds a virtual one has it open beside the service."""
    if any("deepfake-edge" in system.read(f"/proc/{holder}/cmdline") for holder in holders):
        return Row("camera", OK, f"{seen}, used by {layout.SERVICE}")
    holder = holders[0]
    name = system.read(f"/proc/{holder}/comm") or "a program"
    return Row("camera", WARNING, f"{seen}, held by {name} (process {holder})", f"kill {holder}")


def _camera_holders(system: System) -> Dict[str, List[str]]:
    holders: Dict[str, List[str]] = {}
    for descriptor in system.glob("/proc/[0-9]*/fd/*"):
        target = system.link(descriptor)
        if target.startswith("/dev/video"):
            holders.setdefault(target, []).append(descriptor.split("/")[2])
    return holders


def check_governor(system: System) -> List[Row]:
    """A governor that keeps the clock low halves the frames a second."""
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq/"
    governor, driver = system.read(cpu + "scaling_governor"), system.read(cpu + "scaling_driver")
    if not governor:
        return [Row("governor", OK, "the clock is not governed from here")]
    if governor == "powersave" and driver != "intel_pstate":
        mend = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return [Row("governor", WARNING, f"{governor} ({driver}) keeps the lowest clock", mend)]
    return [Row("governor", OK, f"{governor} ({driver})")]


def check_temperature(system: System) -> List[Row]:
    """Above 90 °C the CPU slows itself down."""
    degrees = [
        int(text) / 1000.0
        for zone in system.glob("/sys/class/thermal/thermal_zone*/temp")
        for text in [system.read(zone)]
        if re.fullmatch(r"-?\d+", text)
    ]
    if not degrees:
        return [Row("temperature", OK, "not measured here")]
    hottest = max(degrees)
    if hottest < 85.0:
        return [Row("temperature", OK, f"{hottest:.0f} °C")]
    state = WARNING if hottest < 100.0 else FAULT
    return [Row("temperature", state, f"{hottest:.0f} °C: it slows down", "give it air: a fan, a heat sink, less sun")]


def check_clock(system: System, now: float) -> Row:
    """A board without a battery wakes up in the past: times in the results would be wrong."""
    year = time.gmtime(now).tm_year
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    synchronized = system.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).out
    battery = bool(system.glob("/sys/class/rtc/rtc*"))
    if year < EARLIEST_YEAR:
        mend = "sudo date -u -s 'YYYY-MM-DD hh:mm'   (as it is now)"
        return Row("clock", WARNING, f"{stamp} is in the past: times in the results would be wrong", mend)
    if synchronized == "yes" or battery:
        return Row("clock", OK, stamp + (", set by the network" if synchronized == "yes" else ", kept by a battery"))
    return Row("clock", WARNING, f"{stamp}, neither battery nor network keeps it", "sudo timedatectl set-ntp true")


def check_service(system: System) -> List[Row]:
    """The service, where it is installed."""
    if not system.exists("/etc/systemd/system/" + layout.SERVICE):
        return [Row("service", OK, "not installed")]
    state = system.run(["systemctl", "is-active", layout.SERVICE]).out or "unknown"
    if state == "active":
        return [Row("service", OK, state)]
    if state == "activating" and not system.glob("/dev/video*"):
        return [Row("service", WARNING, "waits for a camera", "plug one in")]
    mend = f"journalctl -u {layout.SERVICE} -n 30; sudo systemctl restart {layout.SERVICE}"
    return [Row("service", FAULT, state, mend)]


def check_runtime(system: System, model: Optional[str] = None) -> List[Row]:
    """Let the runtime check itself, its bundle and its answers, in a child process."""
    python = _runtime_python(system)
    if not python:
        return [Row("runtime", WARNING, "not installed", _install(system))]
    # -I: what lies in the working folder is not the runtime; -B: nothing is written.
    command = [python, "-I", "-B", "-m", "edge_runtime.model.check"] + (["--model", model] if model else [])
    done = system.run(command, timeout_s=CHECK_S)
    again = " ".join(command)
    if done.code == NOT_FOUND or re.search(r"No module named '?edge_runtime", done.out):
        return [Row("runtime", WARNING, "not installed", _install(system))]
    if done.code == SIGILL_CODE:
        seen = "died of an instruction that this CPU does not have (SIGILL, 132): a wheel was built for AVX"
        return [Row("runtime", FAULT, seen, LOOK_FOR_WHEEL)]
    if done.code == TIMED_OUT:
        return [Row("runtime", FAULT, f"its check took longer than {CHECK_S / 60:.0f} minutes", again)]
    # Another bundle than the installed one is not a kit's to bring.
    mend = _install(system) if python == layout.BOARD.python and not model else again
    rows = _runtime_rows(done.out, done.code, mend)
    return [_with_pip(row, python) if python != layout.BOARD.python else row for row in rows]


def _runtime_rows(out: str, code: int, mend: str) -> List[Row]:
    try:
        found = json.loads(out[out.index("{") :])
    except ValueError:
        last = (out.splitlines() or [f"ended with {code}"])[-1]
        return [Row("runtime", FAULT, last, mend)]
    rows = [_openvino_row(found["openvino"], mend)]
    if found.get("error"):
        rows.append(Row("bundle", FAULT, found["error"], mend))
    else:
        rows.append(Row("bundle", OK, found["bundle"]))
        rows.append(Row("smoke test", OK, found["answer"]))
        if not found.get("faces", True):
            rows.append(Row("face model", WARNING, NO_FACES, BRING_FACES))
    return rows


def _openvino_row(version: str, mend: str) -> Row:
    if layout.OPENVINO_FROM <= _version(version)[:2] < layout.OPENVINO_BELOW:
        return Row("openvino", OK, f"{version} (pinned: {_range()})")
    return Row("openvino", FAULT, f"{version} is outside the pinned range {_range()}", mend)


def _with_pip(row: Row, python: str) -> Row:
    """Return OpenVINO's row for a machine whose runtime no kit brought."""
    if (row.name, row.state) != ("openvino", FAULT):
        return row
    pinned = f"'openvino>={_dotted(layout.OPENVINO_FROM)},<{_dotted(layout.OPENVINO_BELOW)}'"
    return row._replace(mend=f"{python} -m pip install {pinned}")


def _install(system: System) -> str:
    """Return the command that brings back all that is not as the kit has it."""
    return f"sudo {_tool(system)} install --kit kit.tar"


def _tool(system: System) -> str:
    """Return how this tool is called here: by its command once a kit is installed, by its file before."""
    return "setup-board" if system.exists(layout.BOARD.command) else f"python3 {os.path.basename(layout.BOARD.tool)}"


def _runtime_python(system: System) -> str:
    """Return the installed runtime's Python, else this one where it is new enough to have it, else nothing."""
    if system.exists(layout.BOARD.python):
        return layout.BOARD.python
    return sys.executable if system.live and sys.version_info[:2] >= layout.PYTHON_FROM else ""


def _pythons() -> List[Tuple[int, int]]:
    return [(3, minor) for minor in range(layout.PYTHON_FROM[1], layout.PYTHON_BELOW[1])]


def _range() -> str:
    return f"{_dotted(layout.OPENVINO_FROM)} to below {_dotted(layout.OPENVINO_BELOW)}"


def _dotted(version: Tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _version(text: str) -> Tuple[int, ...]:
    """Return the numbers of a version, without a Debian epoch and revision."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split(":")[-1].split("-")[0]))


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _kilobytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def _os_release(system: System) -> Dict[str, str]:
    return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', system.read("/etc/os-release"), re.MULTILINE))


def _release(system: System) -> Tuple[str, str]:
    fields = _os_release(system)
    return fields.get("ID", ""), fields.get("VERSION_ID", "")


def _packages(system: System) -> Dict[str, str]:
    """Return the version of each installed package."""
    installed = {}
    for entry in system.read("/var/lib/dpkg/status").split("\n\n"):
        name, status, version = (_field(entry, field) for field in ("Package", "Status", "Version"))
        if status == "install ok installed":
            installed[name] = version
    return installed


def _intel_graphics(system: System) -> Optional[int]:
    """Return the PCI device number of the first Intel display controller."""
    for device in system.glob("/sys/bus/pci/devices/*"):
        kind, vendor = system.read(device + "/class"), system.read(device + "/vendor")
        if kind.startswith("0x03") and vendor == "0x8086":
            return int(system.read(device + "/device"), 16)
    return None


def _by_number(paths: List[str]) -> List[str]:
    return sorted((path for path in paths if path[10:].isdigit()), key=lambda path: int(path[10:]))


CHECKS: Tuple[Callable[[System], List[Row]], ...] = (
    check_cpu,
    check_memory,
    check_disk,
    check_distribution,
    check_python,
    check_gpu,
    check_groups,
    check_cameras,
    check_governor,
    check_temperature,
    check_service,
)

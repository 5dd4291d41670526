"""Machines recorded as trees of files, for the doctor to examine, and a Python 3.8.

The virtual board was recorded on itself; the others are put together from what such machines show.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from board_setup.board.doctor import System

JASPER_LAKE_FLAGS = "fpu sse sse2 ssse3 sse4_1 sse4_2 aes sha_ni"
OLD_DRIVER = "Package: intel-opencl-icd-legacy1\nStatus: install ok installed\nVersion: 24.35.30872.32\n"


def cpu(model: str, cores: int, flags: str) -> str:
    return "\n".join(f"processor\t: {core}\nmodel name\t: {model}\nflags\t\t: {flags}\n" for core in range(cores))


def release(name: str, version: str, pretty: str) -> str:
    return f'PRETTY_NAME="{pretty}"\nID={name}\nVERSION_ID="{version}"\n'


def driver(version: str) -> str:
    return f"Package: intel-opencl-icd\nStatus: install ok installed\nVersion: {version}\n"


def graphics(device: str) -> dict[str, str]:
    folder = "sys/bus/pci/devices/0000:00:02.0/"
    return {folder + "class": "0x030000", folder + "vendor": "0x8086", folder + "device": device}


AIXBOARD: dict[str, str] = {
    "proc/cpuinfo": cpu("Intel(R) Celeron(R) N5105 @ 2.00GHz", 4, JASPER_LAKE_FLAGS),
    "proc/meminfo": "MemTotal:        7989000 kB\nMemAvailable:    6500000 kB\n",
    "etc/os-release": release("ubuntu", "20.04", "Ubuntu 20.04.6 LTS"),
    "usr/bin/python3.8": "",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate",
    "sys/class/thermal/thermal_zone0/temp": "51000",
    "sys/class/rtc/rtc0/name": "rtc_cmos",
    "dev/dri/renderD128": "",
    "dev/video0": "",
    "sys/class/video4linux/video0/name": "HD Pro Webcam C920",
    **graphics("0x4e61"),
}
AIXBOARD_COMMANDS = {
    "df -B1 --output=avail /var": [0, "Avail\n40000000000"],
    "id -nG": [0, "edge video render"],
    "id -u": [0, "1000"],
    "camera-formats /dev/video0": [0, "YUYV MJPG"],
    "timedatectl show --property=NTPSynchronized --value": [0, "yes"],
}

MACHINES: dict[str, tuple[dict[str, str], dict[str, list]]] = {
    "aixboard as delivered": (AIXBOARD, {**AIXBOARD_COMMANDS, "id -nG": [0, "edge"]}),
    "aixboard ready": (
        {
            **AIXBOARD,
            "etc/os-release": release("ubuntu", "22.04", "Ubuntu 22.04.5 LTS"),
            "usr/bin/python3.10": "",
            "var/lib/dpkg/status": OLD_DRIVER,
        },
        AIXBOARD_COMMANDS,
    ),
    "n100": (
        {
            **AIXBOARD,
            "proc/cpuinfo": cpu("Intel(R) N100", 4, JASPER_LAKE_FLAGS + " avx avx2 avx_vnni"),
            "etc/os-release": release("ubuntu", "24.04", "Ubuntu 24.04.3 LTS"),
            "usr/bin/python3.12": "",
            "var/lib/dpkg/status": driver("25.05.32567.17"),
            **graphics("0x46d1"),
        },
        AIXBOARD_COMMANDS,
    ),
    "laptop": (
        {
            "proc/cpuinfo": cpu("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", 8, JASPER_LAKE_FLAGS + " avx avx2"),
            "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\n",
            "etc/os-release": release("debian", "13", "Debian GNU/Linux 13 (trixie)"),
            "usr/bin/python3.13": "",
            "dev/dri/renderD128": "",
            "dev/video0": "",
            "dev/video1": "",
            "sys/class/video4linux/video0/name": "Integrated Camera",
            "proc/412/comm": "cheese",
            "proc/412/cmdline": "/usr/bin/cheese",
            "proc/412/fd/9": "-> /dev/video0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq",
            "sys/class/thermal/thermal_zone0/temp": "93000",
            "var/lib/dpkg/status": driver("25.18.33578.6-1"),
            **graphics("0x5917"),
        },
        {"df -B1 --output=avail /var": [0, "Avail\n900000000"], "id -nG": [0, "me video"]},
    ),
    "virtual board": (
        {
            "proc/cpuinfo": cpu("Intel Atom Processor (SnowRidge)", 2, "fpu sse sse2 ssse3 sse4_1 sse4_2 movbe"),
            "proc/meminfo": "MemTotal:        3029580 kB\nMemAvailable:    2894380 kB\n",
            "etc/os-release": release("debian", "12", "Debian GNU/Linux 12 (bookworm)"),
            "usr/bin/python3.11": "",
            "dev/null": "",
            "sys/class/rtc/rtc0/name": "rtc_cmos",
        },
        {"df -B1 --output=avail /var": [0, "Avail\n5100000000"], "id -nG": [0, "root"], "id -u": [0, "0"]},
    ),
    "container": (
        {
            "proc/cpuinfo": cpu("Intel(R) Xeon(R) CPU @ 2.20GHz", 2, JASPER_LAKE_FLAGS + " avx avx2 avx512f"),
            "proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 300000 kB\n",
            "etc/os-release": release("alpine", "3.20", "Alpine Linux v3.20"),
        },
        {"id -nG": [0, "nobody"]},
    ),
}


@pytest.fixture
def machine(tmp_path: Path):
    """Return a function that builds a machine by name, with more files and commands if given."""

    def build(name: str, files: dict[str, str] | None = None, commands: dict[str, list] | None = None) -> System:
        root = tmp_path / name.replace(" ", "-")
        for path, content in {**MACHINES[name][0], **(files or {})}.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                target.symlink_to(content[3:])
            else:
                target.write_text(content)
        (root / "commands.json").write_text(json.dumps({**MACHINES[name][1], **(commands or {})}))
        return System(str(root))

    return build


@pytest.fixture(scope="session")
def python38() -> str:
    """A Python 3.8, as the vendor's Ubuntu 20.04 has."""
    candidates = [shutil.which("python3.8"), *map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.skip("needs a Python 3.8")

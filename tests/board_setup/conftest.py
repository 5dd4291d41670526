"""Machines written down as trees of files, for the doctor to examine; kits that are quick to install.

The virtual board's was recorded on it; the others are put together from what such machines show.
"""

import base64
import ensurepip
import functools
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from board_setup.board.system import System
from board_setup.workstation import kit as kits

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


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CHECK = """
import json, pathlib, sys
if __name__ != "__main__":
    raise ImportError
text = (pathlib.Path(sys.argv[sys.argv.index("--model") + 1]) / "golden" / "golden.json").read_text()
print(json.dumps({"error": "CPU int8: WRONG, logits within 3 of AVX2" if text == "wrong" else None}, indent=2))
sys.exit(2 if text == "wrong" else 0)
"""
DETECT = "def main():\n    print('detecting')\n"


def stand_in_wheel(detect: str) -> tuple[str, bytes]:
    """A wheel that is called like the runtime and checks a bundle by one word in it."""
    info = "deepfake_edge-0.1.0.dist-info/"
    files = {
        "edge_runtime/__init__.py": "",
        "edge_runtime/model/check.py": CHECK,
        "edge_runtime/cli.py": detect,
        info + "METADATA": "Metadata-Version: 2.1\nName: deepfake-edge\nVersion: 0.1.0\n",
        info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "entry_points.txt": "[console_scripts]\nedge-detect = edge_runtime.cli:main\n",
    }
    rows = [f"{name},sha256={_digest64(text)},{len(text)}" for name, text in files.items()]
    files[info + "RECORD"] = "\n".join([*rows, info + "RECORD,,"]) + "\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "wheels/deepfake_edge-0.1.0-py3-none-any.whl", data.getvalue()


@functools.cache
def tool() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        kits.make_tool(f"{folder}/tool")
        return Path(folder, "tool").read_bytes()


def _digest64(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def pip_wheel() -> tuple[str, bytes]:
    bundled = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    return "wheels/" + bundled.name, bundled.read_bytes()


def stand_in_kit(path: Path, version: str, golden: str = "right", detect: str = DETECT, **changes: object) -> Path:
    """Write a kit of `version` whose check passes unless `golden` is "wrong" and whose edge-detect runs `detect`."""
    digest = hashlib.sha256(golden.encode()).hexdigest()
    model = {"contract": {"version": version}, "files": {"golden/golden.json": digest}, "name": "x"}
    contents = dict([stand_in_wheel(detect), pip_wheel()])
    contents["bundle/golden/golden.json"] = golden.encode()
    contents["bundle/model.json"] = json.dumps(model).encode()
    contents[kits.TOOL] = tool()
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = {"format": kits.FORMAT, "id": version + "-aa", "python": PYTHON, "archive": "", "files": files}
    manifest = {**manifest, "requirement": "deepfake-edge==0.1.0", **changes}
    with tarfile.open(path, "w") as tar:
        for name, data in {kits.MANIFEST: json.dumps(manifest).encode(), **contents}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def make_kit():
    """Return the function that writes a kit with a small stand-in for the runtime."""
    return stand_in_kit


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
    """Return a function that sets up a machine by name, with more files and commands if given."""

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

"""What this board chose: the device, precision and streams that `edge-benchmark --tune` measured to be best here.

A profile speaks of one machine, one driver and one bundle. For any other it is ignored, and the reason is told.
"""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import openvino as ov

from board_setup.isa import current_cap
from edge_runtime.errors import UsageError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import MANIFEST, Bundle, sha256
from edge_runtime.model.contract import Precision

FORMAT = 1
PROFILE = "profile.json"
SERVICE_FOLDER = Path("/var/lib/deepfake-edge")
DRIVER_PACKAGES = ("intel-opencl-icd", "intel-opencl-icd-legacy1", "intel-compute-runtime")


@dataclass(frozen=True)
class Hardware:
    """What a measured choice depends on; two machines of the same make are alike.

    Attributes:
        processor: the CPU's name and number of cores.
        device: OpenVINO's full name of the device.
        driver: OpenVINO's version, and for a GPU the kernel's and the driver package's.
        isa: the instruction set that the process is capped to, `native` where it is not.
    """

    processor: str
    device: str
    driver: str
    isa: str

    @classmethod
    def here(cls, device: str, core: ov.Core | None = None) -> "Hardware":
        """Describe this machine and `device`, an OpenVINO device such as CPU or GPU."""
        return cls(processor_name(), _device_name(core or openvino_core(), device), _driver(device), current_cap())

    def differences(self, other: "Hardware") -> list[str]:
        """Say in which parts `other` is not alike, each as `part: this, other`."""
        pairs = ((part.name, getattr(self, part.name), getattr(other, part.name)) for part in dataclasses.fields(self))
        return [f"{name}: {mine}, here {theirs}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True)
class Profile:
    """What was measured to be best on this machine for one bundle.

    Attributes:
        device: an OpenVINO device, CPU or GPU.
        precision: which of the bundle's networks.
        hint: OpenVINO's performance hint, LATENCY or THROUGHPUT.
        streams: how many inferences run side by side; 0 leaves it to OpenVINO.
        fps: frames a second from file to verdict, as measured.
        auc: on the tuning pictures; None where none were labelled.
        bundle: SHA-256 of the bundle's `model.json`.
        hardware: where it was measured.
        made: when, ISO 8601, UTC.
    """

    device: str
    precision: Precision
    hint: str
    streams: int
    fps: float
    auc: float | None
    bundle: str
    hardware: Hardware
    made: str = ""

    def __str__(self) -> str:
        streams = f", {self.streams} streams" if self.streams > 1 else ", 1 stream" if self.streams else ""
        return f"{self.precision.value.upper()} on {self.device}{streams} ({self.fps:.1f} FPS on {self.made[:10]})"

    def properties(self) -> dict[str, Any]:
        """Return the OpenVINO properties to compile with, beside the hint."""
        return {"NUM_STREAMS": self.streams} if self.streams else {}

    def to_json(self) -> str:
        """Return the text of a profile file."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is no profile, of another format, or a value is impossible.
        """
        try:
            values = json.loads(text)
            if values.pop("format", None) != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            values["precision"] = Precision(values["precision"])
            values["hardware"] = Hardware(**values["hardware"])
            profile = cls(**values)
            _check(profile)
            return profile
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"it has a part missing or of the wrong type: {error}") from None


def _check(profile: Profile) -> None:
    texts = (profile.device, profile.hint, profile.bundle, profile.made, *dataclasses.astuple(profile.hardware))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is missing")
    if profile.hint not in ("LATENCY", "THROUGHPUT"):
        raise ValueError(f"its hint is {profile.hint!r}")
    if not isinstance(profile.streams, int) or not 0 <= profile.streams <= 1024:
        raise ValueError(f"its number of streams is {profile.streams!r}")
    if not isinstance(profile.fps, (int, float)):
        raise ValueError(f"its FPS is {profile.fps!r}")


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model name and its number of cores."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())} ({os.cpu_count()} cores)"


def _device_name(core: ov.Core, device: str) -> str:
    if device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
        return "missing"
    return str(core.get_property(device, "FULL_DEVICE_NAME"))


def _driver(device: str) -> str:
    openvino = f"OpenVINO {ov.__version__.split('-')[0]}"
    if device.split(".")[0] != "GPU":
        return openvino
    return ", ".join([openvino, f"kernel {platform.release()}", *driver_packages()])


def driver_packages(status: Path = Path("/var/lib/dpkg/status")) -> list[str]:
    """Return name and version of each installed driver package for Intel's GPU (OpenVINO itself can't tell)."""
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    blocks = (dict(line.split(": ", 1) for line in part.splitlines() if ": " in line) for part in text.split("\n\n"))
    return [f"{block['Package']} {block.get('Version', '?')}" for block in blocks if _is_driver(block)]


def _is_driver(block: Mapping[str, str]) -> bool:
    return block.get("Package") in DRIVER_PACKAGES and block.get("Status", "").endswith(" installed")


def profile_path() -> Path:
    """Return where a profile is written: for a systemd service its state folder, else the user's XDG state folder."""
    service = os.environ.get("STATE_DIRECTORY")
    if service:
        return Path(service.split(":")[0]) / PROFILE
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "deepfake-edge" / PROFILE


def write_profile(profile: Profile, path: Path | None = None) -> Path:
    """Write `profile` to `path` (default: `profile_path()`), whole or not at all; return where it lies.

    Raises:
        UsageError: it can't be written.
    """
    target = path or profile_path()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(profile.to_json(), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: can't write the profile ({error.strerror or error})") from None
    return target


def bundle_key(bundle: Bundle) -> str:
    """Return what a profile knows a bundle by: the SHA-256 of its `model.json`, which names that of every file."""
    return sha256(bundle.path / MANIFEST)


def new_profile(bundle: Bundle, device: str, precision: Precision, **measured: Any) -> Profile:
    """Return a profile of this machine for `bundle`; `measured` are hint, streams, fps and auc."""
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Profile(device, precision, bundle=bundle_key(bundle), hardware=Hardware.here(device), made=made, **measured)


def find_profile(bundle: Bundle, core: ov.Core | None = None) -> tuple[Profile | None, str]:
    """Return the profile in force for `bundle` on this machine, or None, and a line that says which and why.

    The first file that exists counts: the service's or user's own (`profile_path`), then the installed service's.
    """
    path, text = _first_profile()
    if path is None:
        return None, "no profile; edge-benchmark --tune measures one"
    try:
        profile = Profile.from_json(text)
    except ValueError as error:
        return None, f"{path} ignored: it can't be read ({error}); make it again with edge-benchmark --tune"
    reason = _unfit(profile, bundle, core)
    if reason:
        return None, f"{path} ignored: {reason}; make it again with edge-benchmark --tune"
    return profile, f"{profile}, from {path}"


def _first_profile() -> tuple[Path | None, str]:
    texts = ((path, _text(path)) for path in (profile_path(), SERVICE_FOLDER / PROFILE))
    return next(((path, text) for path, text in texts if text is not None), (None, ""))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"({error.strerror or error})"


def _unfit(profile: Profile, bundle: Bundle, core: ov.Core | None) -> str:
    if profile.bundle != bundle_key(bundle) or profile.precision not in bundle.precisions:
        return "it was made for another bundle"
    differences = profile.hardware.differences(Hardware.here(profile.device, core))
    return f"it was made elsewhere ({differences[0]})" if differences else ""

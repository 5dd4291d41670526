"""The profile: the device, precision and streams that were measured to be fastest on this board.

A first start measures them briefly (`edge_runtime.inference.tuning`), `edge-benchmark --tune` thoroughly.

A profile belongs to one machine, one driver and one bundle. For any other it is ignored, and the log says why.
"""

import contextlib
import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import openvino as ov

from board_setup.isa import current_cap
from edge_runtime.atomic import write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import MANIFEST, Bundle, sha256
from edge_runtime.model.contract import Precision
from edge_runtime.paths import state_folder
from edge_runtime.plain_json import plain
from edge_runtime.printable import printable

FORMAT = 1
PROFILE = "profile.json"
SERVICE_FOLDER = Path("/var/lib/deepfake-edge")
DRIVER_PACKAGES = ("intel-opencl-icd", "intel-opencl-icd-legacy1", "intel-compute-runtime")


@dataclass(frozen=True)
class Hardware:
    """What a measured choice depends on; two machines of the same make are equal.

    Attributes:
        processor: the CPU's name and number of cores.
        device: OpenVINO's full name of the device.
        driver: `driver_versions` of the device.
        isa: the instruction set the process is limited to; `native` if it isn't.
    """

    processor: str
    device: str
    driver: str
    isa: str

    @classmethod
    def here(cls, device: str, core: ov.Core | None = None) -> "Hardware":
        """Describe this machine and `device`, an OpenVINO device such as CPU or GPU."""
        core, kind = core or openvino_core(), device.split(".")[0]
        # Listing the devices loads every driver, and one may hang; a CPU is always there.
        there = kind == "CPU" or kind in {name.split(".")[0] for name in core.available_devices}
        return cls(
            processor=processor_name(),
            device=str(core.get_property(device, "FULL_DEVICE_NAME")) if there else "missing",
            driver=driver_versions(device),
            isa=current_cap(),
        )

    def differences(self, other: "Hardware") -> list[str]:
        """Return the fields in which `other` differs, each as `field: this, here other`."""
        pairs = ((part.name, getattr(self, part.name), getattr(other, part.name)) for part in dataclasses.fields(self))
        return [f"{name}: {mine}, here {theirs}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True)
class Profile:
    """The fastest setting measured on this machine for one bundle.

    Attributes:
        device: an OpenVINO device, CPU or GPU.
        precision: which of the bundle's networks.
        hint: OpenVINO's performance hint, LATENCY or THROUGHPUT.
        streams: number of parallel inferences; 0 leaves it to OpenVINO.
        fps: measured frames per second, from file to verdict; of the network alone at a first start.
        auc: on the tuning pictures; None if they had no labels.
        bundle: SHA-256 of the bundle's `model.json`.
        hardware: where it was measured.
        made: ISO 8601, UTC.
        given_up: devices that failed when they were measured, with the versions of their drivers.
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
    given_up: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types and values; raises ValueError."""
        texts = (self.device, self.hint, self.bundle, self.made, *dataclasses.astuple(self.hardware))
        texts += (*self.given_up.keys(), *self.given_up.values())
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError("a text is missing or has control characters")
        if self.hint not in ("LATENCY", "THROUGHPUT"):
            raise ValueError(f"its hint is {self.hint!r}")
        if not isinstance(self.streams, int) or not 0 <= self.streams <= 1024:
            raise ValueError(f"its number of streams is {self.streams!r}")
        if not isinstance(self.fps, (int, float)) or not math.isfinite(self.fps):
            raise ValueError(f"its FPS is {self.fps!r}")

    def __str__(self) -> str:
        streams = f", {self.streams} streams" if self.streams > 1 else ", 1 stream" if self.streams else ""
        return f"{self.precision.value.upper()} on {self.device}{streams} ({self.fps:.1f} FPS on {self.made[:10]})"

    def properties(self) -> dict[str, Any]:
        """Return the OpenVINO properties to compile with, besides the hint."""
        return {"NUM_STREAMS": self.streams} if self.streams else {}

    def to_json(self) -> str:
        """Return the text of a profile file."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it isn't a profile, has another format, or a value is impossible.
        """
        try:
            values = json.loads(text)
            if values.pop("format", None) != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            values["precision"] = Precision(values["precision"])
            values["hardware"] = Hardware(**values["hardware"])
            return cls(**values)
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(printable(f"a part is missing or of the wrong type: {error}")) from None


class ProfileState(Enum):
    """Whether there is a profile for this board and bundle."""

    IN_FORCE = "in force"
    MISSING = "missing"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class FoundProfile:
    """The result of looking for a profile.

    Attributes:
        state: whether one was found and can be used.
        profile: the profile, if it can be used.
        line: which profile is in force, or why there is none.
    """

    state: ProfileState
    profile: Profile | None
    line: str


def find_profile(bundle: Bundle, core: ov.Core | None = None) -> FoundProfile:
    """Return the profile in force for `bundle` on this machine.

    The user's or service's own (`profile_path`) comes first, then the one that was measured at installation.
    """
    unusable = None
    for path in (profile_path(), SERVICE_FOLDER / PROFILE):
        reason = ""
        try:
            profile = Profile.from_json(path.read_text(encoding="utf-8", errors="replace"))
            if profile.bundle != bundle_key(bundle) or profile.precision not in bundle.precisions:
                reason = "it was made for another bundle"
            elif differences := profile.hardware.differences(Hardware.here(profile.device, core)):
                reason = f"it was made elsewhere ({differences[0]})"
            elif renewed := [d for d, driver in profile.given_up.items() if driver != driver_versions(d)]:
                reason = f"{renewed[0]}, which failed then, has another driver now"
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = f"it can't be read ({getattr(error, 'strerror', None) or error})"
        if reason:
            line = printable(f"{path} ignored: {reason}; make it again with edge-benchmark --tune")
            unusable = unusable or FoundProfile(ProfileState.UNUSABLE, None, line)
        else:
            return FoundProfile(ProfileState.IN_FORCE, profile, f"{profile}, from {path}")
    return unusable or FoundProfile(ProfileState.MISSING, None, "no profile; edge-benchmark --tune measures one")


def kept_device(bundle: Bundle) -> str | None:
    """Return the device of the first readable profile of `bundle`, without loading its driver; None without one."""
    for path in (profile_path(), SERVICE_FOLDER / PROFILE):
        with contextlib.suppress(OSError, ValueError):
            profile = Profile.from_json(path.read_text(encoding="utf-8", errors="replace"))
            if profile.bundle == bundle_key(bundle):
                return profile.device
    return None


def new_profile(bundle: Bundle, device: str, precision: Precision, **measured: Any) -> Profile:
    """Return a profile of this machine for `bundle`; `measured` are hint, streams, fps, auc and given_up."""
    return Profile(
        device=device,
        precision=precision,
        bundle=bundle_key(bundle),
        hardware=Hardware.here(device),
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **measured,
    )


def write_profile(profile: Profile, path: Path | None = None) -> Path:
    """Write `profile` atomically to `path` (default: `profile_path()`) and return the path.

    Raises:
        UsageError: it can't be written.
    """
    target = path or profile_path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, profile.to_json())
    except OSError as error:
        raise UsageError(
            f"{target}: can't write the profile ({error.strerror or error}); check the folder's permissions"
        ) from None
    return target


def profile_path() -> Path:
    """Return where a profile is written: in the state folder of the service or user."""
    return state_folder() / PROFILE


def driver_versions(device: str) -> str:
    """Return OpenVINO's version, and for a GPU those of the kernel and the driver package; loads no driver."""
    versions = [f"OpenVINO {ov.__version__.split('-')[0]}"]
    if device.split(".")[0] == "GPU":
        versions += [f"kernel {platform.release()}", *driver_packages()]
    return ", ".join(versions)


def bundle_key(bundle: Bundle) -> str:
    """Return the SHA-256 of a bundle's `model.json`, which lists that of every file."""
    return sha256(bundle.path / MANIFEST)


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model name and its number of cores."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())} ({os.cpu_count()} cores)"


def driver_packages(status: Path = Path("/var/lib/dpkg/status")) -> list[str]:
    """Return name and version of each installed driver package for Intel's GPU; OpenVINO does not report them."""
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    packages = (dict(line.split(": ", 1) for line in part.splitlines() if ": " in line) for part in text.split("\n\n"))
    return [
        f"{package['Package']} {package.get('Version', '?')}"
        for package in packages
        if package.get("Package") in DRIVER_PACKAGES and package.get("Status", "").endswith(" installed")
    ]

"""The runtime's self-check, run by `setup-board` in the installed environment: `python -m edge_runtime.model.check`.

It checks every file of the bundle, computes the golden pictures in the precision that the CPU would use, and prints one
JSON object. With `--measure` it then finds the fastest device and keeps it as the profile of this machine.
"""

import importlib.metadata
import json
import time
from typing import Annotated

import numpy as np
import typer

from edge_runtime.command import run_command
from edge_runtime.errors import BundleError, DeviceError, EdgeError, MissingBundleError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.engine import PREFERRED
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.inference.tuning import choose_device, devices_here
from edge_runtime.model.bundle import Bundle, find_bundle
from edge_runtime.model.contract import DEMO_NOTICE, Precision
from edge_runtime.model.golden import GOLDEN, require_golden
from edge_runtime.model.profile import write_profile


def check(
    model: Annotated[str | None, typer.Option(help="The bundle; by default the one that edge-detect finds.")] = None,
    device: Annotated[str, typer.Option(help="The device to compute on.")] = "CPU",
    measure: Annotated[bool, typer.Option(help="Find the fastest device and keep it as the profile.")] = False,
) -> int:
    """Check the runtime, its bundle and its answers, and print the findings as JSON."""
    # The devices are not listed: that loads every driver, and one may hang.
    found: dict[str, object] = {
        "runtime": importlib.metadata.version("deepfake-edge"),
        "openvino": importlib.metadata.version("openvino"),
        "state": "passed",
        "error": None,
    }
    try:
        bundle = find_bundle(model)
        bundle.check()
        contract, files = bundle.contract, bundle.manifest.files
        held = [precision.value for precision in bundle.precisions]
        notice = f" ({DEMO_NOTICE})" if contract.demo else ""
        parts = (f"{contract.architecture} {contract.version}", *held, f"{len(files)} files whole{notice}")
        found["bundle"] = f"{bundle.origin}: {', '.join(parts)}"
        found["faces"] = FACE_MODEL in files
        precision = next((Precision(name) for name in PREFERRED["CPU"] if name in held), None)
        if precision is None:
            raise BundleError(f"{bundle.path}: holds no network; export it again")
        started = time.monotonic()
        answer = golden_answer(bundle, precision, device)
        found["answer"] = f"{answer}, after {time.monotonic() - started:.1f} s"
        if measure:
            found["fastest"] = fastest_device(bundle)
    except EdgeError as error:
        found["error"] = str(error)
        found["state"] = "no bundle" if isinstance(error, MissingBundleError) else "failed"
    print(json.dumps(found, indent=2))
    return 2 if found["error"] else 0


def golden_answer(bundle: Bundle, precision: Precision, device: str) -> str:
    """Compute the golden pictures, or a generated one if the bundle has none, and describe the answer.

    Raises:
        DeviceError: the device is missing or gives wrong answers.
    """
    network = Classifier(bundle.model(precision), bundle.contract, device=device)
    if GOLDEN in bundle.manifest.files:
        return str(require_golden(network, bundle, precision, device))
    ramp = np.linspace(0, 255, bundle.contract.input_size, dtype=np.uint8)
    across, down = np.meshgrid(ramp, ramp)
    logits = network.logits(np.stack([across, down, down[::-1]], axis=-1)[None])
    if not np.isfinite(logits).all():
        raise DeviceError(f"{device}: {precision.value} answers {logits.tolist()}; use another device")
    return f"{precision.value} on {device}: logits {logits[0, 0]:.4f}, {logits[0, 1]:.4f} for a generated picture"


def fastest_device(bundle: Bundle) -> str:
    """Measure the devices, keep the fastest as this machine's profile, and return it or why there is none."""
    devices = devices_here()
    if len(devices) == 1:
        return f"{devices[0]}, the only device that OpenVINO finds"
    if GOLDEN not in bundle.manifest.files:
        return "not measured, because the bundle has no golden pictures"
    profile = choose_device(bundle, devices)
    if profile is None:
        return "none: no device gives right answers"
    write_profile(profile)
    return str(profile)


def main() -> None:
    """Run the command."""
    run_command(check, "python -m edge_runtime.model.check")


if __name__ == "__main__":
    main()

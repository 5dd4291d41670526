"""The runtime's own check, run by `setup-board` in the installed environment: `python -m edge_runtime.model.check`.

It checks every file of the bundle, then computes its golden pictures in the precision that the CPU would use, and
tells all in one JSON object.
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
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.model.bundle import Bundle, find_bundle
from edge_runtime.model.contract import DEMO_NOTICE, Precision
from edge_runtime.model.golden import GOLDEN, require_golden

PREFERRED = (Precision.INT8, Precision.FP32, Precision.FP16)
"""What the CPU would use, the first that the bundle has."""


def check(
    model: Annotated[str | None, typer.Option(help="The bundle; found as edge-detect finds it if left out.")] = None,
    device: Annotated[str, typer.Option(help="The device to compute on.")] = "CPU",
) -> int:
    """Check the runtime, its bundle and its answers; tells what was found as JSON."""
    found: dict[str, object] = {
        "runtime": importlib.metadata.version("deepfake-edge"),
        "openvino": importlib.metadata.version("openvino"),
        "devices": openvino_core().available_devices,
        "state": "passed",
        "error": None,
    }
    try:
        bundle = find_bundle(model)
        bundle.check()
        found["bundle"] = _describe(bundle)
        found["faces"] = FACE_MODEL in bundle.manifest.files
        found["answer"] = _answer(bundle, device)
    except EdgeError as error:
        found["error"] = str(error)
        found["state"] = "no bundle" if isinstance(error, MissingBundleError) else "failed"
    print(json.dumps(found, indent=2))
    return 2 if found["error"] else 0


def _describe(bundle: Bundle) -> str:
    contract = bundle.contract
    holds = ", ".join(precision.value for precision in bundle.precisions)
    notice = f" ({DEMO_NOTICE})" if contract.demo else ""
    whole = f"{len(bundle.manifest.files)} files whole"
    return f"{bundle.path}: {contract.architecture} {contract.version}, {holds}, {whole}{notice}"


def _answer(bundle: Bundle, device: str) -> str:
    """Compute the golden pictures, or one made picture where the bundle has none, and say how that went."""
    precision = next((precision for precision in PREFERRED if precision in bundle.precisions), None)
    if precision is None:
        raise BundleError(f"{bundle.path}: holds no network; export it again")
    started = time.monotonic()
    network = Classifier(bundle.model(precision), bundle.contract, device=device)
    if GOLDEN in bundle.manifest.files:
        answer = str(require_golden(network, bundle, precision, device))
    else:
        answer = _ramp(network, precision, device)
    return f"{answer}, after {time.monotonic() - started:.1f} s"


def _ramp(network: Classifier, precision: Precision, device: str) -> str:
    size = network.contract.input_size
    across, down = np.meshgrid(*2 * [np.linspace(0, 255, size, dtype=np.uint8)])
    logits = network.logits(np.stack([across, down, down[::-1]], axis=-1)[None])
    if not np.isfinite(logits).all():
        raise DeviceError(f"{device}: {precision.value} answers {logits.tolist()}, no numbers; use another device")
    return f"{precision.value} on {device}: logits {logits[0, 0]:.4f}, {logits[0, 1]:.4f} of a made picture"


def main() -> None:
    """Run the command."""
    run_command(check, "python -m edge_runtime.model.check")


if __name__ == "__main__":
    main()

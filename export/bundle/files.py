"""The files of a bundle other than its networks: the face detector, tool versions, and the manifest with every
SHA-256.
"""

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_runtime.command import package_versions
from edge_runtime.errors import UsageError
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.model.bundle import MANIFEST, Manifest, sha256
from edge_runtime.model.contract import ModelContract
from edge_runtime.paths import expand
from train.data.face_finder import FACE_PACKAGE, installed_face_model

TOOLS = ("deepfake-edge", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy")

NOTICE = """face_detection.tflite is MediaPipe's BlazeFace full range, Copyright The MediaPipe Authors,
licensed under the Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
Model card: https://github.com/google-ai-edge/mediapipe, "Face Detection Full-Range".
Origin of this file: {origin}
"""


def add_face_model(folder: Path, given: Path | None) -> bool:
    """Copy the face detector's model and its licence notice into the bundle; return False if there is no model.

    `given` is a TFLite file; None takes the installed package's.

    Raises:
        UsageError: the given file can't be read.
    """
    source = expand(given) if given else installed_face_model()
    if source is None:
        return False
    target = folder / FACE_MODEL
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"--face-model {source}: can't be read ({error.strerror or error})") from None
    version = package_versions([FACE_PACKAGE])[FACE_PACKAGE]
    origin = f"given as {source.name}" if given else f"the package {FACE_PACKAGE} {version}"
    (target.parent / "NOTICE").write_text(NOTICE.format(origin=origin), encoding="utf-8")
    return True


def write_manifest(
    folder: Path,
    contract: ModelContract,
    name: str,
    parity: Mapping[str, Any],
    trained_on: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write `model.json` with the SHA-256 of every other file in `folder`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    manifest = Manifest(
        contract=contract,
        files={path.relative_to(folder).as_posix(): sha256(path) for path in paths},
        tools=tool_versions(),
        parity=parity,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        name=name,
        trained_on=trained_on or {},
    )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def tool_versions() -> dict[str, str]:
    """Return the version of each tool that made the bundle."""
    return package_versions((*TOOLS, "pillow"))

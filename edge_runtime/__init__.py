"""The runtime on the board: frames in, verdicts out."""

import sys
from typing import Any

__all__ = ["Detector"]

# With this package, importing openvino reports usage to its maker and writes into the user's home.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    """Import the detector on first use, so that the contract alone needs neither openvino nor Pillow."""
    if name == "Detector":
        from edge_runtime.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

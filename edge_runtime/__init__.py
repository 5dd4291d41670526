"""What lies on the board: frames in, verdicts out."""

import sys
from typing import Any

__all__ = ["Detector"]

# With this package, importing openvino reports to its maker and writes into the home of its user; without, neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    """Import the detector when it is asked for, so that the contract alone needs neither openvino nor Pillow."""
    if name == "Detector":
        from edge_runtime.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

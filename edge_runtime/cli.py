"""The command `edge-detect`."""

import contextlib
import signal
import sys
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.command import run_command
from edge_runtime.errors import UsageError

if TYPE_CHECKING:
    from edge_runtime.detector import Detector
    from edge_runtime.pipeline import Judged
    from edge_runtime.sinks import Sink
    from edge_runtime.sources import Source


class Device(str, Enum):
    """Where the network runs."""

    AUTO = "AUTO"
    CPU = "CPU"
    GPU = "GPU"


class PrecisionChoice(str, Enum):
    """Which of the bundle's networks runs."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Faces(str, Enum):
    """Whether the face stage looks for faces."""

    AUTO = "auto"
    OFF = "off"
    TILED = "tiled"


def edge_detect(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Pictures, folders, globs, videos, http(s):// or rtsp:// streams, -"),
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="A camera's number or device file; may be repeated.")] = None,
    list_cameras: Annotated[bool, typer.Option("--list-cameras", help="List the cameras and leave.")] = False,
    model: Annotated[Path | None, typer.Option(help="A bundle's folder; looked for where none is given.")] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.AUTO,
    precision: Annotated[PrecisionChoice, typer.Option(help="Which network runs.")] = PrecisionChoice.AUTO,
    faces: Annotated[Faces, typer.Option(help="Look for faces; `off` takes the whole picture.")] = Faces.AUTO,
    jsonl: Annotated[Path | None, typer.Option(help="Write a line of JSON a frame to this file; - is stdout.")] = None,
) -> int:
    """Tell of every face whether it is real, fake or uncertain."""
    if list_cameras:
        return _print_cameras()
    if not inputs and not camera:
        raise UsageError("nothing to look at; give pictures, folders, videos or addresses, or --camera 0")
    sources = _open(inputs or [], camera or [])
    from edge_runtime.detector import Detector

    detector = Detector(model, device=device.value, precision=precision.value, faces=faces.value)
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(sink) for sink in _sinks(jsonl)]
        return _run(detector, sources, sinks)


def _open(inputs: list[str], cameras: list[str]) -> "list[Source]":
    from edge_runtime.sources import SourceOptions, open_sources

    return open_sources(inputs, SourceOptions(), cameras=cameras)


def _sinks(jsonl: Path | None) -> "list[Sink]":
    from edge_runtime.sinks.lines import JsonlSink
    from edge_runtime.sinks.terminal import PlainLines

    to_stdout = str(jsonl) == "-"
    sinks: list[Sink] = [PlainLines(sys.stderr if to_stdout else None)]
    return sinks if jsonl is None else [*sinks, JsonlSink(jsonl)]


def _print_cameras() -> int:
    from edge_runtime.sources.camera import CHECK, list_cameras

    cameras = list_cameras()
    for node, name in cameras:
        print(f"{node}  {name}")
    if not cameras:
        print(f"no cameras; {CHECK}")
    return 0


@dataclass
class Summary:
    """What a run came to."""

    frames: int = 0
    faces: int = 0
    failed: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, judged: "Judged") -> None:
        """Count one result."""
        result = judged.result
        if judged.failed:
            self.failed.append(result.error or result.source)
        elif result.state == "ok":
            self.frames += 1
            self.faces += len(result.faces)

    def text(self) -> str:
        """Return the closing line."""
        seconds = time.monotonic() - self.began
        rate = f"{self.frames / seconds:.1f} FPS" if seconds > 0 else ""
        return f"{self.frames} frames, {self.faces} faces, {rate}, {len(self.failed)} failed"


def _run(detector: "Detector", sources: "list[Source]", sinks: "list[Sink]") -> int:
    pipeline = detector.pipeline(sources)
    summary = Summary()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: pipeline.stop())
    for judged in pipeline.results():
        summary.add(judged)
        for sink in sinks:
            sink.write(judged)
    print(summary.text(), file=sys.stderr)
    return 1 if summary.failed else 0


def main() -> None:
    """Start the command."""
    run_command(edge_detect, "edge-detect")


if __name__ == "__main__":
    main()

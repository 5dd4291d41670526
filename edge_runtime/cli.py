"""The command `edge-detect`."""

import contextlib
import logging
import re
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.command import INTERRUPTED, run_command
from edge_runtime.defaults import MIN_FACE_PX, SNAPSHOT_DAYS, SNAPSHOT_SPACE, STALL_TIMEOUT_S, WINDOW
from edge_runtime.errors import UsageError

if TYPE_CHECKING:
    from edge_runtime.detector import Detector
    from edge_runtime.pipeline import Pipeline
    from edge_runtime.run import Summary
    from edge_runtime.sinks import Sink
    from edge_runtime.sources import Source

CAMERA, OUTPUT, SNAPSHOTS = "Cameras and streams", "Output", "Snapshots"


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


def parse_size(text: str) -> int:
    """Return bytes for a size such as 500K, 20M or 2G.

    Raises:
        UsageError: it is no such size.
    """
    found = re.fullmatch(r"([1-9]\d{0,11})([KMG]?)B?", text.strip().upper())
    if not found:
        raise UsageError(f"{text!r} is no size; give for example 500K, 20M or 2G")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def edge_detect(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Pictures, folders, globs, videos, http(s):// MJPEG or rtsp:// streams; - is JPEGs on standard input.",
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(help="A camera's number or device file; may be repeated.", rich_help_panel=CAMERA),
    ] = None,
    list_cameras: Annotated[
        bool, typer.Option("--list-cameras", help="List the cameras and leave.", rich_help_panel=CAMERA)
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="A bundle; else $DEEPFAKE_EDGE_MODEL, ./detector, then the installed one."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.AUTO,
    precision: Annotated[PrecisionChoice, typer.Option(help="Which network runs.")] = PrecisionChoice.AUTO,
    faces: Annotated[
        Faces, typer.Option(help="off takes the whole picture for the face, tiled looks for far faces too.")
    ] = Faces.AUTO,
    min_face: Annotated[
        int, typer.Option(min=1, help="Pixels of a face's side below which it is uncertain.")
    ] = MIN_FACE_PX,
    window: Annotated[
        int, typer.Option(min=1, max=1000, help="Frames of a face that a verdict is computed from.")
    ] = WINDOW,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with pictures that come into a folder later.")] = False,
    width: Annotated[int | None, typer.Option(min=1, help="Ask for this width.", rich_help_panel=CAMERA)] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Ask for this height.", rich_help_panel=CAMERA)] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Ask for this rate.", rich_help_panel=CAMERA)] = None,
    mjpg: Annotated[
        bool, typer.Option("--mjpg/--no-mjpg", help="Ask for MJPG, which is faster.", rich_help_panel=CAMERA)
    ] = True,
    stall_timeout: Annotated[
        float, typer.Option(min=0.5, help="Seconds without a frame: lost.", rich_help_panel=CAMERA)
    ] = STALL_TIMEOUT_S,
    give_up_after: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds of being lost: failed. Never.", rich_help_panel=CAMERA)
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option(help="A line of JSON a frame; - is standard output.", rich_help_panel=OUTPUT)
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="A line of CSV a face.", rich_help_panel=OUTPUT)] = None,
    video: Annotated[
        Path | None, typer.Option(help="A video (.mp4, .mkv, .avi) with what was found.", rich_help_panel=OUTPUT)
    ] = None,
    rotate: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Begin files anew at this size (20M), keeping five.", rich_help_panel=OUTPUT),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only what fails, and the summary.", rich_help_panel=OUTPUT)
    ] = False,
    snapshots: Annotated[
        Path | None, typer.Option(help="Keep pictures of new verdicts here. Off.", rich_help_panel=SNAPSHOTS)
    ] = None,
    blur_snapshots: Annotated[
        bool, typer.Option("--blur-snapshots", help="Make faces unrecognizable.", rich_help_panel=SNAPSHOTS)
    ] = False,
    snapshot_days: Annotated[
        float, typer.Option(min=0.0, help="Days after which they are deleted.", rich_help_panel=SNAPSHOTS)
    ] = SNAPSHOT_DAYS,
    snapshot_space: Annotated[
        str, typer.Option(metavar="SIZE", help="Room that they may take.", rich_help_panel=SNAPSHOTS)
    ] = SNAPSHOT_SPACE,
) -> int:
    """Tell of every face whether it is real, fake or uncertain.

    Examples:
    - `edge-detect photo.jpg holiday/`
    - `edge-detect --camera 0 --jsonl faces.jsonl --rotate 20M`
    - `edge-detect interview.mp4 --video seen.mp4`
    - `edge-detect http://camera.local/mjpeg rtsp://door.local/stream`
    """
    _log_to_stderr()
    if list_cameras:
        return _print_cameras()
    if not inputs and not camera:
        raise UsageError("nothing to look at; give pictures, folders, videos or addresses, or --camera 0")
    from edge_runtime.detector import Detector
    from edge_runtime.pixels.quality import QualityLimits
    from edge_runtime.sources import SourceOptions, open_sources

    limits = QualityLimits(min_face=min_face)
    rotate_at = None if rotate is None else parse_size(rotate)
    space = parse_size(snapshot_space)
    detector = Detector(
        model, device=device.value, precision=precision.value, faces=faces.value, limits=limits, window=window
    )
    options = SourceOptions(width, height, fps, mjpg, watch, stall_timeout, give_up_after)
    sources = open_sources(inputs or [], options, cameras=camera or [])
    pipeline = detector.pipeline(sources)
    with contextlib.ExitStack() as stack:
        sinks = [
            *_line_sinks(jsonl, csv, rotate_at),
            *_picture_sinks(video, rotate_at, snapshots, blur_snapshots, snapshot_days, space),
            _terminal(detector, sources, to_stdout="-" in (str(jsonl), str(csv)), quiet=quiet),
        ]
        return _run(detector, pipeline, sources, [stack.enter_context(sink) for sink in sinks])


def _log_to_stderr() -> None:
    logger = logging.getLogger("edge_runtime")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def _print_cameras() -> int:
    from edge_runtime.sources.camera import CHECK, list_cameras

    cameras = list_cameras()
    for node, name in cameras:
        print(f"{node}  {name}")
    if not cameras:
        print(f"no cameras; {CHECK}")
    return 0


def _line_sinks(jsonl: Path | None, csv: Path | None, rotate_at: int | None) -> "list[Sink]":
    if jsonl is None and csv is None:
        return []
    from edge_runtime.sinks.lines import CsvSink, JsonlSink

    sinks: list[Sink] = []
    if jsonl is not None:
        sinks.append(JsonlSink(jsonl, rotate=rotate_at))
    if csv is not None:
        sinks.append(CsvSink(csv, rotate=rotate_at))
    return sinks


def _picture_sinks(
    video: Path | None, rotate_at: int | None, snapshots: Path | None, blur: bool, days: float, space: int
) -> "list[Sink]":
    sinks: list[Sink] = []
    if video is not None:
        from edge_runtime.sinks.video import VideoSink

        sinks.append(VideoSink(video, rotate_at=rotate_at))
    if snapshots is not None:
        from edge_runtime.sinks.snapshots import SnapshotSink

        sinks.append(SnapshotSink(snapshots, blur=blur, max_age_s=days * 86400.0, max_bytes=space))
    return sinks


def _terminal(detector: "Detector", sources: "list[Source]", *, to_stdout: bool, quiet: bool) -> "Sink":
    if sys.stdout.isatty() and not to_stdout and not quiet and not all(source.still for source in sources):
        from edge_runtime.sinks.live import LiveView

        return LiveView(title=_title(detector))
    from edge_runtime.sinks.terminal import PlainLines

    return PlainLines(sys.stderr if to_stdout else None, failures_only=quiet)


def _title(detector: "Detector") -> str:
    choice, contract = detector.choice, detector.bundle.contract
    return f"{contract.architecture} {contract.version}, {choice.precision.value} on {choice.device}"


def _run(detector: "Detector", pipeline: "Pipeline", sources: "list[Source]", sinks: "list[Sink]") -> int:
    from edge_runtime.run import run

    summary = run(pipeline, sinks, status=_title(detector))
    print(summary.text(), file=sys.stderr)
    if detector.notice:
        print(detector.notice, file=sys.stderr)
    return exit_code(summary, endless=any(source.endless for source in sources))


def exit_code(summary: "Summary", *, endless: bool) -> int:
    """Return 1 where something failed, 130 where a run that would have ended by itself was stopped, else 0."""
    if summary.failed or summary.lost:
        return 1
    return INTERRUPTED if summary.stopped and not endless else 0


def main() -> None:
    """Start the command."""
    # Not needed on a board, and half of the time that importing openvino takes; openvino goes on without it.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    run_command(edge_detect, "edge-detect")


if __name__ == "__main__":
    main()

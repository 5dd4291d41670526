"""The command `edge-detect`."""

import contextlib
import functools
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_runtime.command import INTERRUPTED, MODEL_HELP, Needs, run_command
from edge_runtime.defaults import (
    MIN_FACE_PX,
    REVIEW_DAYS,
    REVIEW_PER_DAY,
    REVIEW_PER_HOUR,
    REVIEW_SAMPLE,
    SNAPSHOT_DAYS,
    SNAPSHOT_SPACE,
    STALL_TIMEOUT_S,
    WINDOW,
)
from edge_runtime.errors import UsageError
from edge_runtime.printable import printable

if TYPE_CHECKING:
    from edge_runtime.model.bundle import Bundle
    from edge_runtime.run import Observer, Summary

_camera, _output, _snapshot, _review, _monitoring = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("Cameras and streams", "Output", "Snapshots", "Review", "Monitoring")
)

_needs_file, _needs_snapshots, _needs_review = (
    Needs(("jsonl", "csv", "video")),
    Needs(("snapshots",)),
    Needs(("review",)),
)

Device = Literal["AUTO", "CPU", "GPU"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]
Faces = Literal["auto", "off", "tiled"]


class _Notes(logging.Formatter):
    """Log messages, on one line each and without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 500K, 20M or 2G; raises UsageError if it is not one."""
    found = re.fullmatch(r"([1-9]\d{0,11})([KMG]?)B?", text.strip().upper())
    if not found:
        raise UsageError(f"{text!r} is not a size; give for example 500K, 20M or 2G")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def edge_detect(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders, globs, videos, http(s):// or rtsp:// cameras; - reads JPEGs from standard input.",
        ),
    ] = None,
    camera: Annotated[list[str] | None, _camera(help="Number or device file of a camera; can be repeated.")] = None,
    list_cameras: Annotated[bool, _camera("--list-cameras", help="List the cameras and exit.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help=MODEL_HELP),
    ] = None,
    device: Annotated[Device, typer.Option(help="Device that runs the network.")] = "AUTO",
    precision: Annotated[PrecisionChoice, typer.Option(help="Precision of the network.")] = "auto",
    tune: Annotated[
        bool,
        typer.Option("--tune/--no-tune", help="Measure device and precision at the first start."),
    ] = True,
    tune_again: Annotated[bool, typer.Option("--tune-again", help="Measure device and precision again.")] = False,
    faces: Annotated[
        Faces, typer.Option(help="off takes the whole picture as the face, tiled also finds small faces.")
    ] = "auto",
    min_face: Annotated[
        int, typer.Option(min=1, help="Smallest side of a found face in pixels; smaller ones are uncertain.")
    ] = MIN_FACE_PX,
    window: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of a face's last frames that its verdict uses.")
    ] = WINDOW,
    careful: Annotated[
        bool,
        typer.Option("--careful", help="No verdict where slight changes of a face change it; four times the work."),
    ] = False,
    always: Annotated[
        bool, _camera("--always", help="Search and judge every frame; by default only where it counts.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep watching folders for new pictures.")] = False,
    width: Annotated[int | None, _camera(min=1, help="Request this width.")] = None,
    height: Annotated[int | None, _camera(min=1, help="Request this height.")] = None,
    fps: Annotated[float | None, _camera(min=0.1, help="Request this rate.")] = None,
    mjpg: Annotated[bool, _camera("--mjpg/--no-mjpg", help="Request MJPG, which is faster.")] = True,
    stall_timeout: Annotated[
        float, _camera(min=0.5, help="A camera without a frame for this many seconds is lost.")
    ] = STALL_TIMEOUT_S,
    give_up_after: Annotated[
        float | None,
        _camera(min=0.0, help="Give up a camera that has been lost for this many seconds (default: keep trying)."),
    ] = None,
    jsonl: Annotated[Path | None, _output(help="Append one JSON line per frame; - is standard output.")] = None,
    csv: Annotated[Path | None, _output(help="Append one CSV line per face.")] = None,
    video: Annotated[Path | None, _output(help="Write a video (.mp4, .mkv, .avi) with the verdicts.")] = None,
    rotate: Annotated[
        str | None, _output(metavar="SIZE", help="Start a new file at this size (20M) and keep five."), _needs_file
    ] = None,
    by_folder: Annotated[bool, _output("--by-folder", help="Count the verdicts of each folder at the end.")] = False,
    quiet: Annotated[bool, _output("--quiet", "-q", help="Print only failures and the summary.")] = False,
    snapshots: Annotated[Path | None, _snapshot(help="Save a picture of each new verdict in this folder.")] = None,
    blur_snapshots: Annotated[
        bool, _snapshot("--blur-snapshots", help="Make faces unrecognizable."), _needs_snapshots
    ] = False,
    snapshot_days: Annotated[
        float, _snapshot(min=0.0, help="Delete snapshots after this many days."), _needs_snapshots
    ] = SNAPSHOT_DAYS,
    snapshot_space: Annotated[
        str, _snapshot(metavar="SIZE", help="Disk space that snapshots may take."), _needs_snapshots
    ] = SNAPSHOT_SPACE,
    review: Annotated[
        Path | None, _review(help="Keep uncertain and some other faces in this folder, for a person to review.")
    ] = None,
    review_purpose: Annotated[str, _review(help="Why they are kept; stored beside them."), _needs_review] = "",
    review_key: Annotated[
        list[str] | None,
        _review(help="Encrypt them for this public key of `edge-serve keygen`; can be repeated."),
        _needs_review,
    ] = None,
    review_unencrypted: Annotated[
        bool, _review("--review-unencrypted", help="Keep them without encryption, which needs no key."), _needs_review
    ] = False,
    review_days: Annotated[
        float, _review(min=0.0, help="Delete them after this many days."), _needs_review
    ] = REVIEW_DAYS,
    review_per_hour: Annotated[
        int, _review(min=1, help="Most faces kept in an hour."), _needs_review
    ] = REVIEW_PER_HOUR,
    review_per_day: Annotated[int, _review(min=1, help="Most faces kept in a day."), _needs_review] = REVIEW_PER_DAY,
    review_sample: Annotated[
        float,
        _review(min=0.0, max=1.0, help="Share of all faces that is kept whatever the verdict."),
        _needs_review,
    ] = REVIEW_SAMPLE,
    shadow: Annotated[
        Path | None, _monitoring(metavar="BUNDLE", help="Let a second detector judge the same faces in spare time.")
    ] = None,
    disagreements: Annotated[
        Path | None,
        _monitoring(help="Append one JSON line per face on which both differ (default: in the state folder)."),
        Needs(("shadow",), "the bundle of a second detector"),
    ] = None,
    monitor: Annotated[
        Path | None,
        _monitoring(
            metavar="DIR",
            envvar="DEEPFAKE_EDGE_MONITOR",
            help="Notice when faces drift from those the model knows; keep summaries in DIR.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        _monitoring(metavar="PORT", help="Serve metrics for Prometheus at this port of loopback, or ADDRESS:PORT."),
    ] = None,
) -> int:
    """Judge every face as real, fake or uncertain.

    Examples:
    - `edge-detect photo.jpg holiday/`
    - `edge-detect --camera 0 --jsonl faces.jsonl --rotate 20M`
    - `edge-detect interview.mp4 --video seen.mp4`
    - `edge-detect http://camera.local/mjpeg rtsp://door.local/stream`
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Notes("note: %(message)s"))
    logger = logging.getLogger("edge_runtime")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    if list_cameras:
        from edge_runtime.sources import camera as cameras

        print("\n".join(f"{node}  {name}" for node, name in cameras.list_cameras()) or f"no cameras; {cameras.CHECK}")
        return 0
    if not inputs and not camera:
        raise UsageError("no input; give pictures, folders, videos or addresses, or --camera 0")
    from edge_runtime.detector import Detector, renew
    from edge_runtime.judging.summary import FileVerdicts
    from edge_runtime.judging.summary_text import summary_text
    from edge_runtime.judging.tracking import TrackNumbers
    from edge_runtime.pixels.quality import QualityLimits
    from edge_runtime.run import run
    from edge_runtime.sinks.options import file_sinks, review_sink, shadow_sink, terminal_sink
    from edge_runtime.sources import SourceOptions, open_sources
    from edge_runtime.systemd import is_on_terminal, is_service, reloading_on_hangup

    rotate_at, space = None if rotate is None else parse_size(rotate), parse_size(snapshot_space)
    limits = QualityLimits(min_face=min_face)

    def load(*, again: bool = False) -> Detector:
        detector = Detector(
            model,
            device=device,
            precision=precision,
            faces=faces,
            limits=limits,
            window=window,
            careful=careful,
            always=always,
            safe_start=is_service(),
        )
        detector.tune(again=again, measure=tune)
        return detector

    detector = load(again=tune_again)
    options = SourceOptions(
        width=width,
        height=height,
        fps=fps,
        mjpg=mjpg,
        watch=watch,
        stall_timeout_s=stall_timeout,
        give_up_after_s=give_up_after,
    )
    sources = open_sources(inputs or [], options, cameras=camera or [])
    numbers = TrackNumbers()
    pipeline = detector.pipeline(sources, numbers)
    outputs = [path for path in (jsonl, csv, video, disagreements) if path is not None]
    folders = [path for path in (snapshots, review) if path is not None]
    if outputs or folders:
        from edge_runtime.sinks.places import check_places

        check_places(outputs, folders, sources, detector.bundle)
    advice = None if quiet else detector.advice(sources)
    kept = {"blur": blur_snapshots, "max_age_s": snapshot_days * 86400.0, "max_bytes": space}
    for_review = {
        "purpose": review_purpose,
        "public_keys": review_key or [],
        "days": review_days,
        "per_hour": review_per_hour,
        "per_day": review_per_day,
        "sample": review_sample,
    }
    reviewing = list(review_sink(review, for_review, unencrypted=review_unencrypted))
    shadowing = list(shadow_sink(shadow, disagreements, limits, reviewing))
    sinks = [
        *file_sinks(jsonl, csv, video, rotate_at, snapshots, kept),
        *reviewing,
        *shadowing,
        terminal_sink(detector.title, sources, to_stdout="-" in (str(jsonl), str(csv)), quiet=quiet),
    ]
    files = FileVerdicts(detector.bundle.contract, printable(detector.bundle.origin))

    def use(new: Detector) -> None:
        nonlocal detector
        pipeline.switch(*new.judges(sources, numbers))
        # Nothing else may hold the former one, so that the new one takes its memory.
        detector = new

    with contextlib.ExitStack() as stack:
        observers = _observers(detector.bundle, monitor, metrics, stack)
        if all(source.endless for source in sources) and not is_on_terminal():

            def renewed() -> None:
                bundle = renew(load, use)
                if bundle is not None:
                    for observer in observers:
                        observer.switch(bundle)

            stack.enter_context(reloading_on_hangup(renewed))
        opened = [stack.enter_context(sink) for sink in sinks]
        summary = run(pipeline, opened, files, lambda: detector.title, observers=observers)
    compared = (sink.text() for sink in shadowing)
    for line in (
        summary_text(files, by_folder=by_folder),
        summary.text(),
        f"detector: {printable(detector.bundle.origin)}",
        *compared,
        detector.notice,
        advice,
    ):
        if line:
            print(line, file=sys.stderr)
    return exit_code(summary, endless=any(source.endless for source in sources))


def _observers(
    bundle: "Bundle", folder: Path | None, address: str | None, stack: contextlib.ExitStack
) -> "list[Observer]":
    """Return what watches the results; what serves them over HTTP ends with `stack`."""
    observers: list[Observer] = []
    monitor = None
    if folder is not None:
        from edge_runtime.monitoring.monitor import Monitor
        from edge_runtime.paths import expand

        observers.append(monitor := Monitor(bundle, expand(folder)))
    if address is not None:
        from edge_runtime.monitoring.exporter import Exporter, parse_address
        from edge_runtime.monitoring.metrics import DetectMetrics

        observers.append(metrics := DetectMetrics(bundle, monitor))
        exporter = stack.enter_context(Exporter(parse_address(address), metrics.text))
        logging.getLogger("edge_runtime").info(f"metrics at port {exporter.port}, path /metrics")
    return observers


def exit_code(summary: "Summary", *, endless: bool) -> int:
    """Return 1 if something failed, 130 if a signal stopped a run that would have ended by itself, else 0."""
    if summary.failed or summary.lost:
        return 1
    return INTERRUPTED if summary.stopped and not endless else 0


def main() -> None:
    """Run the command."""
    # Not needed on a board, and half of openvino's import time; openvino works without it.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    run_command(edge_detect, "edge-detect")


if __name__ == "__main__":
    main()

"""The sinks that `edge-detect`'s options ask for. Each is imported only when used: importing takes most of a start."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import UsageError

if TYPE_CHECKING:
    from edge_runtime.pixels.quality import QualityLimits
    from edge_runtime.sinks import Sink
    from edge_runtime.sinks.review import ReviewSink
    from edge_runtime.sinks.shadow import ShadowSink
    from edge_runtime.sources import Source


def file_sinks(
    jsonl: Path | None,
    csv: Path | None,
    video: Path | None,
    rotate_at: int | None,
    snapshots: Path | None,
    kept: dict[str, Any],
) -> "Iterator[Sink]":
    """Yield the sinks that write files."""
    if jsonl is not None:
        from edge_runtime.sinks.lines import JsonlSink

        yield JsonlSink(jsonl, rotate_at=rotate_at)
    if csv is not None:
        from edge_runtime.sinks.lines import CsvSink

        yield CsvSink(csv, rotate_at=rotate_at)
    if video is not None:
        from edge_runtime.sinks.video import VideoSink

        yield VideoSink(video, rotate_at=rotate_at)
    if snapshots is not None:
        from edge_runtime.sinks.snapshots import SnapshotSink

        yield SnapshotSink(snapshots, **kept)


def review_sink(folder: Path | None, options: dict[str, Any], *, unencrypted: bool) -> "Iterator[ReviewSink]":
    """Yield the sink that keeps faces for review, if there is a folder for them."""
    if folder is None:
        return
    if not options["purpose"].strip():
        raise UsageError('--review needs a purpose; say why faces are kept, as in --review-purpose "better thresholds"')
    if bool(options["public_keys"]) == unencrypted:
        raise UsageError(
            "--review needs either --review-key with the public key of `edge-serve keygen FILE`, so that only its "
            "private key opens the faces, or --review-unencrypted"
        )
    from edge_runtime.sinks.review import ReviewSink

    yield ReviewSink(folder, **options)


def shadow_sink(
    bundle: Path | None, lines: Path | None, limits: "QualityLimits", reviewing: "list[ReviewSink]"
) -> "Iterator[ShadowSink]":
    """Yield the sink that lets a second detector judge, if there is one."""
    if bundle is None:
        return
    from edge_runtime.model.bundle import Bundle
    from edge_runtime.paths import expand, state_folder
    from edge_runtime.review.shadow import Shadow
    from edge_runtime.sinks.shadow import DISAGREEMENTS, ShadowSink

    if lines is None:
        lines = state_folder() / DISAGREEMENTS
        with contextlib.suppress(OSError):
            lines.parent.mkdir(parents=True, exist_ok=True)
    yield ShadowSink(lines, Shadow(Bundle.open(expand(bundle), trusted=True), limits=limits), *reviewing)


def terminal_sink(title: str, sources: "list[Source]", *, to_stdout: bool, quiet: bool) -> "Sink":
    """Return the live view for moving sources on a terminal, otherwise plain lines."""
    if sys.stdout.isatty() and not to_stdout and not quiet and not all(source.still for source in sources):
        from edge_runtime.sinks.live import LiveView

        return LiveView(title=title)
    from edge_runtime.sinks.terminal import PlainLines

    return PlainLines(sys.stderr if to_stdout else None, failures_only=quiet)

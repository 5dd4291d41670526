"""The command `compare-detectors`."""

import functools
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from edge_runtime.printable import printable

_field, _timing = (
    functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Reviewed disagreements", "Rate and memory")
)


def compare_detectors(
    old: Annotated[Path, typer.Argument(help="The detector in use: a bundle, or a checkpoint (.pth).")],
    new: Annotated[Path, typer.Argument(help="The one that may replace it.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="Faces that neither was trained on: a catalog.csv or folder; repeatable.")
    ] = None,
    disagreements: Annotated[
        list[Path] | None, _field(help="What edge-detect --shadow wrote with NEW on a board; repeatable.")
    ] = None,
    reviews: Annotated[Path | None, _field(help="The database with the reviews of those faces.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for comparison.html, .md and .json.")] = Path("comparison"),
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision to compare bundles in: fp32, fp16 or int8 (default: the smallest that both hold)."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=LOSS", help="How much worse auc, error, coverage, ece, rate or memory may get."),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")] = 1000,
    rounds: Annotated[int, _timing(min=1, help="Rounds, in which both are measured once.")] = 5,
    seconds: Annotated[float, _timing(min=0.05, help="Seconds per timing.")] = 2.0,
) -> int:
    """Decide whether a new detector may replace the old one. Exit code 0: promoted, 1: not.

    Both judge the same faces, and bundles as the board computes. Gates: AUC, error among the decided, coverage,
    calibration, rate capped to SSE4.2, and memory, over all faces and for each source.

    Examples:
    - `compare-detectors detector/ next/ --data prepared/ --data reviewed/`
    - `compare-detectors old.pth new.pth --data prepared/ --allow coverage=0.1`
    - `compare-detectors detector/ next/ --disagreements shadow.jsonl --reviews reviews.sqlite   # reviews alone`
    """
    if not data and not reviews:
        raise UsageError("nothing to compare on; give --data FACES, or --disagreements FILE and --reviews DB")
    if bool(disagreements) != bool(reviews):
        raise UsageError("--disagreements and --reviews go together: the faces on which both differ, and their truth")
    try:
        from benchmarks.promotion import promotion
        from benchmarks.promotion.gates import parse_allowed
        from benchmarks.promotion.report import answer, write_comparison
        from train.commands.output import full_disk_reported, output_folder
    except ModuleNotFoundError as error:
        raise UsageError(f"compare-detectors needs {error.name}; in the clone: pip install '.[benchmarks]'") from None
    allowed, folder = parse_allowed(allow or ()), output_folder(out)
    found = promotion.compare_detectors(
        old,
        new,
        data or (),
        disagreements=disagreements or (),
        reviews=reviews,
        allowed=allowed,
        precision=precision,
        bootstrap=bootstrap,
        rounds=rounds,
        seconds=seconds,
        command=shlex.join(["compare-detectors", *sys.argv[1:]]),
    )
    with full_disk_reported(folder):
        page = write_comparison(found, folder)
    print(printable(answer(found)))
    for line in (*found.notes, f"report: {page}"):
        print(printable(line), file=sys.stderr)
    return 0 if found.promoted else 1


def main() -> NoReturn:
    """Start `compare-detectors`."""
    run_command(compare_detectors, "compare-detectors")


if __name__ == "__main__":
    main()

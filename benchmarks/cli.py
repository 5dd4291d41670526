"""`edge-benchmark`: which precision, device and backbone to use on this machine, and what it costs in accuracy."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from benchmarks.options import Options
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from edge_runtime.printable import printable


@contextmanager
def _name_missing_extra() -> Iterator[None]:
    """Turn a missing package into one line that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"edge-benchmark needs {error.name}; in the clone: pip install '.[benchmarks]'") from None


@functools.wraps(Options, assigned=("__annotations__",), updated=())
def benchmark(**options: Any) -> int:
    """Measure bundles on this machine: speed, latency, memory and accuracy by precision and device.

    Examples:
    - `edge-benchmark --model detector --data faces --out report   # find the best precision for this machine`
    - `edge-benchmark --model a --model b --data faces --out report   # compare backbones`
    - `edge-benchmark --data faces --out report --isa native --isa sse42   # also measure as a CPU without AVX computes`
    - `edge-benchmark --tune --data faces --out report   # find the best setting and save it for edge-detect`
    - `edge-benchmark --data faces --out report --minutes 30   # then run the best case for half an hour`
    - `edge-benchmark frontier a b --data faces --out report   # compare networks: AUC against the rate without AVX`
    - `edge-benchmark compare A.json B.json   # what got faster or slower; exit code 1 if anything got worse`
    """
    with _name_missing_extra():
        from benchmarks.measure.session import run_session
    return run_session(Options(**options))


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A report.json, or the folder that holds it.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The report to compare with A.")],
) -> int:
    """Show what got faster, slower, larger or less accurate from report A to B, beyond the noise.

    Exit code 1 if anything got worse or no longer runs, so it can be used in CI. Both reports must be from one machine
    and have at least 3 rounds.

    Examples:
    - `edge-benchmark compare A/report.json B/report.json`
    """
    with _name_missing_extra():
        from benchmarks.results import compare as comparing
        from benchmarks.results.schema import Report

    found = comparing.compare(Report.read(before), Report.read(after))
    for line in comparing.lines(found):
        print(printable(line))
    return 1 if found.worse else 0


def frontier(
    models: Annotated[list[Path], typer.Argument(metavar="BUNDLE", help="Bundles with an INT8 network.")],
    data: Annotated[list[Path], typer.Option(help="Labelled faces: catalog.csv or folder; several: a column each.")],
    out: Annotated[Path, typer.Option(help="Folder for frontier.html, .md, .png and report.json.")],
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds, in which each network is measured once.")
    ] = Options.rounds,
    seconds: Annotated[float, typer.Option(min=0.05, help="Seconds per timing.")] = Options.seconds,
    pictures: Annotated[int | None, typer.Option(min=2, help="Faces for accuracy (default: the test split).")] = None,
) -> int:
    """Compare networks that were trained already: AUC against the rate of INT8 on a CPU without AVX.

    All are measured in one interleaved run, capped to SSE4.2. If ResNet-50 at 224 pixels is among them, the table
    estimates what each would reach on an N5105, from published rates.

    Examples:
    - `edge-benchmark frontier runs/a/detector runs/b/detector --data faces --out report`
    """
    with _name_missing_extra():
        from benchmarks.frontier import measure_frontier, write_frontier
        from benchmarks.measure.session import step_bar
        from train.commands.output import output_folder

    folder = output_folder(out)
    options = Options(data[0], folder, models, isa=["sse42"], rounds=rounds, seconds=seconds, pictures=pictures)
    with step_bar() as advance:
        report, points = measure_frontier(data, options, advance)
    for line in write_frontier(report, points, folder):
        print(printable(line))
    return 0


def main() -> NoReturn:
    """Start `edge-benchmark`."""
    run_command(benchmark, "edge-benchmark", subcommands=[compare, frontier])


if __name__ == "__main__":
    main()

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

    - `edge-benchmark --model detector --data faces --out report` finds the best precision for this machine

    - `edge-benchmark --model a --model b --data faces --out report` compares backbones

    - `edge-benchmark … --isa native --isa sse42` also measures as a CPU without AVX computes

    - `edge-benchmark --tune --data faces --out report` finds the best setting and saves it for edge-detect

    - `edge-benchmark … --minutes 30` then runs the best case for half an hour and plots FPS and clock

    - `edge-benchmark compare A.json B.json` shows what got faster or slower; exit code 1 if anything got worse
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
    """
    with _name_missing_extra():
        from benchmarks.results import compare as comparing
        from benchmarks.results.schema import Report

    found = comparing.compare(Report.read(before), Report.read(after))
    for line in comparing.lines(found):
        print(printable(line))
    return 1 if found.worse else 0


def main() -> NoReturn:
    """Start `edge-benchmark`."""
    run_command(benchmark, "edge-benchmark", subcommands=[compare])


if __name__ == "__main__":
    main()

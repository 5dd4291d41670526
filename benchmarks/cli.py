"""`edge-benchmark`: which precision, which device and which backbone, on this machine, and what it costs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from benchmarks.measure.cases import MAX_AUC_LOSS
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError


@contextmanager
def _extra_wanted() -> Iterator[None]:
    """Turn a package that is missing into one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"edge-benchmark needs {error.name}; in the clone: pip install '.[benchmarks]'") from None


def benchmark(
    data: Annotated[Path, typer.Option(help="Labelled faces: catalog.csv, or a folder with real/ and fake/.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md, report.json and plots.")],
    model: Annotated[list[Path] | None, typer.Option(help="A bundle; several to compare backbones.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="The .pth that a bundle was made from, for PyTorch's rows.")
    ] = None,
    isa: Annotated[
        list[str] | None, typer.Option(help="native, avx2 or sse42: cap each measurement to it; several to compare.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is measured, A B A B …")] = 5,
    seconds: Annotated[float, typer.Option(min=0.05, help="How long one figure of one round is measured.")] = 2.0,
    frames: Annotated[
        int, typer.Option(min=1, help="At most so many frames a figure: few, for a very slow machine.")
    ] = 1_000_000,
    pictures: Annotated[
        int | None, typer.Option(min=2, help="Faces for accuracy; all of the test split if not said.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Find the best setting and make it edge-detect's.")] = False,
    target_fps: Annotated[float | None, typer.Option(min=0.1, help="With --tune: as fast as that is enough.")] = None,
    max_auc_loss: Annotated[
        float, typer.Option(min=0.0, help="AUC that may be lost against FP32 in what is recommended.")
    ] = MAX_AUC_LOSS,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Then run the best without a pause; with --tune, the time it has.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Measure PyTorch, ONNX Runtime and benchmark_app too.")] = True,
    delay: Annotated[
        float, typer.Option(min=0.0, max=10.0, hidden=True, help="Slow every frame by this share of its own time.")
    ] = 0.0,
) -> int:
    """Measure bundles on this machine: speed, latency, memory and accuracy by precision and device.

    - `edge-benchmark --model detector --data faces --out report` answers which precision to take here

    - `edge-benchmark --model a --model b --data faces --out report` compares backbones

    - `edge-benchmark … --isa native --isa sse42` adds the figures of a CPU without AVX

    - `edge-benchmark --tune --data faces --out report` finds the best setting and makes it edge-detect's

    - `edge-benchmark … --minutes 30` then runs the best for half an hour and shows FPS and clock over time

    - `edge-benchmark compare A.json B.json` tells what got faster or slower beyond the noise; exit 1 if slower
    """
    with _extra_wanted():
        from benchmarks.measure.plan import Request, session

    request = Request(
        data=data,
        out=out.expanduser(),
        models=tuple(model or ()),
        checkpoints=tuple(checkpoint or ()),
        isas=tuple(isa or ("native",)),
        rounds=rounds,
        seconds=seconds,
        frames=frames,
        pictures=pictures,
        tune=tune,
        target_fps=target_fps,
        max_auc_loss=max_auc_loss,
        minutes=minutes,
        baselines=baselines,
        delay=delay,
    )
    return session(request)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A report.json, or the folder with one.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The one to hold against it.")],
) -> int:
    """Tell what got faster, slower, bigger or less accurate from report A to B, beyond the noise.

    Exit code 1 where something got worse or runs no longer: usable in CI. Both reports must be of one
    machine, with 3 rounds or more.
    """
    with _extra_wanted():
        from benchmarks.results import compare as comparing
        from benchmarks.results.schema import Report

    found = comparing.compare(Report.read(before), Report.read(after))
    for line in comparing.lines(found):
        print(line)
    return 1 if found.worse else 0


def main() -> NoReturn:
    """Start `edge-benchmark`, or `edge-benchmark compare`."""
    if sys.argv[1:2] == ["compare"]:
        del sys.argv[1]
        run_command(compare, "edge-benchmark compare")
    run_command(benchmark, "edge-benchmark")


if __name__ == "__main__":
    main()

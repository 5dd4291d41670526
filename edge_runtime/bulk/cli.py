"""The command `judge-pictures`."""

import functools
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edge_runtime.command import MODEL_HELP, run_command
from edge_runtime.defaults import MIN_FACE_PX
from edge_runtime.errors import DeviceError, UsageError
from edge_runtime.plain_json import plain
from edge_runtime.printable import printable

if TYPE_CHECKING:
    from edge_runtime.bulk.engines import WorkerPool
    from edge_runtime.bulk.parts import Job, PictureList
    from edge_runtime.bulk.rows import Counts

EngineName = Literal["local", "ray"]

FAILURES_SHOWN = 5

FOOTERS_AT_ONCE = 16


_output, _parts = (functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Output", "Parts and workers"))


def judge_pictures(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Folders, lists (.txt), tar shards, Parquet files, pictures; as paths, s3://, gs:// or https://.",
        ),
    ],
    out: Annotated[str | None, typer.Option(help="Folder or s3:// or gs:// prefix for the Parquet files.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help=MODEL_HELP),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Parquet column with bytes, paths or addresses.")] = None,
    part_size: Annotated[int, _parts(min=1, help="Pictures per part.")] = 10_000,
    part: Annotated[
        str | None, _parts(metavar="K/N", help="Judge only the K-th of N shares, for Slurm and the like.")
    ] = None,
    engine: Annotated[EngineName, _parts(help="What runs the workers.")] = "local",
    ray_address: Annotated[
        str | None, _parts(help="A running Ray cluster (default: $RAY_ADDRESS, or start one here).")
    ] = None,
    workers: Annotated[
        int | None, _parts(min=1, help="Worker processes (default: one for each --threads cores).")
    ] = None,
    threads: Annotated[int, _parts(min=1, help="Threads of the network in each worker.")] = 1,
    device: Annotated[Literal["AUTO", "CPU", "GPU"], typer.Option(help="Device that runs the network.")] = "AUTO",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Precision of the network.")
    ] = "auto",
    faces: Annotated[
        Literal["auto", "off", "tiled"],
        typer.Option(help="off takes the whole picture as the face, tiled also finds small faces."),
    ] = "auto",
    min_face: Annotated[
        int, typer.Option(min=1, help="Smallest side of a found face in pixels; smaller ones are uncertain.")
    ] = MIN_FACE_PX,
    careful: Annotated[
        bool,
        typer.Option("--careful", help="No verdict where slight changes of a face change it; four times the work."),
    ] = False,
    write_list: Annotated[
        Path | None, _output(help="Only write the list of all pictures, an input for later runs, and exit.")
    ] = None,
    json_summary: Annotated[
        bool, _output("--json-summary", help="Print the summary as JSON on standard output.")
    ] = False,
    quiet: Annotated[bool, _output("--quiet", "-q", help="Print only errors and the summary.")] = False,
) -> int:
    """Judge millions of pictures in parts; the same command again continues where it was stopped.

    Examples:
    - `judge-pictures faces/ --out verdicts/`
    - `judge-pictures shards/{000..127}.tar --out s3://bucket/verdicts --engine ray`
    - `judge-pictures all.txt --out verdicts/ --part 3/64   # the third of 64 jobs`
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError("judge-pictures needs pyarrow; run pip install pyarrow fsspec aiohttp") from None
    from edge_runtime.bulk.listing import entries_of
    from edge_runtime.bulk.parts import Job, PictureList, Settings
    from edge_runtime.bulk.storage import absolute, prepare_folder
    from edge_runtime.model.bundle import find_bundle

    began = time.monotonic()
    if write_list is not None:
        _write_list(PictureList(entries_of(inputs, column), part_size), write_list)
        return 0
    if out is None:
        raise UsageError("no output; give --out FOLDER")
    if ray_address is not None and engine != "ray":
        raise UsageError("--ray-address needs --engine ray")
    out = absolute(out).rstrip("/")
    share = parse_share(part)
    for given in inputs:
        inside = absolute(given).rstrip("/")
        if out == inside or out.startswith(f"{inside}/"):
            raise UsageError(f"{out}: is in the input {given} and would be judged; choose another folder for --out")
    bundle = find_bundle(model)
    settings = Settings(device=device, precision=precision, faces=faces, min_face=min_face, careful=careful)
    job = Job.of(bundle, settings, threads=threads, out=out)
    prepare_folder(out)
    pictures = PictureList(entries_of(inputs, column), part_size, None if "://" in out else out, share)
    if not pictures.listed:
        raise UsageError(f"{inputs[0]}: no pictures in it; check the name")
    if not quiet:
        print(f"{pictures.pictures:,} pictures in {len(pictures.pieces):,} parts", file=sys.stderr, flush=True)
    tally = _run(job, pictures, lambda: _worker_pool(engine, workers, threads, ray_address), quiet=quiet)
    tally["seconds"] = round(time.monotonic() - began, 3)
    tally |= {"out": out, "model": job.model, "model_sha256": job.model_sha256, "detector": printable(bundle.origin)}
    _print_summary(tally, as_json=json_summary)
    return 1 if tally["parts"]["failed"] else 0


def parse_share(text: str | None) -> tuple[int, int]:
    """Return K - 1 and N of a share K/N; (0, 1), everything, for None. Raises UsageError if it is not one."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text or "1/1")
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"{text!r} is not a share; give for example --part 1/8 to --part 8/8")
    return int(found[1]) - 1, int(found[2])


def _worker_pool(name: EngineName, workers: int | None, threads: int, ray_address: str | None) -> "WorkerPool":
    if name == "ray":
        from edge_runtime.bulk.ray_engine import RayActors

        return RayActors(workers, ray_address)
    from edge_runtime.bulk.engines import Processes

    return Processes(workers or max(1, len(os.sched_getaffinity(0)) // threads))


def _run(job: "Job", pictures: "PictureList", engine: Any, *, quiet: bool) -> dict[str, Any]:
    """Judge the parts that are not done; return what the summary says."""
    from edge_runtime.bulk.progress import shown
    from edge_runtime.bulk.rows import Counts

    total, fresh, failures = Counts(), 0, list[str]()
    todo = _done_before(job, pictures, total)
    before = len(pictures.pieces) - len(todo)
    done, began = before, time.monotonic()
    remaining = sum(pictures.pieces[number].pictures for number in todo)
    with shown(len(pictures.pieces), quiet=quiet) as show:
        show(done, total, fresh, remaining)
        for outcome in engine().run(job, pictures, todo) if todo else ():
            remaining -= pictures.pieces[outcome.number].pictures
            if outcome.fatal:
                raise DeviceError(outcome.error)
            if outcome.counts is None:
                failures.append(str(outcome.error))
            else:
                done += 1
                fresh += outcome.counts.pictures
                total.add(outcome.counts)
            show(done, total, fresh, remaining)
    for failure in failures[:FAILURES_SHOWN]:
        print(f"a part failed: {printable(failure)}", file=sys.stderr)
    seconds = time.monotonic() - began
    return {
        **plain(total),
        "parts": {"total": len(pictures.pieces), "done_before": before, "done": done - before, "failed": len(failures)},
        "pictures_per_second": round(fresh / seconds, 2) if fresh else None,
    }


def _done_before(job: "Job", pictures: "PictureList", total: "Counts") -> list[int]:
    """Add the counts of finished parts to `total`; return the numbers of the others."""
    from edge_runtime.bulk.parts import done_counts
    from edge_runtime.bulk.storage import names_below

    there = names_below(job.out)
    names = [job.file_name(piece.sha256) for piece in pictures.pieces]
    candidates = [number for number, name in enumerate(names) if name in there]
    todo = {number for number, name in enumerate(names) if name not in there}
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        pieces = [pictures.pieces[number] for number in candidates]
        found = pool.map(lambda piece: done_counts(job, piece.sha256, piece.pictures), pieces)
        for number, counts in zip(candidates, found, strict=True):
            if counts is None:
                todo.add(number)
            else:
                total.add(counts)
    return sorted(todo)


def _write_list(pictures: "PictureList", path: Path) -> None:
    from edge_runtime.atomic import atomic_write

    try:
        with atomic_write(path, "wb") as file:
            for block in pictures.lines():
                file.write(block)
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror}); choose another file") from None
    print(f"{path}: {pictures.pictures:,} pictures", file=sys.stderr)


def _print_summary(tally: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tally))
        return
    parts, unreadable = tally["parts"], sum(tally["unreadable"].values())
    verdicts = ", ".join(f"{tally['verdicts'].get(name, 0):,} {name}" for name in ("real", "fake", "uncertain"))
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in tally["unreadable"].items())
    rate = f", {tally['pictures_per_second']:,} pictures/s" if tally["pictures_per_second"] else ""
    print(f"{tally['pictures']:,} pictures: {tally['faces']:,} faces ({verdicts}), {tally['without_face']:,} with none")
    print(f"unreadable: {unreadable:,}" + (f" ({kinds})" if kinds else ""))
    print(
        f"parts: {parts['done']:,} judged now, {parts['done_before']:,} before, {parts['failed']:,} failed of "
        f"{parts['total']:,}, in {tally['seconds']:.1f} s{rate}"
    )
    print(
        f"{tally['out']}: model {tally['model']}, SHA-256 {tally['model_sha256'][:16]}…; detector: {tally['detector']}"
    )
    if parts["failed"]:
        print("run the same command again; it continues", file=sys.stderr)


def main() -> None:
    """Run the command."""
    run_command(judge_pictures, "judge-pictures")


if __name__ == "__main__":
    main()

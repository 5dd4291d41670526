"""Simulates a year: generators change twice, and each time the next model has to earn its place.

    python -m benchmarks.year --real ffhq/ --fake stylegan=stylegan/ --fake progan=progan/ --fake sdxl=sdxl/

The first model learns from faces of the first generator. Then faces pass the door, none of them twice. The board judges
and monitors them; after drift, a number of faces are reviewed, a model is trained from them, compared with the old one,
run in shadow and rolled out. Writes year.png, year.md and year.csv.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results.plots import png
from benchmarks.year.curve import alarms, as_csv, plot, table
from benchmarks.year.faces import Plan, find_faces
from benchmarks.year.loop import Targets
from benchmarks.year.models import Making
from benchmarks.year.year import live_year
from edge_runtime.atomic import write_atomic
from edge_runtime.command import run_command
from train.commands.output import output_folder

ALLOWED = {"auc": 0.05, "error": 0.05, "ece": 0.05, "coverage": 0.25, "rate": 0.5, "memory": 0.5}
"""Beyond the usual: a few hundred test faces can't prove less, a model that knows the new fakes may be uncertain more
often, and the networks are of one kind, so that rate and memory differ only by what else the machine does."""


def year(
    real: Annotated[list[Path], typer.Option(help="A folder of real faces; repeatable.")],
    fake: Annotated[list[str], typer.Option(help="Fakes as GENERATOR=FOLDER, in the order of their appearance.")],
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("year"),
    arch: Annotated[str, typer.Option(help="The backbone.")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="The first model's: imagenet, none, or a file.")] = "imagenet",
    input_size: Annotated[int, typer.Option(min=32, help="Pixels a side of the network's input.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Of the first model.")] = 6,
    next_epochs: Annotated[int, typer.Option(min=1, help="Of each model that follows.")] = 6,
    next_lr: Annotated[float, typer.Option(min=0.0, help="Their highest learning rate.")] = 3e-4,
    base: Annotated[int, typer.Option(min=20, help="Faces of each class for the first model.")] = Plan.base,
    weeks: Annotated[int, typer.Option(min=2, help="Weeks of the year.")] = Plan.weeks,
    a_week: Annotated[int, typer.Option(min=2, help="Faces a week.")] = Plan.a_week,
    fakes: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of fakes among them.")] = Plan.fakes,
    side: Annotated[int, typer.Option(min=32, help="Pixels a side of the camera's picture.")] = Plan.side,
    reviewed: Annotated[int, typer.Option(min=10, help="Faces to review after drift.")] = 200,
    max_error: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of reals called fake, and of fakes called real, to allow.")
    ] = 0.05,
    limit: Annotated[float, typer.Option(min=0.0, max=1.0, help="Error among the decided to hold.")] = Targets.error,
    coverage: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of decided faces to hold.")
    ] = Targets.coverage,
    seed: Annotated[int, typer.Option(help="Of the draws of faces.")] = Plan.seed,
) -> int:
    """Simulate a year, and plot it."""
    began, folder = os.times(), output_folder(out)
    plan = Plan(base=base, weeks=weeks, a_week=a_week, fakes=fakes, side=side, seed=seed)
    making = Making()
    changes = {"input_size": input_size, "progressive": ((1.0, input_size),)}
    making = replace(
        making,
        training=replace(making.training, arch=arch, max_fpr=max_error, max_fnr=max_error),
        first={**changes, "weights": weights, "epochs": epochs},
        later={**changes, "epochs": next_epochs, "learning_rate": next_lr},
        allowed={**making.allowed, **ALLOWED},
    )
    targets = Targets(error=limit, coverage=coverage, reviewed=reviewed)
    found = live_year(find_faces(real, fake), folder, plan, making, targets)
    happened = [f"- {event.faces / a_week:.1f}: {event.kind.value} {event.text}".rstrip() for event in found.events]
    lines = [*table(found.rows, found.events), "", *alarms(found.rows, found.events), "", "Weeks:", "", *happened]
    write_atomic(folder / "year.csv", as_csv(found.rows))
    write_atomic(folder / "year.md", "\n".join(lines) + "\n")
    write_atomic(folder / "year.png", png(plot(found.rows, found.events, limit)))
    ended = os.times()
    core_s = sum(now - before for now, before in zip(ended[:4], began[:4], strict=True))
    print("\n".join([*lines, "", f"{ended.elapsed - began.elapsed:.0f} s, {core_s:.0f} s of core time"]))
    return 0


if __name__ == "__main__":
    run_command(year, "python -m benchmarks.year")

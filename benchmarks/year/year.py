"""A simulated year, from the first model to the last face."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.year.board import Board
from benchmarks.year.curve import Row
from benchmarks.year.faces import Passer, Plan, make_year
from benchmarks.year.loop import Event, EventKind, Operator, Targets
from benchmarks.year.models import Making, Models
from benchmarks.year.own import check_own
from edge_runtime.detector import Detector
from edge_runtime.review.sealing import write_key_pair

BASE, DOOR, MODELS, BOARD, KEY = "faces/base", "faces", "models", "board", "models/reviewer.key"


@dataclass(frozen=True)
class Year:
    """A row for each face, and what happened."""

    rows: Sequence[Row]
    events: Sequence[Event]


def live_year(faces: Mapping[str, Sequence[Path]], folder: Path, plan: Plan, making: Making, targets: Targets) -> Year:
    """Simulate a year in `folder`.

    Run again there, it repeats the year but reuses the first model.

    Args:
        faces: real ones as "", and those of each generator in the order in which they appear.
        folder: gets pictures, models, and what lies on the board.
        plan: of the faces.
        making: of the models.
        targets: of the operator.

    Raises:
        EdgeError: there are too few faces, a model can't be made, or a folder in `folder` would have to be emptied that
            is not the year's own or holds some of `faces`.
    """
    # Before the first of them is emptied.
    check_own((folder / MODELS, folder / BOARD), itertools.chain.from_iterable(faces.values()))
    passers = make_year(faces, plan, folder / DOOR)
    models = Models(folder / MODELS, making)
    models.make_first(folder / BASE)
    key = folder / KEY
    key.unlink(missing_ok=True)
    board = Board(folder / BOARD, models.bundle(1), passers, write_key_pair(key))
    operator = Operator(board, models, passers, key, targets)
    first = Detector(models.bundle(1), device="CPU", faces="off", threads=1)
    rows: list[Row] = []
    for judged in board.results():
        passer, verdict = passers[judged.result.frame], judged.result.faces[0].verdict
        renewed = judged.result.model != first.bundle.contract.version
        rows.append(
            Row(
                week=passer.week,
                generator=passer.generator,
                verdict=verdict,
                first_verdict=first.detect(passer.path).faces[0].verdict if renewed else verdict,
                state=board.monitor.alarm.state,
                model=judged.result.model,
            )
        )
        operator.after(len(rows))
    events = [*changes(passers), *operator.events]
    return Year(rows, sorted(events, key=lambda event: event.faces))


def changes(passers: Sequence[Passer]) -> list[Event]:
    """Return when the generator changes, which the operator is not told."""
    first = {passer.week: number for number, passer in reversed(list(enumerate(passers)))}
    names = {passer.week: passer.generator for passer in passers if passer.fake}
    pairs = itertools.pairwise(names)
    return [Event(first[week], EventKind.CHANGE, names[week]) for before, week in pairs if names[week] != names[before]]

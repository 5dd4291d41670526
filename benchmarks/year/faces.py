"""The faces of a simulated year: whose they are, when they pass the door, and what its camera makes of them."""

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from benchmarks.year.own import own_folder
from edge_runtime.errors import UsageError
from edge_runtime.paths import expand
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.pixels.pictures import read_picture

START = datetime(2100, 1, 1, tzinfo=timezone.utc)
"""In the future, since kept faces whose time is over are deleted by the real clock."""

QUALITIES = (90, 95)
"""JPEG qualities of the door's camera, drawn evenly."""


@dataclass(frozen=True)
class Plan:
    """How many faces there are, and when.

    Attributes:
        base: faces of each class that the first model is made from; fakes are of the first generator.
        weeks: length of the year; each generator has an equal part of it.
        a_week: faces that pass in a week.
        fakes: share of fakes among them, in (0, 1).
        side: pixels a side of the camera's picture of a face.
        seed: of all draws.
    """

    base: int = 1200
    weeks: int = 52
    a_week: int = 40
    fakes: float = 0.4
    side: int = 144
    seed: int = 0


@dataclass(frozen=True)
class Passer:
    """A face that passes the door.

    Attributes:
        path: the camera's picture of it.
        generator: what made it; empty for a real face.
        week: counts from 0.
        time: when it passes.
    """

    path: Path
    generator: str
    week: int
    time: datetime

    @property
    def fake(self) -> bool:
        """Whether it is a fake."""
        return bool(self.generator)


def find_faces(real: Sequence[Path], fake: Sequence[str]) -> dict[str, list[Path]]:
    """Return the pictures of each generator in the order of `fake`, texts NAME=FOLDER, and of real faces as "".

    A picture counts once, even if several folders hold it.

    Raises:
        UsageError: a text has another form, there are not at least two generators, or a folder holds no pictures.
    """
    named = [("", folder) for folder in real]
    for text in fake:
        name, separator, place = text.partition("=")
        if not name or not separator:
            raise UsageError(f"--fake {text}: give NAME=FOLDER, as in progan=faces/fake/progan")
        named.append((name, Path(place)))
    found: dict[str, list[Path]] = {"": []}
    seen: set[str] = set()
    for name, folder in named:
        paths = sorted(path for path in expand(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise UsageError(f"{folder}: holds no pictures; give a folder of faces")
        for path in paths:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                found.setdefault(name, []).append(path)
    if len(found) < 3 or not found[""]:
        raise UsageError(
            "a year needs real faces and two generators at least; give --real DIR --fake A=DIR --fake B=DIR"
        )
    return found


def make_year(faces: Mapping[str, Sequence[Path]], plan: Plan, folder: Path) -> list[Passer]:
    """Write the camera's picture of every face into `folder`, emptied at first; return who passes the door, in order.

    `folder`/base/real and base/fake get the faces of the first model; none of them passes the door, and nobody passes
    twice.

    Raises:
        UsageError: there are too few faces for the plan, or the folder is not the year's own to empty.
    """
    own_folder(folder, itertools.chain.from_iterable(faces.values()))
    rng = random.Random(plan.seed)
    pools = {name: rng.sample(list(paths), len(paths)) for name, paths in faces.items()}
    generators = [name for name in faces if name]
    for name, kind in (("", "real"), (generators[0], "fake")):
        for number, face in enumerate(_taken(pools, name, plan.base)):
            photograph(face, folder / "base" / kind / f"{number:05}.jpg", plan)
    year = []
    fakes = round(plan.fakes * plan.a_week)
    for week in range(plan.weeks):
        generator = generators[week * len(generators) // plan.weeks]
        passing = [("", path) for path in _taken(pools, "", plan.a_week - fakes)]
        passing += [(generator, path) for path in _taken(pools, generator, fakes)]
        rng.shuffle(passing)
        for number, (name, path) in enumerate(passing):
            place = folder / "door" / f"{week:02}-{number:04}.jpg"
            photograph(path, place, plan)
            time = START + timedelta(weeks=week + (number + 0.5) / plan.a_week)
            year.append(Passer(place, name, week, time))
    return year


def _taken(pools: Mapping[str, list[Path]], name: str, count: int) -> list[Path]:
    pool = pools[name]
    if len(pool) < count:
        raise UsageError(f"too few {name or 'real'} faces for the year; give more, or a smaller --base or --a-week")
    taken = pool[:count]
    del pool[:count]
    return taken


def photograph(path: Path, place: Path, plan: Plan) -> None:
    """Write what the door's camera makes of a face: the middle of its picture, unscaled, as one kind of JPEG.

    Raises:
        UsageError: the picture is too small.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    picture, side = read_picture(path), plan.side
    if min(picture.size) < side:
        raise UsageError(f"{path}: smaller than {side} pixels; leave it out, or give a smaller --side")
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    quality = random.Random(f"{plan.seed} {place.name}").randint(*QUALITIES)
    picture.crop((left, top, left + side, top + side)).save(place, quality=quality, subsampling=2)

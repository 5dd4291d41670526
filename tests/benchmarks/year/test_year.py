"""A year of drawn faces, whose generators leave different gratings, with a tiny network."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import tiny_registered
from PIL import Image

from benchmarks.year.curve import shares
from benchmarks.year.faces import START, Plan, find_faces
from benchmarks.year.loop import EventKind, Targets
from benchmarks.year.models import Making
from benchmarks.year.year import BOARD, Year, live_year
from edge_runtime.review.database import ReviewDatabase, ReviewLabel
from edge_runtime.review.desk import DATABASE

SIDE = 40
PLAN = Plan(base=300, weeks=8, a_week=150, fakes=0.5, side=SIDE)
WAVES = {"": (0, 0), "vertical": (24, 0), "horizontal": (0, 18)}
"""Grey levels of the gratings, across and down."""


def drawn(seed: int, wave: tuple[int, int]) -> Image.Image:
    """Return noise in patches with gratings of period 3."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 190, (5, 5, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    places = np.mgrid[:SIDE, :SIDE][::-1]
    grating = sum(height * np.sin(2 * np.pi * place / 3) for height, place in zip(wave, places, strict=True))
    pixels = np.asarray(coarse) + np.asarray(grating)[..., None] + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Year, Path]]:
    """The year, and its folder."""
    folder = tmp_path_factory.mktemp("year")
    counts = {"": PLAN.base + 600, "vertical": PLAN.base + 300, "horizontal": 300}
    seed = 0
    for name, wave in WAVES.items():
        for _ in range(counts[name]):
            place = folder / "drawn" / (name or "real") / f"{seed:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            drawn(seed, wave).save(place)
            seed += 1
    fakes = [f"{name}={folder / 'drawn' / name}" for name in WAVES if name]
    making = Making()
    changes = {"progressive": ((1.0, 32),), "input_size": 32, "chances": {}, "learning_rate": 1e-2}
    making = replace(
        making,
        training=replace(making.training, arch="tiny", max_fpr=0.05, max_fnr=0.05),
        first={**changes, "epochs": 12},
        later={**changes, "epochs": 24},
        allowed={**making.allowed, "auc": 0.1, "error": 0.2, "coverage": 0.9, "rate": 0.9, "memory": 0.9},
        rounds=1,
        seconds=0.2,
    )
    pools = find_faces([folder / "drawn" / "real"], fakes)
    with tiny_registered():
        yield live_year(pools, folder / "run", PLAN, making, Targets(reviewed=120)), folder / "run"


LOOP = (
    EventKind.CHANGE,
    EventKind.DRIFT,
    EventKind.REVIEWED,
    EventKind.TRAINED,
    EventKind.PROMOTED,
    EventKind.SHADOW,
    EventKind.ROLLED_OUT,
)


@pytest.mark.slow
def test_loop_closes(lived: tuple[Year, Path]) -> None:
    year, folder = lived
    happened = year.events[: len(LOOP)]
    assert tuple(event.kind for event in happened) == LOOP
    change, drift, reviewed, trained, promoted, _, rolled_out = (event.faces for event in happened)
    assert change == 600
    assert drift - change <= 300
    assert reviewed - drift == 120
    assert trained == promoted == reviewed
    before, after = year.rows[change:rolled_out], year.rows[rolled_out + 10 :]
    assert shares(year.rows[:change]).error <= 0.05
    assert shares(before).error >= 0.2
    assert shares(after).error <= 0.1 < shares(after, first=True).error
    assert {row.model for row in after} == {"2.0.0"}
    assert (folder / BOARD / "current").resolve().name == "2.0.0"


@pytest.mark.slow
def test_what_people_saw(lived: tuple[Year, Path]) -> None:
    year, folder = lived
    database = ReviewDatabase(folder / BOARD / "reviews" / DATABASE)
    faces, labels = database.faces(), database.labels()
    rolled_out = next(event.faces for event in year.events if event.kind is EventKind.ROLLED_OUT)
    by_reason = Counter(face.reason for face in faces if face.time < START + timedelta(weeks=rolled_out / PLAN.a_week))
    assert by_reason["sample"] == 120
    assert by_reason["shadow"] >= 5
    assert len(labels) >= 120 + by_reason["shadow"]
    for face in faces:
        row = year.rows[int((face.time - START) / timedelta(weeks=1) * PLAN.a_week)]
        assert labels.get(face.id) in (None, ReviewLabel.FAKE if row.generator else ReviewLabel.REAL)

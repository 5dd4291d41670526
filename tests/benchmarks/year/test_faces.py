"""Who passes the door in a simulated year."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.year.faces import START, Plan, find_faces, make_year
from benchmarks.year.loop import Targets
from benchmarks.year.models import Making
from benchmarks.year.year import live_year
from edge_runtime.errors import UsageError

PLAN = Plan(base=5, weeks=4, a_week=6, fakes=1 / 3, side=32)


def save_pictures(folder: Path, seeds: range, side: int = 40) -> Path:
    folder.mkdir(parents=True)
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def faces(tmp_path: Path) -> dict[str, list[Path]]:
    """21 real faces, 9 of generator a and 4 of generator b: as many as PLAN needs."""
    real = save_pictures(tmp_path / "real", range(21))
    first, second = save_pictures(tmp_path / "a", range(30, 39)), save_pictures(tmp_path / "b", range(40, 44))
    return find_faces([real], [f"a={first}", f"b={second}"])


def test_nobody_passes_twice(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    year = make_year(faces, PLAN, tmp_path / "year")
    pictures = [path.read_bytes() for path in (tmp_path / "year").rglob("*.jpg")]
    assert len(year) == 24
    assert len(pictures) == len(set(pictures)) == 34
    assert [sum(passer.fake for passer in year if passer.week == week) for week in range(4)] == [2, 2, 2, 2]
    assert [{passer.generator for passer in year if passer.week == week} - {""} for week in range(4)] == [
        {"a"},
        {"a"},
        {"b"},
        {"b"},
    ]
    times = [passer.time for passer in year]
    assert times == sorted(times)
    assert (times[-1] - START).days == 27


def test_camera_takes_the_middle(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    year = make_year(faces, PLAN, tmp_path / "year")
    with Image.open(year[0].path) as picture:
        assert (picture.size, picture.format) == ((32, 32), "JPEG")


def test_same_seed_same_year(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    first, again = (make_year(faces, PLAN, tmp_path / name) for name in ("one", "two"))
    assert [passer.path.read_bytes() for passer in first] == [passer.path.read_bytes() for passer in again]


def test_a_copy_counts_once(tmp_path: Path) -> None:
    one, other = (save_pictures(tmp_path / name, range(3)) for name in ("one", "other"))
    fakes = [f"a={save_pictures(tmp_path / 'a', range(5, 7))}", f"b={save_pictures(tmp_path / 'b', range(6, 9))}"]
    found = find_faces([one, other], fakes)
    assert [len(paths) for paths in found.values()] == [3, 2, 2]


def test_too_few_faces(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    del faces["b"][0]
    with pytest.raises(UsageError, match="too few b faces"):
        make_year(faces, PLAN, tmp_path / "year")


@pytest.mark.parametrize("fake", [["progan"], ["=b"], ["a=missing", "b=missing"]])
def test_wrong_folders(fake: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        find_faces([save_pictures(tmp_path / "real", range(2))], fake)


def test_one_generator_never_changes(tmp_path: Path) -> None:
    real, fake = save_pictures(tmp_path / "real", range(2)), save_pictures(tmp_path / "a", range(5, 7))
    with pytest.raises(UsageError, match="two generators"):
        find_faces([real], [f"a={fake}"])


def test_small_picture(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smaller than 48 pixels"):
        make_year(faces, Plan(base=5, weeks=4, a_week=6, fakes=1 / 3, side=48), tmp_path / "year")


def test_pictures_of_the_user_are_not_emptied(tmp_path: Path) -> None:
    """`--out .` where the user keeps faces/."""
    real = save_pictures(tmp_path / "faces" / "real", range(21))
    fakes = [save_pictures(tmp_path / "faces" / name, range(seed, seed + 9)) for name, seed in (("a", 30), ("b", 40))]
    faces = find_faces([real], [f"{folder.name}={folder}" for folder in fakes])
    with pytest.raises(UsageError, match="faces: is not of a simulated year"):
        live_year(faces, tmp_path, PLAN, Making(), Targets())
    # A year's own folder, into which the user moved pictures.
    passers = make_year(faces, PLAN, tmp_path / "year" / "faces")
    real.rename(tmp_path / "year" / "faces" / "real")
    moved = find_faces([tmp_path / "year" / "faces" / "real"], [f"{folder.name}={folder}" for folder in fakes])
    with pytest.raises(UsageError, match=r"0\.png: is in .*, which the year empties"):
        live_year(moved, tmp_path / "year", PLAN, Making(), Targets())
    assert len(list(tmp_path.rglob("*.png"))) == 39
    assert all(passer.path.exists() for passer in passers)


@pytest.mark.parametrize("name", ["faces", "models", "board"])
def test_a_folder_of_the_user_is_refused_before_any_is_emptied(
    faces: dict[str, list[Path]], tmp_path: Path, name: str
) -> None:
    save_pictures(tmp_path / "out" / name, range(2))
    with pytest.raises(UsageError, match=f"{name}: is not of a simulated year"):
        live_year(faces, tmp_path / "out", PLAN, Making(), Targets())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_its_own_folder_is_emptied(faces: dict[str, list[Path]], tmp_path: Path) -> None:
    old = make_year(faces, PLAN, tmp_path / "year")
    (tmp_path / "linked").mkdir()
    (tmp_path / "year" / "linked").symlink_to(tmp_path / "linked")
    new = make_year(faces, Plan(base=5, weeks=2, a_week=6, fakes=1 / 3, side=32), tmp_path / "year")
    assert (len(old), len(new)) == (24, 12)
    assert len(list((tmp_path / "year" / "door").iterdir())) == 12
    assert not (tmp_path / "year" / "linked").exists()
    assert (tmp_path / "linked").is_dir()

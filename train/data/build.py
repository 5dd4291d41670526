"""From pictures to a catalog: scan them, leave out what can't be used, draw the splits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from train.data.catalog import CATALOG, QUARANTINE, SEED, SHARES, SPLITS, Candidate, Catalog, FaceRecord, Quarantined
from train.data.scan import FindBox, picture_files, scan, stamp
from train.data.splits import Share, draw_splits, group_faces
from train.parallel import Advance, ordered_map

__all__ = [
    "CATALOG",
    "QUARANTINE",
    "SPLITS",
    "Candidate",
    "Catalog",
    "FaceRecord",
    "Quarantined",
    "build_catalog",
    "load_data",
]


def load_data(path: Path | str, *, split: str = SHARES, seed: int = SEED, advance: Advance | None = None) -> Catalog:
    """Return the catalog of `path`: a catalog.csv, a folder that holds one, or a folder with real/ and fake/.

    Folders train/, valid/ and test/ with real/ and fake/ inside are respected; of the splits that are missing, valid is
    taken from train.

    Raises:
        DataError: there is nothing of the kind, or a class is empty.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return Catalog.read(path)
    if (path / CATALOG).is_file():
        return Catalog.read(path / CATALOG)
    return build_catalog(labelled_files(path), split=split, seed=seed, advance=advance)


def labelled_files(root: Path) -> list[Candidate]:
    """Return the pictures in `root`/real and `root`/fake, or in these below train/, valid/ and test/.

    Raises:
        DataError: there are no such folders, or one holds no picture.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a catalog.csv or a folder with real/ and fake/ inside")
    parts = [name for name in SPLITS if (root / name).is_dir()] or [""]
    found: list[Candidate] = []
    for part in parts:
        for label, name in enumerate(LABELS):
            folder = root / part / name
            if not folder.is_dir():
                raise DataError(f"{root / part}: holds no folder {name}/; put the {name} faces there")
            files = picture_files(folder)
            if not files:
                raise DataError(f"{folder}: holds no pictures; put the {name} faces there")
            source, base = root.resolve().name, folder.resolve()
            found += [Candidate(file, label, part, source, identity=_folder(file, base)) for file in files]
    return found


def _folder(file: Path, base: Path) -> str:
    """Return the folders between `base` and `file`: who or what must stay together."""
    return "/".join(file.relative_to(base).parts[:-1])


def build_catalog(
    candidates: Sequence[Candidate],
    *,
    split: str = SHARES,
    seed: int = SEED,
    min_sharpness: float = 0.0,
    min_brightness: float = 0.0,
    find_box: FindBox | None = None,
    advance: Advance | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    remember: Callable[[Mapping[str, Any]], None] | None = None,
) -> Catalog:
    """Scan `candidates`, leave out what can't be used, and draw the splits.

    Args:
        candidates: files with what is known of them.
        split: shares, as Share.parse reads them.
        seed: of the draw.
        min_sharpness: variance of the Laplacian under which a picture counts as blurred.
        min_brightness: mean grey level (0 to 255) under which a picture counts as dark.
        find_box: finds the face; pictures without one are left out. None: the whole picture is the face.
        advance: told of every file that is done.
        known: findings of an earlier, interrupted scan by path.
        remember: given every new finding, to keep for the next scan.

    Raises:
        DataError: the same picture has two labels, or a class is left empty.
    """
    share = Share.parse(split)
    faces: list[FaceRecord] = []
    left_out: list[Quarantined] = []
    contents: dict[Path, str] = {}
    known = known or {}

    def look(candidate: Candidate) -> Mapping[str, Any]:
        before = known.get(str(candidate.path))
        return before if before and before["stamp"] == stamp(candidate.path) else scan(candidate.path, find_box)

    for candidate, found in zip(candidates, ordered_map(look, candidates), strict=True):
        if remember and found is not known.get(str(candidate.path)):
            remember(found)
        reason = found["reason"] or _too_poor(found, min_sharpness, min_brightness)
        if reason:
            left_out.append(Quarantined(candidate.path, reason, broken="width" not in found))
        else:
            faces.append(_face(candidate, found))
            contents[candidate.path] = found["pixels"]
        if advance:
            advance(1)
    faces, doubles = _without_doubles(faces, contents)
    faces, leaks = _without_leaks(faces)
    quarantine = (*left_out, *doubles, *leaks)
    _check_classes(faces, quarantine)
    return Catalog(tuple(draw_splits(faces, share, seed)), quarantine)


def _too_poor(found: Mapping[str, Any], min_sharpness: float, min_brightness: float) -> str:
    if found["sharpness"] < min_sharpness:
        return f"blurred (sharpness {found['sharpness']:.1f}, at least {min_sharpness:g} is asked for)"
    if found["brightness"] < min_brightness:
        return f"dark (mean grey level {found['brightness']:.1f}, at least {min_brightness:g} is asked for)"
    return ""


def _face(candidate: Candidate, found: Mapping[str, Any]) -> FaceRecord:
    box = found["box"]
    return FaceRecord(
        path=candidate.path,
        label=candidate.label,
        split=candidate.split,
        source=candidate.source,
        generator=candidate.generator,
        identity=candidate.identity,
        box=(box[0], box[1], box[2], box[3]) if box else None,
        sha256=found["sha256"],
        phash=found["phash"],
        width=found["width"],
        height=found["height"],
        sharpness=found["sharpness"],
    )


def _without_doubles(
    faces: Sequence[FaceRecord], contents: Mapping[Path, str]
) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Leave out pictures whose `contents` (a digest of the pixels) are those of another."""
    first: dict[str, FaceRecord] = {}
    doubles = []
    for face in faces:
        before = first.setdefault(contents[face.path], face)
        if before.label != face.label:
            raise DataError(f"{before.path} and {face.path} are the same picture, once real and once fake; remove one")
        if before is not face:
            doubles.append(Quarantined(face.path, f"the same picture as {before.path}"))
    return list(first.values()), doubles


def _without_leaks(faces: Sequence[FaceRecord]) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Leave out what belongs together with a face of a later split, where the folders name the splits."""
    last: dict[str, FaceRecord] = {}
    groups = group_faces(faces) if any(face.split for face in faces) else [""] * len(faces)
    for face, group in zip(faces, groups, strict=True):
        last[group] = max(last.get(group, face), face, key=lambda other: SPLITS.index(other.split or SPLITS[0]))
    kept, leaks = [], []
    for face, group in zip(faces, groups, strict=True):
        if face.split == last[group].split or not face.split:
            kept.append(face)
        else:
            leaks.append(Quarantined(face.path, f"belongs together with {last[group].path} in {last[group].split}"))
    return kept, leaks


def _check_classes(faces: Sequence[FaceRecord], left_out: Sequence[Quarantined]) -> None:
    counts = Counter(face.label for face in faces)
    for label, name in enumerate(LABELS):
        if not counts[label]:
            why = (
                f"; the first of {len(left_out)} left out: {left_out[0].path} ({left_out[0].reason})"
                if left_out
                else ""
            )
            raise DataError(f"no {name} face can be used{why}")

"""From pictures to a catalog: measure them, leave out what can't be used, draw the splits."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.paths import expand
from train.data.catalog import CATALOG, SEED, SHARES, SPLITS, Catalog, FaceRecord, PictureFile, Quarantined
from train.data.layouts import Listing, list_labelled, names_splits
from train.data.remote import fetched
from train.data.scan import FindBox, scan, stamp
from train.data.splits import Share, draw_splits, group_faces
from train.parallel import Advance, ordered_map, progress_bar


def has_splits(path: Path) -> bool:
    """Return whether the faces of `path` are split already: a catalog, or folders train/, valid/ or test/.

    An address stands for the folder that is fetched from there.
    """
    path = fetched(expand(path))
    return path.is_file() or (path / CATALOG).is_file() or names_splits(path)


def load_data(*paths: Path | str, split: str = SHARES, seed: int = SEED, advance: Advance | None = None) -> Catalog:
    """Return the catalog of `paths` together: each a catalog.csv, a folder that holds one, or one with real/ and fake/.

    An address stands for the folder that is fetched from there.

    Folders train/, valid/ (or val/, validation/) and test/ with real/ and fake/ inside are kept as splits; if there is
    no valid/, it is drawn from train/. Faces of one catalog that belong together with faces in a later split of
    another are left out. Without `advance` a progress bar is shown.

    Raises:
        DataError: there are no such files, a class is empty, or a picture has two labels.
    """
    catalogs, listing = [], Listing()
    for place in paths:
        path = fetched(expand(place))
        file = path if path.is_file() else path / CATALOG
        if file.is_file():
            catalogs.append(Catalog.read(file))
        else:
            listing += list_labelled(path)
    if listing.files:
        files = each_once(listing.files)
        with nullcontext(advance) if advance else progress_bar("reading", len(files)) as each:
            catalogs.append(build_catalog(files, left_out=listing.left_out, split=split, seed=seed, advance=each))
    if len(catalogs) == 1:
        return catalogs[0]
    faces = [face for catalog in catalogs for face in catalog.records]
    faces, duplicates = _without_duplicates(faces, {face.path: face.sha256 for face in faces})
    faces, leaks = _without_leaks(faces)
    quarantine = (*(file for catalog in catalogs for file in catalog.quarantine), *duplicates, *leaks)
    return Catalog(tuple(faces), quarantine)


def each_once(files: Sequence[PictureFile]) -> tuple[PictureFile, ...]:
    """Return the last of the files of each path.

    Raises:
        DataError: a path has two labels.
    """
    once: dict[Path, PictureFile] = {}
    for file in files:
        if once.get(file.path, file).label != file.label:
            raise DataError(f"{file.path}: given as real and as fake; name each folder once")
        once[file.path] = file
    return tuple(once.values())


def build_catalog(
    files: Sequence[PictureFile],
    *,
    left_out: Sequence[Quarantined] = (),
    split: str = SHARES,
    seed: int = SEED,
    min_sharpness: float = 0.0,
    min_brightness: float = 0.0,
    find_box: FindBox | None = None,
    advance: Advance | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    remember: Callable[[Mapping[str, Any]], None] | None = None,
) -> Catalog:
    """Measure `files`, leave out what can't be used, and draw the splits.

    Args:
        files: picture files with what their paths say.
        left_out: files that were left out before, for the quarantine list.
        split: shares, as Share.parse reads them.
        seed: of the draw.
        min_sharpness: variance of the Laplacian below which a picture is left out as blurred.
        min_brightness: mean grey level (0 to 255) below which a picture is left out as dark.
        find_box: finds the face; pictures without one are left out. None: the whole picture is the face.
        advance: called with 1 after each file.
        known: results of an earlier, interrupted scan, by path.
        remember: called with each new result.

    Raises:
        DataError: the same picture has two labels, or a class has no usable face.
    """
    share = Share.parse(split)
    known = known or {}
    faces: list[FaceRecord] = []
    quarantine = list(left_out)
    pixels: dict[Path, str] = {}

    def measure(file: PictureFile) -> Mapping[str, Any]:
        before = known.get(str(file.path))
        return before if before and before["stamp"] == stamp(file.path) else scan(file.path, find_box)

    for file, found in zip(files, ordered_map(measure, files), strict=True):
        if remember and found is not known.get(str(file.path)):
            remember(found)
        reason, broken = found["reason"], "width" not in found
        if not reason and file.label == 0 and found["claim"]:
            reason, broken = f"among the real faces, but its file says that AI made it ({found['claim']})", True
        elif not reason and found["sharpness"] < min_sharpness:
            reason = f"blurred (sharpness {found['sharpness']:.1f}, the minimum is {min_sharpness:g})"
        elif not reason and found["brightness"] < min_brightness:
            reason = f"dark (mean grey level {found['brightness']:.1f}, the minimum is {min_brightness:g})"
        if reason:
            quarantine.append(Quarantined(file.path, reason, broken))
        else:
            measured = {name: found[name] for name in ("sha256", "phash", "width", "height", "sharpness")}
            box = tuple(found["box"]) if found["box"] else None
            faces.append(FaceRecord(**vars(file), **measured, box=box))
            pixels[file.path] = found["pixels"]
        if advance:
            advance(1)
    faces, duplicates = _without_duplicates(faces, pixels)
    faces, leaks = _without_leaks(faces)
    quarantine += [*duplicates, *leaks]
    for label, name in enumerate(LABELS):
        if all(face.label != label for face in faces):
            why = "; give more pictures"
            if quarantine:
                first = min(quarantine, key=lambda file: not file.broken)
                why = f"; the first of {len(quarantine)} left out: {first.path} ({first.reason})"
            raise DataError(f"no {name} face can be used{why}")
    quarantine.sort(key=lambda file: not file.broken)
    return Catalog(tuple(draw_splits(faces, share, seed)), tuple(quarantine))


def _without_duplicates(
    faces: Sequence[FaceRecord], pixels: Mapping[Path, str]
) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Leave out pictures whose digest in `pixels` is that of an earlier one.

    Raises:
        DataError: they have different labels.
    """
    first: dict[str, FaceRecord] = {}
    duplicates = []
    for face in faces:
        before = first.setdefault(pixels[face.path], face)
        if before.label != face.label:
            raise DataError(f"{before.path} and {face.path} are the same picture, once real and once fake; remove one")
        if before is not face:
            duplicates.append(Quarantined(face.path, f"the same picture as {before.path}"))
    return list(first.values()), duplicates


def _without_leaks(faces: Sequence[FaceRecord]) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Where folders name the splits, leave out faces that belong to the same group as a face of a later split."""
    if not any(face.split for face in faces):
        return list(faces), []
    groups = group_faces(faces)
    last: dict[str, FaceRecord] = {}
    for face, group in zip(faces, groups, strict=True):
        last[group] = max(last.get(group, face), face, key=lambda other: SPLITS.index(other.split or SPLITS[0]))
    kept, leaks = [], []
    for face, group in zip(faces, groups, strict=True):
        if face.split == last[group].split or not face.split:
            kept.append(face)
        else:
            leaks.append(Quarantined(face.path, f"belongs together with {last[group].path} in {last[group].split}"))
    return kept, leaks

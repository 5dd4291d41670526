"""A new version of a catalog: the old faces as they were, and faces that people reviewed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePath

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import DataError, PictureError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.review.database import ReviewDatabase, ReviewFace, ReviewLabel
from edge_runtime.review.kept_face import read_record
from edge_runtime.review.sealing import SUFFIX, PrivateKey
from train.data.catalog import Catalog, FaceRecord, Quarantined
from train.data.scan import scan
from train.data.splits import Share, group_faces, hashed_split
from train.parallel import Advance

PICTURES = "reviewed"
"""Folder beside the new catalog with copies of the reviewed pictures, opened if they were encrypted."""

VISIT_S = 60
"""Faces of one camera within so many seconds may be one person, so they stay in one split."""


@dataclass(frozen=True)
class Version:
    """A new catalog, the number of faces that were added, and of those that nobody has labelled yet."""

    catalog: Catalog
    added: int
    waiting: int


def add_reviewed(
    base: Catalog,
    database: ReviewDatabase,
    out: Path,
    share: Share,
    seed: int,
    *,
    key: PrivateKey | None = None,
    advance: Advance = lambda _: None,
) -> Version:
    """Return `base` with the faces that reviewers called real or fake, whose pictures are copied into `out`.

    Old faces keep their splits. A group of reviewed faces (see `identity`) that belongs together with old faces goes
    to their split, any other to one drawn by `share`; drawn again later, it stays where it is as long as no further
    review joins it with another group. With the last version as `base` all its faces are old ones, so the test split
    of `share` is frozen: no later version moves a face from there to training.

    Raises:
        DataError: no reviewed face can be used.
    """
    labels = database.labels()
    faces = database.faces()
    known = {face.sha256: face for face in base.records}
    added: dict[str, FaceRecord] = {}
    left_out: list[Quarantined] = []
    held = 0
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    for face in faces:
        advance(1)
        if face.id not in labels:
            continue
        label = labels[face.id]
        if label not in (ReviewLabel.REAL, ReviewLabel.FAKE):
            why = "reviewers disagree" if label is None else "reviewed as unusable"
            left_out.append(Quarantined(face.path, why))
            continue
        found = _record(face, LABELS.index(label.value), out / PICTURES, key)
        if isinstance(found, Quarantined):
            left_out.append(found)
            continue
        before = known.get(found.sha256) or added.get(found.sha256)
        if before is None:
            added[found.sha256] = found
        elif before.label != found.label:
            why = f"reviewed as {label.value}, but {before.path} is the same picture and {LABELS[before.label]}"
            left_out.append(Quarantined(face.path, why, broken=True))
        else:
            held += 1
    if not added and not held:
        what = "holds no face that was reviewed as real or fake; review some on /review"
        if left_out:
            first = left_out[0]
            what = f"none of its {len(left_out)} reviewed faces can be used, such as {first.path}: {first.reason}"
        raise DataError(f"{database.path}: {what}")
    kept, leaks = _split(base.records, list(added.values()), share, seed)
    catalog = Catalog((*base.records, *kept), (*base.quarantine, *left_out, *leaks))
    return Version(catalog, len(kept), sum(face.id not in labels for face in faces))


def identity(face: ReviewFace) -> str:
    """Return the identity of a reviewed face: the minute it was seen in and the next, joined as two people are.

    So faces of one source that were seen within VISIT_S share a part, whatever is reviewed later.
    """
    part = int(face.time.timestamp() // VISIT_S)
    return f"visit {part}+visit {part + 1}"


def _record(face: ReviewFace, label: int, folder: Path, key: PrivateKey | None) -> FaceRecord | Quarantined:
    """Copy a reviewed picture into `folder` and measure it."""
    try:
        data = face.path.read_bytes()
        if face.path.suffix == SUFFIX:
            if key is None:
                return Quarantined(face.path, "is encrypted; give --private-key", broken=True)
            data = key.opened(data)
    except OSError as error:
        return Quarantined(face.path, f"can't be read, its time may be over ({error.strerror or error})")
    except PictureError as error:
        return Quarantined(face.path, error.reason, broken=True)
    suffix = Path(face.path.name.removesuffix(SUFFIX)).suffix
    path = folder.resolve() / f"{sha256(data).hexdigest()[:20]}{suffix}"
    write_atomic(path, data)
    found = scan(path, None)
    if found["reason"]:
        path.unlink()
        return Quarantined(face.path, found["reason"], broken="width" not in found)
    try:
        record = read_record(data)
    except PictureError:
        record = {"box": None, "track": 1}
    still = record.get("track") is None and PurePath(face.source).suffix.lower() in SUFFIXES
    measured = {name: found[name] for name in ("sha256", "phash", "width", "height", "sharpness")}
    return FaceRecord(
        path=path,
        label=label,
        split="",
        # A folder is a source, not each of its pictures, and its pictures were not taken when they were read.
        source=str(PurePath(face.source).parent) if still else face.source,
        generator="",
        identity="" if still else identity(face),
        box=_box(record["box"]),
        **measured,
    )


def _box(edges: Sequence[int] | None) -> Box | None:
    """Return where the face is in a picture that a board kept; None: the whole picture."""
    if edges is None:
        return None
    left, top, right, bottom = map(float, edges)
    return (left, top, right, bottom)


def _split(
    old: Sequence[FaceRecord], new: Sequence[FaceRecord], share: Share, seed: int
) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Return `new` with a split each, and those that belong together with old faces of several splits.

    Groups that were drawn apart may grow together, which only splits in `old` can tell.
    """
    groups = group_faces([*old, *new])
    splits: Mapping[str, set[str]] = defaultdict(set)
    for face, group in zip(old, groups, strict=False):
        splits[group].add(face.split)
    kept, leaks = [], []
    for face, group in zip(new, groups[len(old) :], strict=True):
        if len(splits[group]) > 1:
            names = " and ".join(sorted(splits[group]))
            leaks.append(Quarantined(face.path, f"belongs together with faces in {names}"))
        else:
            chosen = next(iter(splits[group]), "") or hashed_split(group, share, seed)
            kept.append(replace(face, split=chosen))
    return kept, leaks


def version_notes(version: Version) -> list[str]:
    """Return what a terminal says about a new version."""
    records = version.catalog.records[len(version.catalog.records) - version.added :]
    counts = Counter((face.split, LABELS[face.label]) for face in records)
    held = ", ".join(f"{split} {count} {name}" for (split, name), count in sorted(counts.items()))
    notes = [f"reviewed faces added: {version.added}{f' ({held})' if held else ''}"]
    if version.waiting:
        notes.append(f"{version.waiting} faces of the review database have no label yet")
    if version.added:
        notes.append(f"their pictures were copied to {PICTURES}/, where nothing deletes them: delete them yourself")
    return notes

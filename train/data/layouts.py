"""Layouts: how the data sets of this field lie on disk. A layout is a few lines of LAYOUTS."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from train.data.catalog import Candidate
from train.data.scan import picture_files


@dataclass(frozen=True)
class Rule:
    """Which files are of one kind.

    Attributes:
        pattern: a regular expression for the path below the data set's folder, with forward slashes. Its groups
            `label`, `split`, `generator` and `identity` say what the path tells; parts of an identity that are joined
            by `+` or by `joined` are people of whom each belongs to the same split.
        label: 0 real, 1 fake; None where the group `label` says it.
        generator: for fakes whose path does not tell.
        joined: what stands between the parts of an identity.
    """

    pattern: str
    label: int | None = None
    generator: str = ""
    joined: str = ""


@dataclass(frozen=True)
class Layout:
    """A data set's layout.

    Attributes:
        name: what `--layout` takes.
        marker: a glob below its folder that tells it from others.
        rules: the first that matches a file holds; files that none matches are left alone.
        obtain: how one gets it.
    """

    name: str
    marker: str
    rules: Sequence[Rule]
    obtain: str


SPLIT = r"(?P<split>train|valid|val|test)"
FILE = r"[^/]+$"

LAYOUTS: Sequence[Layout] = (
    Layout(
        "140k",
        "real_vs_fake/real-vs-fake",
        (Rule(rf"real_vs_fake/real-vs-fake/{SPLIT}/(?P<label>real|fake)/{FILE}", generator="StyleGAN"),),
        "Kaggle: xhlulu/140k-real-and-fake-faces (FFHQ photographs and StyleGAN faces, 256×256)",
    ),
    Layout(
        "faces",
        "real",
        (Rule(rf"(?P<label>real|fake)/(?:(?P<identity>.+)/)?{FILE}"),),
        "your own: folders real/ and fake/; a folder below them is one person or video",
    ),
    Layout(
        "faces-in-splits",
        "train/real",
        (Rule(rf"{SPLIT}/(?P<label>real|fake)/(?:(?P<identity>.+)/)?{FILE}"),),
        "your own, with splits of your own: train/, valid/ and test/ with real/ and fake/ inside",
    ),
    Layout(
        "faceforensics",
        "manipulated_sequences",
        (
            Rule(rf"original_sequences/[^/]+/[^/]+/[^/]+/(?P<identity>[^/]+)/{FILE}", label=0),
            Rule(
                rf"manipulated_sequences/(?P<generator>[^/]+)/[^/]+/[^/]+/(?P<identity>[^/]+)/{FILE}",
                label=1,
                joined="_",
            ),
        ),
        "on request from the FaceForensics++ authors; cut frames with their script, one folder a video",
    ),
    Layout(
        "ifakefacedb",
        "*TPDNE*",
        (Rule(rf"(?:.*/)?(?P<generator>[^/]*(?:TPDNE|100K)[^/]*)/(?:.*/)?{FILE}", label=1),),
        "on request from the Autonomous University of Madrid (BiDA Lab), for research; all of it is fake, the folder "
        "is the generator: give real faces beside it, e.g. of VGGFace2 or CASIA-WebFace",
    ),
    Layout(
        "celeba",
        "img_align_celeba",
        (Rule(rf"img_align_celeba/(?:.*/)?{FILE}", label=0),),
        "mmlab.ie.cuhk.edu.hk/projects/CelebA; identities are read from identity_CelebA.txt where it lies beside",
    ),
    Layout(
        "deepfacelab",
        "data_dst",
        (
            Rule(rf"(?P<identity>data_(?:src|dst))/aligned/{FILE}", label=0),
            Rule(rf"(?P<identity>data_dst)/merged/{FILE}", label=1, generator="DeepFaceLab"),
        ),
        "a DeepFaceLab workspace: aligned faces of data_src and data_dst are real, data_dst/merged is fake; "
        "one workspace is two identities: give several, in folders of different names",
    ),
    Layout(
        "faceswap",
        "converted",
        (
            Rule(rf"(?:faces|extracted)/(?P<identity>[^/]+)/{FILE}", label=0),
            Rule(rf"converted/(?P<identity>[^/]+)/{FILE}", label=1, generator="FaceSwap"),
        ),
        "a FaceSwap project: faces/NAME (extracted) is real, converted/NAME is fake, NAME is the video",
    ),
    Layout(
        "vggface2",
        "**/n[0-9][0-9][0-9][0-9][0-9][0-9]",
        (Rule(rf"(?:.*/)?(?P<identity>n\d{{6}})/{FILE}", label=0),),
        "VGGFace2 (Oxford VGG, for research): photographs, the folder is the person",
    ),
    Layout(
        "casia-webface",
        "**/[0-9][0-9][0-9][0-9][0-9][0-9][0-9]",
        (Rule(rf"(?:.*/)?(?P<identity>\d{{7}})/{FILE}", label=0),),
        "CASIA-WebFace (for research): photographs, the folder is the person",
    ),
    Layout(
        "lfw",
        "*/*_0001.jpg",
        (Rule(r"(?:.*/)?(?P<identity>[^/]+)/(?P=identity)_\d{4}\.jpg$", label=0),),
        "Labeled Faces in the Wild: photographs, the folder is the person",
    ),
)
"""In the order in which they are looked for."""


def find_layout(root: Path, name: str = "") -> Layout:
    """Return the layout called `name`, or the one whose marker lies in `root`.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give folders of faces")
    names = ", ".join(layout.name for layout in LAYOUTS)
    for layout in LAYOUTS:
        if layout.name == name or (not name and next(root.glob(layout.marker), None) is not None):
            return layout
    if name:
        raise DataError(f"--layout {name}: unknown; choose one of {names}")
    missing = [label for label in LABELS if not (root / label).is_dir()]
    raise DataError(
        f"{root}: holds no {' and no '.join(f'{label}/' for label in missing)}, and is none of {names}; "
        "put the faces into real/ and fake/, or say --real DIR --fake DIR"
    )


def layout_files(root: Path, layout: Layout) -> list[Candidate]:
    """Return the pictures of a data set with what their paths tell.

    Raises:
        DataError: no file fits.
    """
    base = root.resolve()
    people = _celeba_people(base)
    rules = [(re.compile(rule.pattern), rule) for rule in layout.rules]
    found = []
    for file in picture_files(root):
        path = file.relative_to(base).as_posix()
        match = next(((hit, rule) for pattern, rule in rules if (hit := pattern.match(path))), None)
        if match:
            found.append(_candidate(file, base.name, *match, people))
    if not found:
        raise DataError(f"{root}: holds no pictures where {layout.name} has them; look at the folders")
    return found


def _candidate(file: Path, source: str, hit: "re.Match[str]", rule: Rule, people: dict[str, str]) -> Candidate:
    told = {name: value or "" for name, value in hit.groupdict().items()}
    label = LABELS.index(told["label"]) if rule.label is None else rule.label
    identity = told.get("identity", "") or people.get(file.name, "")
    if rule.joined:
        identity = identity.replace(rule.joined, "+")
    return Candidate(
        file,
        label,
        split={"val": "valid"}.get(told.get("split", ""), told.get("split", "")),
        source=source,
        generator=told.get("generator", "") or (rule.generator if label else ""),
        identity=identity,
    )


def _celeba_people(root: Path) -> dict[str, str]:
    file = root / "identity_CelebA.txt"
    if not file.is_file():
        return {}
    return dict(line.split() for line in file.read_text(encoding="utf-8").splitlines() if len(line.split()) == 2)


def mapped_files(folders: Sequence[Path], label: int) -> list[Candidate]:
    """Return the pictures below `folders`, all of one label; a folder below each is one person or video.

    Raises:
        DataError: a folder is missing or holds no pictures.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give folders of {LABELS[label]} faces")
        files = picture_files(folder)
        if not files:
            raise DataError(f"{folder}: holds no pictures; put the {LABELS[label]} faces there")
        root = folder.resolve()
        generator = root.name if label else ""
        for file in files:
            identity = file.relative_to(root).parent.as_posix()
            found.append(
                Candidate(
                    file, label, source=root.name, generator=generator, identity="" if identity == "." else identity
                )
            )
    return found

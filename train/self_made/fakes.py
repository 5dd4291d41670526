"""Self-made fakes as faces of a catalog: made once, kept in the user's cache, encoded as their originals are."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from edge_runtime.atomic import atomic_write
from edge_runtime.errors import UsageError
from edge_runtime.inference.faces import FaceDetector
from edge_runtime.paths import cache_folder
from edge_runtime.pixels.pictures import open_picture
from edge_runtime.pixels.preprocess import square_within
from train.data.catalog import SEED, Catalog, FaceRecord
from train.data.face_finder import HOW_TO_GET, installed_face_model
from train.data.scan import scan
from train.evaluation.logits import read_again
from train.evaluation.metrics import auc
from train.evaluation.shortcuts import Audit, TooFewFacesError, audit_faces
from train.parallel import ordered_map, progress_bar
from train.self_made.autoencoder import STEPS, reconstruct, train_autoencoders
from train.self_made.bands import swap_bands
from train.self_made.blended import blend_into_itself, find_points

SELF_MADE, SELF_BLENDED = "self_made", "self_blended"
"""Names of the generators in the catalog: reconstructed faces, and faces blended into themselves."""

VERSION = 1
"""Version of the fakes; raise it when a change gives other fakes for the same originals."""

AROUND = 1.0
"""Margin of what is changed around a face's box, as a share of its longer side: more than a network is shown."""

SAVED = ("PNG", "WEBP", "BMP", "TIFF")
"""Formats other than JPEG in which a fake is saved if its original has it."""

Maker = Callable[[Image.Image, np.random.Generator], NDArray[np.float32] | None]
"""From an original to its fake, float32 [H, W, 3] in [0, 255]; None if none can be made."""


@dataclass(frozen=True)
class SelfMade:
    """Fakes of one generator.

    Attributes:
        name: SELF_MADE or SELF_BLENDED.
        faces: the fakes.
        originals: the number of real faces they were to be made of.
        audit: of the fakes and their originals; None if there are too few.
        sharpness: AUC with which sharpness alone tells these apart; 0.5 is chance.
    """

    name: str
    faces: tuple[FaceRecord, ...]
    originals: int
    audit: Audit | None
    sharpness: float


def add_fakes(
    catalog: Catalog, names: Sequence[str], *, device: str = "cpu", seed: int = SEED, steps: int = STEPS
) -> tuple[Catalog, list[SelfMade]]:
    """Return the catalog with a fake of each generator in `names` for each real face of its training split.

    A fake keeps source, identity and box of its original. Generators that the catalog has already are left as they are.

    Args:
        catalog: of the faces.
        names: SELF_MADE, SELF_BLENDED.
        device: of torch, for the autoencoders.
        seed: of every draw.
        steps: of each autoencoder's training.

    Raises:
        PictureGoneError: a picture can no longer be read.
        UsageError: there is no face model, or the cache can't be written to.
    """
    reals = [face for face in catalog.split("train") if face.label == 0]
    present = {face.generator for face in catalog.records}
    added = []
    for name in (name for name in names if name not in present and reals):
        with _cache(name, reals, seed) as folder:
            maker = _reconstructing(reals, folder, device, seed, steps) if name == SELF_MADE else _blending()
            pairs = _make_all(reals, name, maker, folder, seed)
        fakes, originals = tuple(fake for fake, _ in pairs), [original for _, original in pairs]
        both = [*fakes, *originals]
        try:
            audit = audit_faces(both, seed=seed)
        except TooFewFacesError:
            audit = None
        sharpness = auc([face.label for face in both], [face.sharpness for face in both])
        added.append(SelfMade(name, fakes, len(reals), audit, sharpness))
    records = (*catalog.records, *(fake for made in added for fake in made.faces))
    return replace(catalog, records=tuple(sorted(records, key=lambda face: face.path))), added


@contextmanager
def _cache(name: str, reals: Sequence[FaceRecord], seed: int) -> Iterator[Path]:
    """Yield the folder of these fakes, locked: of two trainings one makes them, and the other waits."""
    key = hashlib.sha256(f"{VERSION} {seed} {sorted(face.sha256 for face in reals)}".encode()).hexdigest()[:16]
    folder = cache_folder() / name / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    except OSError as error:
        raise UsageError(
            f"{folder}: can't be written to ({error.strerror or error}); make room, or set XDG_CACHE_HOME to another "
            "folder"
        ) from None


def _reconstructing(reals: Sequence[FaceRecord], folder: Path, device: str, seed: int, steps: int) -> Maker:
    networks = train_autoencoders(reals, folder, device, seed=seed, steps=steps)

    def make(picture: Image.Image, random: np.random.Generator) -> NDArray[np.float32]:
        made = reconstruct(networks[int(random.integers(len(networks)))], picture, random)
        return swap_bands(made, np.asarray(picture, dtype=np.float32), random)

    return make


def _blending() -> Maker:
    model = installed_face_model()
    if model is None:
        raise UsageError(f"--self-blended: no face model is installed; {HOW_TO_GET}")
    detector = FaceDetector(model)

    def make(picture: Image.Image, random: np.random.Generator) -> NDArray[np.float32] | None:
        points = find_points(detector, picture)
        return None if points is None else blend_into_itself(picture, points, random)

    return make


def _make_all(
    reals: Sequence[FaceRecord], name: str, maker: Maker, folder: Path, seed: int
) -> list[tuple[FaceRecord, FaceRecord]]:
    """Return pairs of fake and original; fakes that `folder` has already are not made again."""

    def make(face: FaceRecord) -> tuple[FaceRecord, FaceRecord] | None:
        path = folder / f"{face.sha256[:20]}{face.path.suffix}"
        if not path.exists() and not _make(face, maker, path, seed):
            return None
        found = scan(path, None)
        measured = {key: found[key] for key in ("sha256", "width", "height", "sharpness")}
        # It keeps the original's perceptual hash, so that both are of one group.
        return replace(face, path=path, label=1, generator=name, offset=0, size=0, **measured), face

    pairs = []
    with progress_bar(f"making {name} fakes", len(reals)) as advance:
        for pair in ordered_map(make, reals, workers=2):
            pairs += [pair] if pair else []
            advance(1)
    return pairs


def _make(face: FaceRecord, maker: Maker, path: Path, seed: int) -> bool:
    picture = read_again(face)
    whole = (0, 0, *picture.size)
    around = square_within(picture.size, face.box, AROUND) if face.box else whole
    left, top, right, bottom = (int(edge) for edge in around)
    random = np.random.default_rng((seed, int(face.sha256[:16], 16)))
    made = maker(picture.crop((left, top, right, bottom)), random)
    if made is None:
        return False
    pixels = np.array(picture)
    pixels[top:bottom, left:right] = (made + 0.5).clip(0, 255).astype(np.uint8)
    save_alike(Image.fromarray(pixels), face.content(), path)
    return True


def save_alike(picture: Image.Image, original: Path | bytes, path: Path) -> None:
    """Save `picture` as the file `original` is: its format and, of a JPEG, quantization tables and subsampling."""
    with open_picture(original) as file, atomic_write(path, "wb") as saved:
        grey = picture.convert("L") if file.mode == "L" else picture
        if isinstance(file, JpegImagePlugin.JpegImageFile):
            sampling = JpegImagePlugin.get_sampling(file)
            progressive = bool(file.info.get("progressive"))
            grey.save(saved, "JPEG", qtables=file.quantization, subsampling=sampling, progressive=progressive)
        else:
            grey.save(saved, file.format if file.format in SAVED else "PNG")

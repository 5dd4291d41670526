"""Sample faces as files: folders of real and fake pictures of one format, and short clips."""

import io
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import DataError, UsageError
from train.data.catalog import SEED
from train.parallel import Advance, ordered_map
from train.sample_faces.capture import Picture, camera, encode, generator
from train.sample_faces.drawing import draw_face, draw_moving

Kind = Literal["real", "fake"]

MOST_DETAIL, DETAIL_STEPS = 0.16, 6
"""The strength of the generator's texture is found by bisecting [0, MOST_DETAIL] this many times, to 0.0025."""


def sample_face(seed: int, kind: Kind, size: int = 256) -> Image.Image:
    """Return one sample face as it is read from its file, RGB."""
    return Image.open(io.BytesIO(sample_jpeg(seed, kind, size))).convert("RGB")


def sample_jpeg(seed: int, kind: Kind, size: int = 256) -> bytes:
    """Return one sample face as JPEG: the drawn face of `seed` through the camera (real) or the generator (fake)."""
    real, fake = _sample_pair(seed, size)
    return real if kind == "real" else fake()


def _sample_pair(seed: int, size: int) -> tuple[bytes, Callable[[], bytes]]:
    """Return the real JPEG of a drawn face, and a function that makes the fake one.

    The generator's texture is made as strong as it takes for both files to have the same length, so that the length
    says nothing about the class.
    """
    drawn = draw_face(seed, size)
    real = encode(camera(drawn, np.random.default_rng([seed, 3])))

    def fake() -> bytes:
        low, high, made = 0.0, MOST_DETAIL, real
        for _ in range(DETAIL_STEPS):
            detail = 0.5 * (low + high)
            made = encode(generator(drawn, np.random.default_rng([seed, 4]), detail))
            low, high = (detail, high) if len(made) < len(real) else (low, detail)
        return made

    return real, fake


def make_samples(
    out: Path,
    count: int,
    *,
    seed: int = SEED,
    size: int = 256,
    workers: int = 1,
    progress: Advance | None = None,
) -> list[Path]:
    """Write `count` faces as `out/real/NNNNN.jpg` and the same faces as `out/fake/NNNNN.jpg`.

    A pair shares its name. Existing files are kept.

    Args:
        out: the folder, made if it is missing.
        count: faces, half the number of pictures.
        seed: another seed gives other faces.
        size: pixels a side, even.
        workers: processes that draw; 1 draws in this one.
        progress: called with 1 after each face.

    Raises:
        UsageError: the size is odd or too small.
        DataError: the folder can't be written.
    """
    if size < 32 or size % 2:
        raise UsageError(f"sample faces of {size} pixels can't be made; give an even size of at least 32")
    paths: list[Path] = []
    try:
        for kind in ("real", "fake"):
            (out / kind).mkdir(parents=True, exist_ok=True)
        write = partial(_write_pair, out, seed, size)
        for pair in ordered_map(write, range(count), workers, processes=workers > 1):
            paths += pair
            if progress:
                progress(1)
    except OSError as error:
        raise DataError(f"{out}: can't be written to ({error.strerror or error}); choose another folder") from error
    return paths


def _write_pair(out: Path, seed: int, size: int, index: int) -> list[Path]:
    paths = [out / kind / f"{index:05d}.jpg" for kind in ("real", "fake")]
    if all(path.exists() for path in paths):
        return paths
    real, fake = _sample_pair(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]), size)
    write_atomic(paths[0], real)
    write_atomic(paths[1], fake())
    return paths


def half_and_half(drawn: Picture, rng: np.random.Generator) -> Picture:
    """Return a drawn picture whose left half comes from the camera and whose right half from the generator.

    Height and width are even.
    """
    middle = drawn.shape[1] // 4 * 2
    return np.concatenate([camera(drawn, rng)[:, :middle], generator(drawn, rng)[:, middle:]], axis=1)


def make_clip(
    path: Path, *, seconds: float = 4.0, fps: float = 15.0, size: tuple[int, int] = (640, 480), seed: int = SEED
) -> Path:
    """Write a short video in which two drawn people move their heads: `.avi` or `.mp4`.

    The left one comes from the camera and the right one from the generator. `.avi` (Motion JPEG) keeps what tells them
    apart; the compression of `.mp4` wipes most of it out.

    Raises:
        UsageError: the suffix is another.
        DataError: OpenCV can't write it there.
    """
    frames = enumerate(draw_moving(seed, *size, frames=max(1, round(seconds * fps))))
    both = (half_and_half(frame, np.random.default_rng([seed, 5, index])) for index, frame in frames)
    write_video(path, both, fps=fps)
    return path


def write_video(path: Path, frames: Iterable[Picture], *, fps: float = 25.0) -> None:
    """Write RGB frames of one size as `.avi` (Motion JPEG) or `.mp4` (MPEG-4).

    Raises:
        UsageError: the suffix is another.
        DataError: OpenCV can't write it there.
    """
    codecs = {".mp4": "mp4v", ".avi": "MJPG"}
    if path.suffix not in codecs:
        raise UsageError(f"{path}: a clip is written as {' or '.join(codecs)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter()
    try:
        for frame in frames:
            if not writer.isOpened():
                height, width = frame.shape[:2]
                codec = cv2.VideoWriter.fourcc(*codecs[path.suffix])
                if not writer.open(str(path), codec, fps, (width, height)):
                    raise DataError(f"{path}: OpenCV can't write a video there")
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
    finally:
        writer.release()

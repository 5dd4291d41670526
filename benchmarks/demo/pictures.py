"""`python -m benchmarks.demo.pictures`: copies some held-out faces into a folder and shows them in a video."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps

from edge_runtime.command import run_command
from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.pictures import read_picture
from train.data.build import load_data
from train.data.catalog import FaceRecord
from train.data.sample import pick_faces
from train.sample_faces.files import write_video

FRAME = (640, 480)
FPS, FRAMES_PER_FACE = 15.0, 5


def demo_pictures(
    data: Annotated[Path, typer.Argument(help="A catalog.csv.")],
    out: Annotated[Path, typer.Argument(help="Folder for the copies.")],
    count: Annotated[int, typer.Option(min=1, help="Faces per class.")] = 6,
    clip: Annotated[Path | None, typer.Option(help="Also write them as a video (.avi).")] = None,
) -> int:
    """Copy some faces of the test split, named real or fake, and show them in a video."""
    faces = choose_held_out(load_data(data).split("test"), count)
    copies = copy_pictures(faces, out)
    print(f"{out}: {len(copies)} faces of the test split, named real or fake")
    if clip:
        write_slides(copies, clip)
        print(f"{clip}: the same faces in a video")
    return 0


def choose_held_out(faces: Sequence[FaceRecord], count: int) -> list[FaceRecord]:
    """Return `count` faces of each class, the real ones first.

    Raises:
        DataError: the test split is empty.
    """
    chosen = sorted(pick_faces(faces, 2 * count), key=lambda face: face.label)
    if not chosen:
        raise DataError("the test split is empty; give more faces")
    return chosen


def copy_pictures(faces: Sequence[FaceRecord], out: Path) -> list[Path]:
    """Copy the files into `out` as real_01.jpg, fake_02.jpg and so on, and remove those of an earlier run."""
    out.mkdir(parents=True, exist_ok=True)
    for label in LABELS:
        for old in out.glob(f"{label}_[0-9][0-9].*"):
            old.unlink()
    copies = []
    for number, face in enumerate(faces, 1):
        copies.append(out / f"{LABELS[face.label]}_{number:02d}{face.path.suffix.lower()}")
        content = face.content()
        copies[-1].write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    return copies


def write_slides(pictures: Sequence[Path], clip: Path) -> None:
    """Write a video that shows each picture for a third of a second, at its own size unless that is too large.

    Raises:
        UsageError: the clip is not named .avi or .mp4.
        DataError: OpenCV can't write it there.
    """

    def slides() -> Iterator[np.ndarray]:
        for path in pictures:
            picture, slide = read_picture(path), Image.new("RGB", FRAME, (40, 40, 40))
            if picture.width > FRAME[0] or picture.height > FRAME[1]:
                picture = ImageOps.contain(picture, FRAME)
            slide.paste(picture, ((FRAME[0] - picture.width) // 2, (FRAME[1] - picture.height) // 2))
            yield from [np.asarray(slide)] * FRAMES_PER_FACE

    write_video(clip, slides(), fps=FPS)


if __name__ == "__main__":
    run_command(demo_pictures, "demo-pictures")

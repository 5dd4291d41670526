"""`python -m benchmarks.demo.pictures`: some held-out faces in a folder, and one after another in a video."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
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

FRAME = (640, 480)
FPS, FRAMES_A_FACE = 15.0, 5


def demo_pictures(
    data: Annotated[Path, typer.Argument(help="A catalog.csv.")],
    out: Annotated[Path, typer.Argument(help="The folder to copy them into.")],
    count: Annotated[int, typer.Option(min=1, help="How many of each class.")] = 6,
    clip: Annotated[Path | None, typer.Option(help="Write them as a video too (.avi).")] = None,
) -> int:
    """Copy some faces of the test split, named by what they are, and show them in a video."""
    faces = choose_held_out(load_data(data).split("test"), count)
    copies = copy_pictures(faces, out)
    print(f"{out}: {len(copies)} faces of the test split, named by what they are")
    if clip:
        write_slides(copies, clip)
        print(f"{clip}: the same, one after another")
    return 0


def choose_held_out(faces: Sequence[FaceRecord], count: int) -> list[FaceRecord]:
    """Return `count` faces of each class, the real ones first.

    Raises:
        DataError: there are none.
    """
    chosen = sorted(pick_faces(faces, 2 * count), key=lambda face: face.label)
    if not chosen:
        raise DataError("the test split is empty; give more faces")
    return chosen


def copy_pictures(faces: Sequence[FaceRecord], out: Path) -> list[Path]:
    """Copy the files into `out`, which holds nothing else afterwards, as real_01.jpg, fake_01.jpg and so on."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    copies = []
    for number, face in enumerate(faces, 1):
        copies.append(out / f"{LABELS[face.label]}_{number:02d}{face.path.suffix.lower()}")
        shutil.copyfile(face.path, copies[-1])
    return copies


def write_slides(pictures: Sequence[Path], clip: Path) -> None:
    """Write a Motion JPEG video that shows each picture for a third of a second, reduced only where it is too large.

    Raises:
        DataError: OpenCV can't write there.
    """
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), FPS, FRAME)
    if not writer.isOpened():
        raise DataError(f"{clip}: OpenCV can't write a video there")
    try:
        for path in pictures:
            slide = np.ascontiguousarray(np.asarray(_slide(read_picture(path)))[..., ::-1])
            for _ in range(FRAMES_A_FACE):
                writer.write(slide)
    finally:
        writer.release()


def _slide(picture: Image.Image) -> Image.Image:
    if picture.width > FRAME[0] or picture.height > FRAME[1]:
        picture = ImageOps.contain(picture, FRAME)
    slide = Image.new("RGB", FRAME, (40, 40, 40))
    slide.paste(picture, ((FRAME[0] - picture.width) // 2, (FRAME[1] - picture.height) // 2))
    return slide


if __name__ == "__main__":
    run_command(demo_pictures, "demo-pictures")

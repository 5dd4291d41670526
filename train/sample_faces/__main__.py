"""`python -m train.sample_faces`: write sample faces, or a short clip of them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import run_command
from edge_runtime.paths import expand
from train.data.catalog import SEED
from train.parallel import progress_bar
from train.sample_faces.files import make_clip, make_samples


def sample_faces(
    out: Annotated[Path, typer.Argument(help="A folder for real/ and fake/, or a clip (.avi, .mp4).")],
    faces: Annotated[int, typer.Option(min=1, help="Drawn faces; each gives a real and a fake picture.")] = 100,
    size: Annotated[int, typer.Option(help="Side of a picture in pixels.")] = 256,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a clip.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Another seed gives other faces.")] = SEED,
) -> int:
    """Draw faces and take each through a model of a camera (real) and of a generator (fake).

    They serve to try every step; they say nothing about photographs.

    Examples:
    - `python -m train.sample_faces faces --faces 500`
    - `python -m train.sample_faces clip.avi --seconds 4`
    """
    out = expand(out)
    if out.suffix:
        print(f"{make_clip(out, seconds=seconds, seed=seed)}: {seconds:g} s, left from the camera, right generated")
        return 0
    with progress_bar("drawing faces", faces) as advance:
        made = make_samples(out, faces, seed=seed, size=size, workers=os.cpu_count() or 1, progress=advance)
    print(f"{out}: {len(made)} pictures of {faces} drawn faces in real/ and fake/")
    return 0


def main() -> None:
    """Start the command."""
    run_command(sample_faces, "sample-faces")


if __name__ == "__main__":
    main()

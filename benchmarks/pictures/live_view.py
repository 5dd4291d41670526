"""`python -m benchmarks.pictures.live_view BUNDLE`: draws the live view of two videos of drawn faces as SVG."""

import io
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.sinks.live import LiveView
from edge_runtime.sources import open_sources
from export.children.scratch import ScratchFolder
from train.sample_faces import camera, draw_scene, half_and_half
from train.sample_faces.files import write_video

FRAMES = 60


def write_scene(path: Path, seed: int, people: int) -> None:
    """Write a video of drawn faces; of two people the left comes from a camera, the right from a generator."""
    random = np.random.default_rng(seed)
    picture, _ = draw_scene(seed, 640, 480, people)
    captured = half_and_half if people > 1 else camera
    write_video(path, (captured(picture, random) for _ in range(FRAMES)))


def live_picture(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    out: Annotated[Path, typer.Option(help="The SVG file.")] = Path("docs/pictures/live.svg"),
) -> int:
    """Draw the live view of two videos of drawn faces as SVG."""
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
    detector = Detector(bundle)
    choice, contract = detector.choice, detector.bundle.contract
    title = f"{contract.architecture} {contract.version}, {choice.precision.value} on {choice.device}"
    view = LiveView(console, title)
    with ScratchFolder() as folder:
        clips = [folder / "entrance.mp4", folder / "corridor.mp4"]
        for seed, (clip, people) in enumerate(zip(clips, (2, 1), strict=True)):
            write_scene(clip, seed, people)
        results = detector.pipeline(open_sources([str(clip) for clip in clips])).results()
        for judged in itertools.islice(results, 2 * FRAMES):
            view.write(replace(judged, result=replace(judged.result, source=Path(judged.result.source).name)))
        console.print(view.render())
    text = without_fonts(console.export_svg(title="edge-detect"))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(out)
    return 0


def without_fonts(svg: str) -> str:
    """Remove fonts that would be fetched from the network; the viewer's monospace font is used instead."""
    return re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)


if __name__ == "__main__":
    run_command(live_picture, "python -m benchmarks.pictures.live_view")

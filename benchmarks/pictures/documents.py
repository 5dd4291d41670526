"""`python -m benchmarks.pictures.documents`: makes the README's pictures from drawn faces."""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.errors import UsageError
from edge_runtime.pixels.drawing import draw_result
from train.sample_faces import draw_scene, half_and_half

SCENE_SEED, SCENE_SIZE = 31, (960, 540)
PAGE_WIDTH, PAGE_HEIGHT = 1100, 900
"""Size of the shown part of the report in pixels."""


def doc_pictures(
    bundle: Annotated[Path, typer.Argument(help="A bundle of the demo.")] = Path("demo/detector"),
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/pictures"),
    seed: Annotated[int, typer.Option(help="Seed of the drawn scene.")] = SCENE_SEED,
) -> int:
    """Make the README's pictures: a detection on drawn faces, and the bundle's report.

    Needs Chromium and the package `playwright`.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_detection(bundle, out / "detection.webp", seed)
    save_page(bundle / "report.html", out / "report.webp")
    print(f"{out}: detection.webp, report.webp")
    return 0


def save_detection(bundle: Path, path: Path, seed: int) -> None:
    """Save a judged scene of drawn faces, its left half from the camera and its right half from the generator."""
    drawn, _ = draw_scene(seed, *SCENE_SIZE, people=2)
    picture = Image.fromarray(half_and_half(drawn, np.random.default_rng(seed)))
    draw_result(picture, Detector(bundle, faces="tiled").detect(picture)).save(path, quality=88, method=6)


def save_page(page: Path, path: Path) -> None:
    """Save the top of an HTML page as a browser shows it.

    Raises:
        UsageError: Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        raise UsageError("chromium is not installed; install it to draw the report")
    shot = path.with_suffix(".png")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": PAGE_WIDTH, "height": PAGE_HEIGHT})
        view.goto(page.resolve().as_uri())
        view.screenshot(path=shot)
        browser.close()
    with Image.open(shot) as picture:
        picture.convert("RGB").save(path, quality=85, method=6)
    shot.unlink()


if __name__ == "__main__":
    run_command(doc_pictures, "python -m benchmarks.pictures.documents")

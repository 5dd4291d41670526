"""`python -m benchmarks.pictures.documents`: the pictures of the documentation, made from drawn faces alone."""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from edge_runtime.command import run_command
from edge_runtime.errors import UsageError

SCENE_SEED, SCENE_SIZE = 31, (960, 540)
PAGE_WIDTH, PAGE_HEIGHT = 1100, 900
"""Of the report's part that is shown, in pixels of the page."""


def doc_pictures(
    bundle: Annotated[Path, typer.Argument(help="A bundle of the demo.")] = Path("demo/detector"),
    out: Annotated[Path, typer.Option(help="Where the pictures are written.")] = Path("docs/pictures"),
    seed: Annotated[int, typer.Option(help="Of the drawn scene.")] = SCENE_SEED,
) -> int:
    """Make the pictures of the README: a detection on drawn faces, and the bundle's report.

    The report is drawn by Chromium, which must be installed, with the package `playwright`.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_detection(bundle, out / "detection.webp", seed)
    save_page(bundle / "report.html", out / "report.webp")
    print(f"{out}: detection.webp, report.webp")
    return 0


def save_detection(bundle: Path, path: Path, seed: int) -> None:
    """Save a drawn scene, its left half from the camera and its right half from the generator, as it is judged."""
    from edge_runtime.detector import Detector
    from edge_runtime.pixels.drawing import draw_result
    from train.sample_faces import draw_scene, half_and_half

    drawn, _ = draw_scene(seed, *SCENE_SIZE, people=2)
    picture = Image.fromarray(half_and_half(drawn, np.random.default_rng(seed)))
    draw_result(picture, Detector(bundle, faces="tiled").detect(picture)).save(path, quality=88, method=6)


def save_page(page: Path, path: Path) -> None:
    """Save the top of an HTML page as it looks in a browser.

    Raises:
        UsageError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        raise UsageError("no chromium is installed, which draws the report; install it")
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
    run_command(doc_pictures, "doc-pictures")

"""Makes the screenshots in docs/web.md: the page and the live page with drawn faces, in a real browser.

    python tests/edge_runtime/web/pictures.py docs/pictures

The model is a stand-in that judges by the grain of a picture, so that every verdict appears.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from openvino import opset13 as ops
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge_runtime.detector import Detector
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import PixelRecipe
from edge_runtime.review.desk import ReviewPlaces
from edge_runtime.review.sealing import write_key_pair
from edge_runtime.web.settings import Settings
from train.sample_faces import draw_face, draw_scene

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from conftest import colour_contract, serving, write_colour_bundle
from helpers import reviews
from helpers.face_model import find_face_model
from test_browser import CHROMIUM, FLAGS, PHONE

DESKTOP = {"width": 1280, "height": 860}
SIZE, CENTRE = 96, 0.118
GRAINY, FINE, SMOOTH, COARSE = 17.0, 12.6, 0.0, 3
"""Noise in grey levels for the verdicts real, uncertain and fake; width of a grain in pixels."""

LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)


def grain_network() -> ov.Model:
    """Return a network [1, 3, 96, 96] → logits [1, 2], saliency_map [1, 2, 12, 12]; grain speaks for real."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    kernel = np.stack([LAPLACIAN / 3] * 3)[None]
    detail = ops.absolute(ops.convolution(pixels, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1]))
    grain = ops.avg_pool(detail, [8, 8], [0, 0], [0, 0], [8, 8], True)
    evidence = ops.tanh(
        ops.multiply(ops.subtract(ops.constant(np.float32(0.155)), grain), ops.constant(np.float32(24)))
    )
    weights = ops.constant(np.array([-2.2, 2.2], np.float32).reshape(2, 1, 1, 1))
    saliency = ops.convolution(evidence, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    logits = ops.reduce_mean(saliency, ops.constant(np.array([2, 3])), keep_dims=False)
    for node, name in ((logits, "logits"), (saliency, "saliency_map")):
        node.output(0).get_tensor().set_names({name})
    return ov.Model([logits, saliency], [pixels], "grain")


def grained(pixels: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """Return `pixels`, uint8 RGB, with coarse camera-like noise."""
    height, width = pixels.shape[:2]
    grey = np.random.default_rng(seed).normal(0.0, noise, (height // COARSE + 1, width // COARSE + 1))
    grey = grey.repeat(COARSE, axis=0).repeat(COARSE, axis=1)[:height, :width, None]
    return (pixels + grey).clip(0, 255).astype(np.uint8)


def people(width: int, height: int) -> np.ndarray:
    """Draw three people, judged real, fake and uncertain from left to right."""
    scene, _ = draw_scene(11, width, height, 3)
    for number, noise in enumerate((GRAINY, SMOOTH, FINE)):
        part = slice(number * width // 3, (number + 1) * width // 3)
        scene[:, part] = grained(scene[:, part], noise)
    return scene


def drawn(folder: Path) -> list[Path]:
    """Write the pictures to judge and return their paths."""
    sky = np.linspace((120, 160, 220), (228, 232, 236), 480)
    pictures = {
        "three-people.jpg": people(960, 640),
        "portrait.jpg": grained(draw_face(13, 480), GRAINY),
        "profile-picture.jpg": grained(draw_face(9, 480), SMOOTH),
        "meeting.jpg": grained(draw_face(7, 480), FINE),
        "sky.jpg": np.repeat(sky[:, None], 640, axis=1).astype(np.uint8),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name, quality=92)
    (folder / "broken.jpg").write_bytes((folder / "portrait.jpg").read_bytes()[:3000])
    return [folder / name for name in (*pictures, "broken.jpg")]


def clip(folder: Path) -> Path:
    """Write a short video of three people for the live page."""
    scene = people(1280, 720)
    path = folder / "camera.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (1280, 720))
    for _ in range(60):
        writer.write(np.ascontiguousarray(scene[:, :, ::-1]))
    writer.release()
    return path


def keep(page: Page, path: Path, *, whole: bool = True) -> None:
    """Save a screenshot as WebP."""
    if whole:
        # full_page=True would take the touch screen away.
        height = page.evaluate("() => document.documentElement.scrollHeight")
        page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(path, "WEBP", quality=88, method=6)


@contextmanager
def opened(browser: Browser, base: str, viewport: dict[str, int], **options: object) -> Iterator[Page]:
    """Open a page, and close it again."""
    with browser.new_context(viewport=viewport, **{"locale": "en-GB", **options}) as context:
        page = context.new_page()
        page.goto(base)
        yield page


def judged(page: Page, files: list[Path]) -> None:
    """Choose pictures and wait for their verdicts."""
    page.set_input_files("#choose", [str(path) for path in files])
    expect(page.locator(".card:not(.waiting)")).to_have_count(len(files), timeout=30_000)
    page.wait_for_timeout(300)


def review_pictures(browser: Browser, folder: Path, bundle: Path, out: Path) -> None:
    """Make the screenshots of the review page."""
    reviews.keep(folder / "kept", [write_key_pair(folder / "key")], range(5), source="camera 0", size=480)
    settings = Settings(review=ReviewPlaces(folder / "kept", folder / "key"))
    with serving(Detector(Bundle.open(bundle)), settings) as (host, port):
        address = f"http://{host}:{port}/review"
        for viewport, name in ((DESKTOP, "web-review.webp"), (PHONE, "web-review-phone.webp")):
            with opened(browser, address, viewport, has_touch=viewport is PHONE, is_mobile=viewport is PHONE) as page:
                for reviewer, keys in (("Ann", "rfrf"), ("Ben", "rff")):
                    page.fill("#name", reviewer)
                    page.press("#name", "Enter")
                    for number, key in enumerate(keys if viewport is DESKTOP else ""):
                        expect(page.locator("#progress")).to_contain_text(f"{number} of 5")
                        page.keyboard.press(key)
                    page.wait_for_timeout(1000)
                    if reviewer == "Ann":
                        page.get_by_role("button", name="Change").click()
                keep(page, out / name)


def main(out: Path) -> None:
    """Make all screenshots."""
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        contract = colour_contract(architecture="stand-in", input_size=SIZE, pixels=PixelRecipe(resize_to=SIZE))
        bundle = write_colour_bundle(folder / "detector", find_face_model(), contract, grain_network())
        files = drawn(folder)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(Detector(Bundle.open(bundle)), Settings(camera=str(clip(folder)))) as (host, port):
            base = f"http://{host}:{port}"
            with opened(browser, base, DESKTOP) as page:
                judged(page, files)
                keep(page, out / "web-desktop.webp")
            with opened(browser, base, DESKTOP, color_scheme="dark") as page:
                judged(page, files[:3])
                page.check("#heat")
                keep(page, out / "web-heat-dark.webp")
            with opened(browser, base, PHONE, locale="zh-CN", has_touch=True, is_mobile=True) as page:
                judged(page, files[1:3])
                keep(page, out / "web-phone-zh.webp")
            with opened(browser, f"{base}/live", DESKTOP) as page:
                expect(page.locator("#state")).to_have_text("on", timeout=30_000)
                page.wait_for_timeout(2000)
                keep(page, out / "web-live.webp", whole=False)
        review_pictures(browser, folder, bundle, out)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures"))

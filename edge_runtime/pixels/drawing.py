"""A picture with what was said of it: a box, the verdict and the score on each face."""

import functools

from PIL import Image, ImageDraw, ImageFont

from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.model.contract import Verdict

COLOURS = {Verdict.FAKE: (255, 154, 92), Verdict.REAL: (111, 224, 196), Verdict.UNCERTAIN: (241, 238, 251)}
"""Orange, green and near white; the word stands beside each, since not everybody tells colours apart."""

DARK = (13, 17, 22)
DASH, SPACE = 10, 7
"""An uncertain face has a dashed box, in widths of its line."""


def draw_result(picture: Image.Image, result: FrameResult, caption: str = "") -> Image.Image:
    """Return a copy of `picture`, RGB, with what `result` says of each face, and `caption` at its lower edge."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(picture.size) / 400))
    font = _font(max(13, round(max(picture.size) / 48)))
    for face in result.faces:
        if face.detection is not None:
            _box(pen, face, width)
        _label(pen, face, font, picture.size)
    if caption:
        _caption(pen, caption, font, picture.size)
    return drawn


def _caption(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: tuple[int, int]
) -> None:
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    pad = height // 4
    top = size[1] - height - 2 * pad
    pen.rectangle((0, top, width + 2 * pad, size[1]), fill=DARK)
    pen.text((pad, top + pad), text, fill=COLOURS[Verdict.UNCERTAIN], font=font)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def label_of(face: FaceResult) -> str:
    """Return what stands at a face: its verdict, and the score where it has one."""
    score = face.score if face.track_score is None else face.track_score
    return face.verdict.value if score is None else f"{face.verdict.value} {score:.2f}"


def _box(pen: ImageDraw.ImageDraw, face: FaceResult, width: int) -> None:
    left, top, right, bottom = face.box
    colour = COLOURS[face.verdict]
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=DARK, width=width + 2)
    if face.verdict is not Verdict.UNCERTAIN:
        pen.rectangle(face.box, outline=colour, width=width)
        return
    for x in range(left, right, (DASH + SPACE) * width):
        for y in (top, bottom):
            pen.line((x, y, min(x + DASH * width, right), y), colour, width)
    for y in range(top, bottom, (DASH + SPACE) * width):
        for x in (left, right):
            pen.line((x, y, x, min(y + DASH * width, bottom)), colour, width)


def _label(
    pen: ImageDraw.ImageDraw,
    face: FaceResult,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write above the box, inside it where there is no room above."""
    text = label_of(face)
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    pad = height // 4
    left = min(max(face.box[0], 0), max(size[0] - width - 2 * pad, 0))
    above = face.box[1] - height - 2 * pad
    top = above if above >= 0 else max(face.box[1], 0)
    pen.rectangle((left, top, left + width + 2 * pad, top + height + 2 * pad - 1), fill=DARK)
    pen.text((left + pad, top + pad), text, fill=COLOURS[face.verdict], font=font)

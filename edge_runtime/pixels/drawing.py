"""Draws results on a picture: a box, the verdict and the score at each face."""

import functools

from PIL import Image, ImageDraw, ImageFont

from edge_runtime.judging.decide import SHORT_MEANING
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.model.contract import Verdict

COLOURS = {Verdict.FAKE: (255, 154, 92), Verdict.REAL: (111, 224, 196), Verdict.UNCERTAIN: (241, 238, 251)}
"""Orange, green and near white; the word is written too, since not everybody can tell colours apart."""

DARK = (13, 17, 22)
DASH, SPACE = 10, 7
"""Dashes of an uncertain face's box, in line widths."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_result(picture: Image.Image, result: FrameResult, caption: str = "") -> Image.Image:
    """Return a copy of `picture`, RGB, with the verdict on each face, and `caption` at its lower edge."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    width, font = max(2, round(max(picture.size) / 400)), _font(max(13, round(max(picture.size) / 48)))
    for face in result.faces:
        left, top, _, _ = face.box
        if face.detection is not None:
            _draw_box(pen, face, width)
        text, colour = label_of(face), COLOURS[face.verdict]
        text_width, height, pad = _text_size(pen, text, font)
        # Above the box, or inside it where there is no room above.
        above = top - height - 2 * pad
        x = min(max(left, 0), max(picture.width - text_width - 2 * pad, 0))
        _draw_text(pen, text, font, (x, above if above >= 0 else max(top, 0)), colour)
    if caption:
        _, height, pad = _text_size(pen, caption, font)
        _draw_text(pen, caption, font, (0, picture.height - height - 2 * pad), COLOURS[Verdict.UNCERTAIN])
    return drawn


def label_of(face: FaceResult) -> str:
    """Return a face's label: its verdict, for a real one what that means, and its score if it has one."""
    score = face.score if face.track_score is None else face.track_score
    text = f"real ({SHORT_MEANING[Verdict.REAL]})" if face.verdict is Verdict.REAL else face.verdict.value
    return text if score is None else f"{text} {score:.2f}"


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _text_size(pen: ImageDraw.ImageDraw, text: str, font: Font) -> tuple[int, int, int]:
    """Return width and height of `text` and the space around it, in pixels."""
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    return int(width), int(height), int(height) // 4


def _draw_text(
    pen: ImageDraw.ImageDraw, text: str, font: Font, place: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    width, height, pad = _text_size(pen, text, font)
    left, top = place
    pen.rectangle((left, top, left + width + 2 * pad, top + height + 2 * pad - 1), fill=DARK)
    pen.text((left + pad, top + pad), text, fill=colour, font=font)


def _draw_box(pen: ImageDraw.ImageDraw, face: FaceResult, width: int) -> None:
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

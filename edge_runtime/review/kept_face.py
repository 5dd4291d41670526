"""The files that hold faces kept for review: a PNG that carries its record, and the folder's `review.json`."""

import io
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edge_runtime.errors import PictureError
from edge_runtime.judging.results import FaceResult, FrameResult, iso_time
from edge_runtime.pixels.phash import perceptual_hash
from edge_runtime.pixels.preprocess import square_within
from edge_runtime.review.selection import KeptFor

DESCRIPTION = "review.json"
REASONS = "|".join(reason.value for reason in KeptFor)
NAME = re.compile(rf"face-(\d{{8}}T\d{{9}})Z-({REASONS})-([0-9a-f]{{16}})\.png(?:\.age)?")
"""Time, why it was kept, perceptual hash: what a restarted board needs, and all that can be read without the key."""

RECORD = "deepfake-edge"
"""Key of the PNG's text with the record."""

MARGIN = 1.0
"""Surroundings that are kept with a face, as a share of its longer side: a person needs them, and so does the face
detector when it looks for the face again."""


def face_hash(picture: Image.Image, face: FaceResult) -> str:
    """Return the perceptual hash of `face` without its surroundings."""
    return perceptual_hash(picture.crop(_square(picture, face, 0.0)))


def face_png(
    picture: Image.Image, result: FrameResult, face: FaceResult, reason: KeptFor, about: Mapping[str, Any]
) -> bytes:
    """Cut `face` and its surroundings out of `picture`, pixel by pixel, with what the detector said of it.

    The record is JSON in the PNG's text: the keys of `about`, and `source`, `time`, `frame`, `track`, `box` (of the
    face in the PNG), `detection`, `score`, `track_score`, `verdict`, `reason`, `kept_for`, `device`, `precision` and
    `model`.
    """
    region = _square(picture, face, MARGIN)
    record = {
        **about,
        "source": result.source,
        "time": iso_time(result.time),
        "frame": result.frame,
        "track": face.track,
        "box": [edge - region[axis % 2] for axis, edge in enumerate(face.box)],
        "detection": face.detection,
        "score": face.score,
        "track_score": face.track_score,
        "verdict": face.verdict.value,
        "reason": face.reason_code.value if face.reason_code else None,
        "kept_for": reason.value,
        "device": result.device,
        "precision": result.precision,
        "model": result.model,
    }
    text = PngInfo()
    text.add_itxt(RECORD, json.dumps(record))
    file = io.BytesIO()
    picture.crop(region).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def _square(picture: Image.Image, face: FaceResult, margin: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, square_within(picture.size, face.box, margin))
    return left, top, right, bottom


def file_name(time: datetime, reason: KeptFor, phash: str) -> str:
    """Return the name of a kept face's PNG; NAME takes it apart."""
    return f"face-{re.sub(r'[-:.]', '', iso_time(time))}-{reason.value}-{phash}.png"


def read_record(png: bytes) -> dict[str, Any]:
    """Return the record of a kept face; see `keep_face`.

    Raises:
        PictureError: this is not such a PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.load()
            record = json.loads(picture.info[RECORD])
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        raise PictureError("not a face that edge-detect kept, or damaged") from None
    if not isinstance(record, dict):
        raise PictureError("not a face that edge-detect kept")
    return record


def taken(name: str) -> datetime | None:
    """Return when the face in a file of this name was seen; None if it is not a kept face's name."""
    found = NAME.fullmatch(name)
    if not found:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def delete_after(time: datetime, days: float) -> str:
    """Return when a face seen at `time` must be gone, as ISO 8601."""
    return iso_time(time + timedelta(days=days))

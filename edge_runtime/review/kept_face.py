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
from edge_runtime.printable import printable
from edge_runtime.review.selection import KeptFor

DESCRIPTION = "review.json"
REASONS = "|".join(reason.value for reason in KeptFor)
NAME = re.compile(rf"face-(\d{{8}}T\d{{9}})Z-({REASONS})-([0-9a-f]{{16}})\.png(?:\.age)?")
"""Time, why it was kept, perceptual hash: what a restarted board needs, and all that can be read without the key."""

PNG_END = b"IEND\xaeB`\x82"

RECORD = "deepfake-edge"
"""Key of the PNG's text with the record."""

FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("board", "purpose", "source", "time", "verdict", "kept_for", "delete_after"), str),
    "width": int,
    "height": int,
    "box": list,
    "score": (float, int),
}
"""What every record has."""

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

    The record is JSON in the PNG's text: the keys of `about`, those of FIELDS (`box` is of the face in the PNG), and
    `frame`, `track`, `detection`, `score`, `track_score`, `reason`, `device`, `precision` and `model`.
    """
    region = _square(picture, face, MARGIN)
    record = {
        **about,
        "source": printable(result.source),
        "time": iso_time(result.time),
        "frame": result.frame,
        "track": face.track,
        "width": region[2] - region[0],
        "height": region[3] - region[1],
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
    picture.crop(region).save(file, "PNG", pnginfo=text, compress_level=1)
    return file.getvalue()


def _square(picture: Image.Image, face: FaceResult, margin: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, square_within(picture.size, face.box, margin))
    return left, top, right, bottom


def file_name(time: datetime, reason: KeptFor, phash: str) -> str:
    """Return the name of a kept face's PNG; NAME takes it apart."""
    return f"face-{re.sub(r'[-:.]', '', iso_time(time))}-{reason.value}-{phash}.png"


def read_record(png: bytes) -> dict[str, Any]:
    """Return the record of a kept face; see `face_png`.

    Raises:
        PictureError: this is not such a PNG.
    """
    try:
        if not png.endswith(PNG_END):
            raise ValueError("cut off")
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            record = dict(json.loads(picture.info[RECORD]))
        # Whoever has the public key can write one: only what was checked reaches a page.
        valid = all(isinstance(record[name], kind) for name, kind in FIELDS.items()) and 0.0 <= record["score"] <= 1.0
        record["box"] = [int(edge) for edge in record["box"]]
        for name in ("time", "delete_after") if valid else ():
            record[name] = iso_time(parse_time(record[name]))
    except (
        *(OSError, SyntaxError, ValueError, TypeError, KeyError, OverflowError),
        *(Image.DecompressionBombError, RecursionError),
    ):
        valid = False
    if not valid or len(record["box"]) != 4:
        raise PictureError("not a face that edge-detect kept, or damaged")
    return {name: printable(value) if isinstance(value, str) else value for name, value in record.items()}


def parse_time(text: str) -> datetime:
    """Return the time in a record; ValueError if it is none."""
    # Python 3.10 doesn't read a Z.
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def delete_after(time: datetime, days: float) -> str:
    """Return when a face seen at `time` must be gone, as ISO 8601."""
    return iso_time(time + timedelta(days=days))

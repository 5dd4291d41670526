"""What reviewed disagreements of a shadow detector say: the lines of `edge-detect --shadow`, and a review database."""

import json
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.model.contract import Verdict
from edge_runtime.review.database import ReviewDatabase, ReviewLabel
from edge_runtime.review.sealing import SUFFIX
from edge_runtime.review.sequential import FieldTest


def read_disagreements(files: Sequence[Path], old: str, new: str) -> dict[str, tuple[Verdict, Verdict]]:
    """Return the verdicts of old and new by the name of the kept picture; lines of other model versions are skipped.

    Raises:
        DataError: a file can't be read, or a line is not one of `edge-detect --shadow`.
    """
    found: dict[str, tuple[Verdict, Verdict]] = {}
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise DataError(f"{file}: can't be read ({why}); give what edge-detect --shadow wrote") from None
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                first, second = values["old"], values["new"]
                verdicts = Verdict(first["verdict"]), Verdict(second["verdict"])
                same = (first["model"], values["shadow"]) == (old, new)
                picture = values["picture"]
            except (ValueError, KeyError, TypeError):
                if number == len(lines):
                    continue  # Cut off when the board lost power.
                raise DataError(f"{file}:{number}: not a line of edge-detect --shadow; give its file") from None
            if same and isinstance(picture, str):
                found[picture.removesuffix(SUFFIX)] = verdicts
    return found


def field_test(files: Sequence[Path], database: ReviewDatabase, old: str, new: str) -> FieldTest:
    """Return the test of the detector of version `new` against `old`, fed in the order of the reviews.

    Raises:
        DataError: files or database can't be used.
    """
    verdicts = read_disagreements(files, old, new)
    labels, faces = database.labels(), {face.id: face for face in database.faces()}
    last = {review.face_id: review.id for review in database.reviews()}
    test = FieldTest()
    for number in sorted(labels, key=lambda face: last[face]):
        pair = verdicts.get(faces[number].path.name.removesuffix(SUFFIX))
        label = labels[number]
        if pair and label in (ReviewLabel.REAL, ReviewLabel.FAKE):
            test.add(*pair, fake=label is ReviewLabel.FAKE)
    return test

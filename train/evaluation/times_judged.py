"""How often a set of faces was judged: a test split wears out with use."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from edge_runtime.paths import state_folder
from train.data.catalog import FaceRecord

LOOKS = "evaluations.jsonl"
"""The file in the user's state folder, one line per evaluation."""


def count_judged(faces: Sequence[FaceRecord], model: str, folder: Path | None = None) -> int:
    """Note that `model` judged `faces`, and return how often they have been judged in total."""
    folder = folder or state_folder()
    mark = sha256("".join(sorted(face.sha256 for face in faces)).encode()).hexdigest()[:16]
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    line = json.dumps({"faces": mark, "count": len(faces), "model": model, "time": when})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOOKS).open("a+", encoding="utf-8") as file:
            file.write(line + "\n")
            file.seek(0)
            return sum(f'"{mark}"' in before for before in file)
    except OSError:
        # A home that can't be written to must not stop an evaluation.
        return 1

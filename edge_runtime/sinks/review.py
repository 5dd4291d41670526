"""Faces for a person to review, only on request: few, encrypted, and deleted after a time."""

import contextlib
import functools
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.pipeline import Judged
from edge_runtime.review.kept_face import DESCRIPTION, NAME, delete_after, face_hash, face_png, file_name
from edge_runtime.review.sealing import SUFFIX, sealer
from edge_runtime.review.selection import DAY_S, Caps, KeptFor, NearDuplicates, Selector
from edge_runtime.sinks import Sink
from edge_runtime.sinks.kept import KeptFiles


class ReviewSink(Sink):
    """A folder of faces for a person to review, see `Selector`, with `review.json` that says why and for how long.

    Files are PNGs, encrypted for `public_keys` (age format), readable by their owner only, and deleted after `days`. At
    most `per_hour` and `per_day` are kept, and no near-duplicates; both hold across restarts.

    Args:
        folder: created if missing, for its owner alone.
        purpose: why faces are kept. A folder has one purpose.
        public_keys: age public keys; without any the files are not encrypted.
        days, per_hour, per_day: see above.
        sample: share of faces, in [0, 1], that is kept whatever their verdict.

    Raises:
        UsageError: the folder can't be used or has another purpose, or a key can't be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        purpose: str,
        public_keys: Sequence[str],
        days: float,
        per_hour: int,
        per_day: int,
        sample: float,
    ) -> None:
        super().__init__(folder)
        self._purpose, self._days = purpose, days
        self._seal = sealer(public_keys) if public_keys else None
        self._files = KeptFiles(folder, NAME, max_age_s=days * DAY_S, beside=(DESCRIPTION,))
        self._description = folder / DESCRIPTION
        description = {
            "purpose": purpose,
            "delete_after_days": days,
            "encrypted_for": list(public_keys),
            "per_hour": per_hour,
            "per_day": per_day,
            "sample": sample,
        }
        self._to_describe: str | None = json.dumps(description, ensure_ascii=False, indent=2) + "\n"
        with contextlib.suppress(OSError, ValueError, TypeError):
            before = self._description.read_text(encoding="utf-8")
            if (other := dict(json.loads(before)).get("purpose")) != purpose:
                raise UsageError(f"{folder}: faces there are kept for another purpose ({other}); choose another folder")
            if before == self._to_describe:
                self._to_describe = None
        self._files.tidy()
        earlier = [(NAME.fullmatch(path.name), moment) for path, moment in self._files.made.items()]
        self._caps = Caps(per_hour, per_day, [(moment, KeptFor(found[2])) for found, moment in earlier if found])
        self._seen = NearDuplicates(found[3] for found, _ in earlier if found)
        self._selector = Selector(sample)

    def write(self, judged: Judged) -> None:
        """Keep the frame's faces that a person should look at."""
        result = judged.result
        for face in result.faces:
            reason = self._selector.reason(result, face)
            # Only now, since a live frame is decoded for it.
            if reason and (picture := judged.shown()) is not None:
                self.keep(picture, result, face, reason)
        self._files.tidy_if_due()

    def keep(self, picture: Image.Image, result: FrameResult, face: FaceResult, reason: KeptFor) -> str | None:
        """Keep `face` and return its file's name; None if the caps, a near-duplicate or the disk forbid it."""
        if not self._caps.allow(reason, time.monotonic()):
            return None
        phash = face_hash(picture, face)
        if phash in self._seen:
            return None
        about = {
            "board": socket.gethostname(),
            "purpose": self._purpose,
            "delete_after": delete_after(result.time, self._days),
            "phash": phash,
        }
        name, data = file_name(result.time, reason, phash), face_png(picture, result, face, reason, about)
        if self._seal is not None:
            name, data = name + SUFFIX, self._seal(data)
        try:
            if self._to_describe is not None:
                private = functools.partial(os.open, mode=0o600)
                write_atomic(self._description, self._to_describe, opener=private)
                self._to_describe = None
            self._files.save(name, data)
        except OSError as error:
            self.losses.add(error.strerror or str(error))
            return None
        self.losses.over()
        self._caps.add(reason, time.monotonic())
        self._seen.add(phash)
        return name

    def close(self) -> None:
        """Delete what is too old."""
        self._files.tidy()

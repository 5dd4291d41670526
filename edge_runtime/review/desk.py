"""The workstation's side of a review: opens kept faces, deletes expired ones, and notes what people say."""

import hashlib
import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_runtime.errors import PictureError, UsageError
from edge_runtime.paths import expand
from edge_runtime.review.database import ReviewDatabase, ReviewFace
from edge_runtime.review.kept_face import NAME, parse_time, read_record
from edge_runtime.review.sealing import SUFFIX, PrivateKey

log = logging.getLogger(__name__)

DATABASE = "reviews.sqlite"
"""Name of the database in the folder of faces, unless another is given."""


@dataclass(frozen=True)
class ReviewPlaces:
    """Where a review is kept.

    Attributes:
        folder: of faces that `edge-detect --review` kept, or of such folders of several boards.
        private_key: file of the key that opens them; None if they are not encrypted.
        database: SQLite file of the reviews; None is `reviews.sqlite` in the folder.
    """

    folder: Path
    private_key: Path | None = None
    database: Path | None = None


class ReviewDesk:
    """Faces to review, and the database of reviews; threads may share it.

    Raises:
        UsageError: the folder or the key can't be used.
        DataError: the database can't be used.
    """

    def __init__(self, places: ReviewPlaces) -> None:
        self._folder = expand(places.folder).absolute()
        if not self._folder.is_dir():
            what = "is a file; give its folder" if self._folder.exists() else "not found; give the folder of kept faces"
            raise UsageError(f"--review {places.folder}: {what}")
        self._key = PrivateKey(expand(places.private_key)) if places.private_key else None
        path = expand(places.database or self._folder / DATABASE)
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise UsageError(f"{path}: can't be written ({error.strerror}); choose another --review-database") from None
        self.database = ReviewDatabase(path, create=True)
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[int, datetime]] = {}
        # By what tells whether a file has changed: it may still have been on its way.
        self._unreadable: dict[Path, tuple[int, int]] = {}
        self.refresh()

    @property
    def unreadable(self) -> int:
        """How many files can't be opened with this key, or are damaged."""
        return len(self._unreadable)

    def refresh(self) -> None:
        """Take in new faces, and delete those whose time is over."""
        with self._lock:
            files = {path for path in self._folder.rglob("face-*.png*") if NAME.fullmatch(path.name)}
            self._unreadable = {path: seen for path, seen in self._unreadable.items() if _state(path) == seen}
            known = {path: face for path, face in self._known.items() if path in files}
            fresh = sorted(files - self._unreadable.keys() - known.keys(), key=lambda path: path.name)
            read = [found for path in fresh if (found := self._read(path))]
            numbers = self.database.add_faces([face for face, _ in read])
            known.update((face.path, (number, expiry)) for number, (face, expiry) in zip(numbers, read, strict=True))
            now = datetime.now(timezone.utc)
            for path in [path for path, (_, expiry) in known.items() if expiry <= now]:
                del known[path]
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning(f"{path}: its time is over, but it can't be deleted ({error.strerror})")
            self._known = known

    def _read(self, path: Path) -> tuple[ReviewFace, datetime] | None:
        """Return a face, and when it must be gone; None if it can't be read."""
        state = _state(path)
        try:
            data = path.read_bytes()
            record = read_record(self._opened(path, data))
            face = ReviewFace(
                path=path,
                sha256=hashlib.sha256(data).hexdigest(),
                source=f"{record['board']}: {record['source']}",
                time=parse_time(record["time"]),
                verdict=record["verdict"],
                score=record["score"],
                reason=record["kept_for"],
            )
            expiry = parse_time(record["delete_after"])
        except (PictureError, OSError, ValueError) as error:
            log.warning(f"{path}: {error}")
            self._unreadable[path] = state
            return None
        return face, expiry

    def _opened(self, path: Path, data: bytes) -> bytes:
        if path.suffix != SUFFIX:
            return data
        if self._key is None:
            raise PictureError("is encrypted; give the key with --review-private-key")
        return self._key.opened(data)

    def _paths(self) -> dict[int, Path]:
        """Where each face that still exists is, by its number."""
        return {number: path for path, (number, _) in self._known.items()}

    def faces(self) -> list[int]:
        """Return the numbers of the faces that still exist, in the order in which they came."""
        return sorted(self._paths())

    def open(self, number: int) -> tuple[bytes, dict[str, Any]] | None:
        """Return a face's PNG and record; None if there is no such face any more."""
        path = self._paths().get(number)
        try:
            png = None if path is None else self._opened(path, path.read_bytes())
            return None if png is None else (png, read_record(png))
        except (PictureError, OSError):
            return None


def _state(path: Path) -> tuple[int, int]:
    """Return time and size of a file; zeros if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size

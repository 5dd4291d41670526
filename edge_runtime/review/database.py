"""The review database: faces that were kept for review, and what people said about them. Standard library only."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.judging.results import iso_time
from edge_runtime.paths import expand

APPLICATION = 0x64664564
"""SQLite's application_id of a review database ("dfEd")."""

FORMAT = 1
"""SQLite's user_version: of the tables below."""

BUSY_S = 10.0
"""How long to wait for another process that writes."""

TABLES = """
CREATE TABLE faces (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    time TEXT NOT NULL,
    verdict TEXT NOT NULL,
    score REAL,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY,
    face_id INTEGER NOT NULL REFERENCES faces (id),
    reviewer TEXT NOT NULL,
    label TEXT NOT NULL CHECK (label IN ('real', 'fake', 'skip', 'unusable')),
    time TEXT NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0 CHECK (undone IN (0, 1))
) STRICT;
CREATE INDEX reviews_of_face ON reviews (face_id);
"""


class ReviewLabel(str, Enum):
    """What a reviewer says about a face."""

    REAL = "real"
    FAKE = "fake"
    SKIP = "skip"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class ReviewFace:
    """A face that was kept for review.

    Attributes:
        id: its number in the database; 0 before it is added.
        path: the picture, absolute; stored relative to the database's folder if it is inside.
        sha256: of the picture's file, hexadecimal. A picture is kept once.
        source: the camera, video or folder.
        time: when the frame was taken, aware.
        verdict: the detector's: real, fake or uncertain.
        score: its calibrated probability of fake, in [0, 1]; None if it could not be judged.
        reason: why it was kept, such as uncertain, disagreement, random or shadow.
    """

    path: Path
    sha256: str
    source: str
    time: datetime
    verdict: str
    score: float | None
    reason: str
    id: int = 0


@dataclass(frozen=True)
class Review:
    """What one reviewer said about one face, and when; `undone` if it was taken back."""

    id: int
    face_id: int
    reviewer: str
    label: ReviewLabel
    time: datetime
    undone: bool = False


class ReviewDatabase:
    """A review database. Threads and processes may use the same file at once.

    Args:
        path: of the SQLite file.
        create: make it if there is none.

    Raises:
        DataError: there is none, or the file is something else.
    """

    def __init__(self, path: Path | str, *, create: bool = False) -> None:
        self.path = expand(path).absolute()
        if not create and not self.path.is_file():
            raise DataError(f"{path}: no review database; name the file that edge-serve writes reviews to")
        with self._connection() as db:
            # Two processes may both find an empty file.
            db.execute("BEGIN IMMEDIATE")
            held = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            kind = (db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0])
            if create and not held:
                for statement in filter(str.strip, TABLES.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            elif kind != (APPLICATION, FORMAT):
                what = f"has format {kind[1]}, not {FORMAT}" if kind[0] == APPLICATION else "is not a review database"
                raise DataError(f"{path}: {what}; name the file that edge-serve writes reviews to")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection of this thread; commit unless an error leaves the block."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level="IMMEDIATE")) as db, db:
                db.execute("PRAGMA foreign_keys = ON")
                yield db
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: can't be used as a review database ({error}); restore it, or give another"
            ) from None

    def add_face(self, face: ReviewFace) -> int:
        """Add `face` and return its number; of a picture that is held already, the number it has."""
        return self.add_faces([face])[0]

    def add_faces(self, faces: Sequence[ReviewFace]) -> list[int]:
        """Add all `faces` at once, or none, and return their numbers as `add_face` does."""
        root = self.path.parent
        numbers = []
        with self._connection() as db:
            for face in faces:
                path = face.path.absolute()
                stored = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
                values = (stored, face.sha256, face.source, iso_time(face.time), face.verdict, face.score, face.reason)
                db.execute(
                    "INSERT INTO faces (path, sha256, source, time, verdict, score, reason) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256) DO NOTHING",
                    values,
                )
                found = db.execute("SELECT id FROM faces WHERE sha256 = ?", (face.sha256,)).fetchone()
                numbers.append(int(found[0]))
        return numbers

    def faces(self) -> list[ReviewFace]:
        """Return all faces in the order in which they were added."""
        return self._faces("ORDER BY id")

    def face(self, number: int) -> ReviewFace | None:
        """Return the face with this number, or None."""
        found = self._faces("WHERE id = ?", number)
        return found[0] if found else None

    def next_face(self, reviewer: str) -> ReviewFace | None:
        """Return the first face that `reviewer` has not labelled, or None."""
        found = self._faces(
            "WHERE id NOT IN (SELECT face_id FROM reviews WHERE reviewer = ? AND undone = 0) ORDER BY id LIMIT 1",
            reviewer,
        )
        return found[0] if found else None

    def _faces(self, where: str, *values: object) -> list[ReviewFace]:
        with self._connection() as db:
            rows = db.execute(
                f"SELECT id, path, sha256, source, time, verdict, score, reason FROM faces {where}", values
            ).fetchall()
        return [
            ReviewFace(
                id=number,
                path=self.path.parent / path,
                sha256=sha256,
                source=source,
                time=_time(time),
                verdict=verdict,
                score=score,
                reason=reason,
            )
            for number, path, sha256, source, time, verdict, score, reason in rows
        ]

    def add_review(self, face_id: int, reviewer: str, label: ReviewLabel, time: datetime | None = None) -> int:
        """Note what `reviewer` says about a face (now, unless `time` is given) and return the review's number.

        It replaces what the same reviewer said about it before.

        Raises:
            DataError: there is no such face.
        """
        when = iso_time(time or datetime.now(timezone.utc))
        try:
            with self._connection() as db:
                db.execute("UPDATE reviews SET undone = 1 WHERE face_id = ? AND reviewer = ?", (face_id, reviewer))
                added = db.execute(
                    "INSERT INTO reviews (face_id, reviewer, label, time) VALUES (?, ?, ?, ?)",
                    (face_id, reviewer, ReviewLabel(label).value, when),
                )
                return int(added.lastrowid or 0)
        except sqlite3.IntegrityError:
            raise DataError(f"{self.path}: holds no face {face_id}; reload the page") from None

    def undo(self, reviewer: str) -> Review | None:
        """Take back the last review of `reviewer` that stands, and return it; None if there is none."""
        with self._connection() as db:
            rows = db.execute(
                f"SELECT {_REVIEW} FROM reviews WHERE reviewer = ? AND undone = 0 ORDER BY id DESC LIMIT 1",
                (reviewer,),
            ).fetchall()
            if not rows:
                return None
            db.execute("UPDATE reviews SET undone = 1 WHERE id = ?", (rows[0][0],))
        return _review((*rows[0][:5], 1))

    def reviews(self, *, undone: bool = False) -> list[Review]:
        """Return the reviews that stand, oldest first; with `undone` also those that were taken back."""
        with self._connection() as db:
            rows = db.execute(f"SELECT {_REVIEW} FROM reviews WHERE undone <= ? ORDER BY id", (int(undone),)).fetchall()
        return [_review(row) for row in rows]

    def labels(self) -> dict[int, ReviewLabel | None]:
        """Return what the reviewers say about each face, by its number; None where they disagree.

        `skip` has no say, so a face that everybody skipped is left out.
        """
        said: dict[int, set[ReviewLabel]] = {}
        for review in self.reviews():
            if review.label is not ReviewLabel.SKIP:
                said.setdefault(review.face_id, set()).add(review.label)
        return {face: next(iter(labels)) if len(labels) == 1 else None for face, labels in said.items()}


_REVIEW = "id, face_id, reviewer, label, time, undone"


def _review(row: Sequence[object]) -> Review:
    number, face_id, reviewer, label, time, undone = row
    return Review(int(number), int(face_id), str(reviewer), ReviewLabel(label), _time(str(time)), bool(undone))  # type: ignore[call-overload]


def _time(text: str) -> datetime:
    # Python 3.10 doesn't read a Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

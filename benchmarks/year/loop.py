"""What an operator does in a year: on drift, has faces reviewed, trains, compares, lets the next model run in shadow,
and rolls it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmarks.promotion.field import field_test
from benchmarks.year.board import Board
from benchmarks.year.faces import Passer
from benchmarks.year.models import Models
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.alarm import DriftState
from edge_runtime.review.database import ReviewFace, ReviewLabel
from edge_runtime.review.desk import ReviewDesk, ReviewPlaces
from edge_runtime.review.sequential import FieldState

REVIEWER = "oracle"
MORE = 2
"""A refused model is followed by a review of a MORE-th part of the first one's faces, and another training."""


class EventKind(str, Enum):
    """What happened."""

    CHANGE = "generator changes"
    DRIFT = "drift"
    REVIEWED = "reviewed"
    KEPT = "model kept"
    TRAINED = "trained"
    PROMOTED = "promoted"
    REFUSED = "refused"
    SHADOW = "shadow"
    ROLLED_OUT = "rolled out"


@dataclass(frozen=True)
class Event:
    """What happened after how many faces of the year, and what there is to say about it."""

    faces: int
    kind: EventKind
    text: str = ""


@dataclass(frozen=True)
class Targets:
    """What is held, and what it costs people.

    Attributes:
        error: among the decided; above it a new model is made.
        coverage: share of decided faces; below it a new model is made too.
        reviewed: faces to review after drift was noticed.
    """

    error: float = 0.1
    coverage: float = 0.3
    reviewed: int = 200


class Stage(Enum):
    """What the operator waits for: drift, faces for review, or an answer of the shadow test."""

    WATCHING = 0
    REVIEWING = 1
    SHADOWING = 2


class Operator:
    """Looks at the board after every face.

    Args:
        board: at the door.
        models: of which the first is on the board.
        passers: the truth, shown for reviewed faces only.
        private_key: opens the reviewed faces.
        targets: to hold.
    """

    def __init__(
        self, board: Board, models: Models, passers: Sequence[Passer], private_key: Path, targets: Targets
    ) -> None:
        self.events: list[Event] = []
        self._board, self._models, self._passers, self._key = board, models, passers, private_key
        self._targets = targets
        self._stage, self._armed = Stage.WATCHING, True
        self._wanted = 0
        self._faces = 0
        self._known: set[int] = set()

    def after(self, faces: int) -> None:
        """Act after so many faces of the year."""
        self._faces = faces
        alarm = self._board.monitor.alarm
        if self._stage is Stage.WATCHING:
            self._armed |= alarm.state is DriftState.OK
            if self._armed and alarm.state is DriftState.DRIFT:
                self._armed = False
                self._note(EventKind.DRIFT, alarm.reason)
                self._review_more(self._targets.reviewed)
        elif len(self._kept()) >= self._wanted:
            if self._stage is Stage.REVIEWING:
                self._board.stop_sinks()
                self._decide(self._review())
            else:
                self._review()
                self._wanted = len(self._kept()) + 1
                self._ask_field()

    def _note(self, kind: EventKind, text: str = "") -> None:
        self.events.append(Event(self._faces, kind, text))
        print(f"{self._faces:5}  {kind.value}{': ' if text else ''}{text}", flush=True)

    def _kept(self) -> list[Path]:
        return list(self._board.reviews.glob("face-*"))

    def _review_more(self, faces: int) -> None:
        self._wanted = len(self._kept()) + faces
        self._stage = Stage.REVIEWING
        self._board.start_review()

    def _desk(self) -> ReviewDesk:
        return ReviewDesk(ReviewPlaces(self._board.reviews, self._key))

    def _review(self) -> list[tuple[ReviewFace, bool]]:
        """Say the truth about the faces that nobody has seen yet; return them, and whether each is fake."""
        desk = self._desk()
        said = []
        for face in desk.database.faces():
            opened = None if face.id in self._known else desk.open(face.id)
            if opened is not None:
                fake = self._passers[opened[1]["frame"]].fake
                desk.database.add_review(face.id, REVIEWER, ReviewLabel.FAKE if fake else ReviewLabel.REAL, face.time)
                self._known.add(face.id)
                said.append((face, fake))
        return said

    def _decide(self, said: Sequence[tuple[ReviewFace, bool]]) -> None:
        """Make a new model if too many of the reviewed faces were judged wrongly, or too few at all."""
        decided = [(face, fake) for face, fake in said if face.verdict != Verdict.UNCERTAIN.value]
        wrong = sum((face.verdict == Verdict.FAKE.value) != fake for face, fake in decided)
        error, coverage = wrong / max(len(decided), 1), len(decided) / max(len(said), 1)
        fakes = sum(fake for _, fake in said)
        self._note(EventKind.REVIEWED, f"{len(said)} faces, {fakes} fake; {wrong} of {len(decided)} verdicts wrong")
        if error <= self._targets.error and coverage >= self._targets.coverage:
            self._stage = Stage.WATCHING
            self._note(EventKind.KEPT, f"error {error:.3f}, coverage {coverage:.2f}")
            return
        self._models.make_next(self._desk().database.path, self._key)
        self._note(EventKind.TRAINED, f"model {self._models.made}")
        found = self._models.gate()
        if not found.promoted:
            self._note(EventKind.REFUSED, found.reason)
            self._review_more(self._targets.reviewed // MORE)
            return
        self._note(EventKind.PROMOTED, found.reason)
        self._stage, self._wanted = Stage.SHADOWING, len(self._kept()) + 1
        self._board.start_shadow(self._models.bundle(self._models.made))

    def _ask_field(self) -> None:
        """Roll the model out if reviewed disagreements show it better, drop it if they show it worse."""
        bundles = (self._models.bundle(number) for number in (self._models.used, self._models.made))
        versions = [Bundle.open(bundle).contract.version for bundle in bundles]
        test = field_test([self._board.disagreements], self._desk().database, *versions)
        if test.state is FieldState.OPEN:
            return
        self._board.stop_sinks()
        self._note(EventKind.SHADOW, test.text())
        if test.state is FieldState.WORSE:
            self._review_more(self._targets.reviewed // MORE)
            return
        self._models.accept()
        self._board.roll_out(self._models.bundle(self._models.used))
        self._note(EventKind.ROLLED_OUT, f"model {self._models.used}")
        self._stage, self._armed = Stage.WATCHING, True

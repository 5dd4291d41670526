"""Chooses the faces that a person should look at: uncertain ones, tracks that disagree with themselves, a sample."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from edge_runtime.judging.results import FaceResult, FrameResult, Reason
from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.phash import NEAR_BITS

SETTLED = 3
"""Judged frames before a track is called uncertain or may be in the sample."""

REVIEWABLE = (Reason.BETWEEN_THRESHOLDS, Reason.UNLIKE, Reason.UNSTABLE)
"""Of faces that are too small, dark or blurred, nobody could say more than the detector does."""

FOR_SAMPLE = 4
"""One in this many places is for the sample alone, however many faces are uncertain."""

HOUR_S, DAY_S = 3600.0, 86400.0


class KeptFor(str, Enum):
    """Why a face is kept for review."""

    UNCERTAIN = "uncertain"
    DISAGREEMENT = "disagreement"
    SAMPLE = "sample"
    SHADOW = "shadow"


@dataclass
class _Track:
    """How many of a track's frames were judged, which decided verdicts they had, and what the track was kept for."""

    judged: int = 0
    sides: set[Verdict] = field(default_factory=set)
    kept_for: set[KeptFor] = field(default_factory=set)


class Selector:
    """Says for each face of each frame whether it should be kept, and why; of a track once for each reason.

    Args:
        sample: share of all tracks and still faces, in [0, 1], that is drawn at random.
    """

    def __init__(self, sample: float) -> None:
        self._sample = sample
        self._tracks: dict[tuple[str, int], _Track] = {}

    def reason(self, result: FrameResult, face: FaceResult) -> KeptFor | None:
        """Return why `face`, one of `result`, should be kept; None if it should not."""
        if face.frame_verdict is None:
            return None
        uncertain = face.verdict is Verdict.UNCERTAIN and face.reason_code in REVIEWABLE
        if face.track is None:
            if random.random() < self._sample:
                return KeptFor.SAMPLE
            return KeptFor.UNCERTAIN if uncertain else None
        if len(self._tracks) > 10_000:
            self._tracks.clear()
        track = self._tracks.setdefault((result.source, face.track), _Track())
        track.judged += 1
        opposite = {Verdict.REAL: Verdict.FAKE, Verdict.FAKE: Verdict.REAL}.get(face.frame_verdict)
        wanted = {
            KeptFor.SAMPLE: track.judged == SETTLED and random.random() < self._sample,
            KeptFor.DISAGREEMENT: opposite in track.sides,
            KeptFor.UNCERTAIN: uncertain and track.judged >= SETTLED,
        }
        track.sides.add(face.frame_verdict)
        for reason, is_wanted in wanted.items():
            if is_wanted and reason not in track.kept_for:
                track.kept_for.add(reason)
                return reason
        return None


class Caps:
    """Limits how many faces are kept per hour and per day; a part of each is for the sample alone.

    Args:
        per_hour, per_day: at most so many in any 3600 s and 86,400 s.
        kept: when earlier faces were kept, in monotonic seconds, and why.
    """

    def __init__(self, per_hour: int, per_day: int, kept: Iterable[tuple[float, KeptFor]] = ()) -> None:
        self._limits = ((HOUR_S, per_hour), (DAY_S, per_day))
        self._kept = list(kept)

    def allow(self, reason: KeptFor, now: float) -> bool:
        """Return whether one more face may be kept for `reason` at `now`, in monotonic seconds."""
        self._kept = [(moment, why) for moment, why in self._kept if now - moment < DAY_S]
        for period_s, most in self._limits:
            within = [why for moment, why in self._kept if now - moment < period_s]
            others = sum(why is not KeptFor.SAMPLE for why in within)
            if len(within) >= most or (reason is not KeptFor.SAMPLE and others >= most - most // FOR_SAMPLE):
                return False
        return True

    def add(self, reason: KeptFor, now: float) -> None:
        """Count a face that was kept."""
        self._kept.append((now, reason))


class NearDuplicates:
    """Remembers perceptual hashes and finds those that are nearly equal."""

    def __init__(self, hashes: Iterable[str] = ()) -> None:
        self._hashes = [int(text, 16) for text in hashes]

    def __contains__(self, phash: str) -> bool:
        number = int(phash, 16)
        return any((number ^ other).bit_count() <= NEAR_BITS for other in self._hashes)

    def add(self, phash: str) -> None:
        """Remember a hash."""
        self._hashes.append(int(phash, 16))

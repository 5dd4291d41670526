"""Results for whole files: a closing verdict for each video and each face in it, and counts of the pictures."""

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.judging.decide import reason_text
from edge_runtime.judging.results import FrameResult, Reason, SourceState
from edge_runtime.judging.tracking import trimmed_mean
from edge_runtime.model.contract import DEMO_NOTICE, Calibration, ModelContract, Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.plain_json import plain
from edge_runtime.sources import Source

MIN_FRAMES = 16
"""A face of a video needs this many judged frames for a verdict, in at least half of as many equal parts of its
track."""

SEGMENT_FRAMES = 2 * MIN_FRAMES
"""A part of a track is fake if the mean over this many judged frames in a row is."""

COUNTED = ("real", "fake", "uncertain", "unreadable", "no face")

DOUBTS = {Reason.UNLIKE, Reason.UNSTABLE}
"""Reasons why a face with a score beyond the thresholds has no verdict."""

Segments = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TrackVerdict:
    """One face of a video.

    Attributes:
        track: its number, as in the frames' results.
        from_s, to_s: when it was first and last seen, in seconds.
        frames, judged: frames in which it was seen, and those that have a score.
        median: of the frames' scores; None if there are none.
        score: the trimmed mean over the track, of log-odds; None if too few frames were judged.
        verdict, reason: of the score; a face that is fake in parts is never real.
        fake_s: begin and end of the parts that are fake.
    """

    track: int
    from_s: float
    to_s: float
    frames: int
    judged: int
    median: float | None
    score: float | None
    verdict: Verdict
    reason: str | None
    fake_s: Segments


@dataclass(frozen=True)
class VideoVerdict:
    """One video: `score` is the highest of its faces, since one fake face makes a video fake."""

    source: str
    frames: int
    score: float | None
    verdict: Verdict
    reason: str | None
    fake_s: Segments
    faces: tuple[TrackVerdict, ...]


@dataclass
class _Track:
    """A face so far; `judged` holds number, time and log-odds of each judged frame, flattened.

    `doubts` counts the judged frames that have a score but no verdict, by their reason.
    """

    number: int
    calibration: Calibration
    first: int
    from_s: float
    last: int = 0
    to_s: float = 0.0
    frames: int = 0
    judged: "array[float]" = field(default_factory=lambda: array("d"))
    doubts: Counter[Reason] = field(default_factory=Counter)

    @property
    def doubt(self) -> Reason | None:
        """The commonest doubt, if most frames are in doubt."""
        return self.doubts.most_common(1)[0][0] if 2 * self.doubts.total() > len(self.judged) // 3 else None

    def verdict(self) -> TrackVerdict:
        where, times, odds = np.array(self.judged).reshape(-1, 3).T
        # The mean of each equal part of the track, so that no moment counts for more than its length.
        part = (MIN_FRAMES * (where - self.first)) // (self.last - self.first + 1)
        means = [float(odds[part == number].mean()) for number in np.unique(part)]
        enough = len(odds) >= MIN_FRAMES and len(means) >= MIN_FRAMES // 2
        score = probability(trimmed_mean(means)) if enough else None
        fake_s = () if self.doubt else fake_segments(times, odds, logit(self.calibration.high))
        verdict = Verdict.UNCERTAIN if score is None or self.doubt else self.calibration.verdict(score)
        if verdict is Verdict.FAKE:
            fake_s = fake_s or ((self.from_s, self.to_s),)
        reason = _reason(score, verdict, fake_s, "too few frames could be judged", self.doubt)
        return TrackVerdict(
            track=self.number,
            from_s=self.from_s,
            to_s=self.to_s,
            frames=self.frames,
            judged=len(odds),
            median=probability(float(np.median(odds))) if len(odds) else None,
            score=score,
            verdict=Verdict.UNCERTAIN if reason else verdict,
            reason=reason,
            fake_s=fake_s,
        )


def _reason(score: float | None, verdict: Verdict, fake_s: Segments, unjudged: str, doubt: Reason | None) -> str | None:
    """Return why a verdict is or must become uncertain; None if it stands."""
    if verdict is not Verdict.FAKE and fake_s:
        return "fake in parts"
    if score is None:
        return unjudged
    if verdict is not Verdict.UNCERTAIN:
        return None
    return reason_text(doubt or Reason.BETWEEN_THRESHOLDS)


def _rounded(value: Any) -> Any:
    """Return JSON values rounded like those of the frames' lines."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def logit(score: float) -> float:
    """Return the logarithm of a probability's odds, finite at 0 and 1 too."""
    bounded = min(max(score, 1e-15), 1.0 - 1e-15)
    return math.log(bounded / (1.0 - bounded))


def probability(odds: float) -> float:
    """Return the inverse of `logit`."""
    return 1.0 / (1.0 + math.exp(-odds))


def fake_segments(times: NDArray[np.float64], odds: NDArray[np.float64], threshold: float) -> Segments:
    """Return begin and end of the parts in which SEGMENT_FRAMES in a row have a mean of at least `threshold`."""
    if len(odds) < SEGMENT_FRAMES:
        return ()
    fake = np.convolve(odds, np.full(SEGMENT_FRAMES, 1.0 / SEGMENT_FRAMES), "valid") >= threshold
    begins = np.flatnonzero(np.diff(fake, prepend=False) & fake)
    ends = np.flatnonzero(np.diff(fake, append=False) & fake) + SEGMENT_FRAMES
    segments = []
    for begin, end in zip(begins, ends, strict=True):
        # A window whose mean is fake may begin and end with frames that are not.
        inside = times[begin:end][odds[begin:end] >= threshold]
        segments.append((float(inside[0]), float(inside[-1])))
    return joined(segments)


def joined(segments: Iterable[tuple[float, float]]) -> Segments:
    """Return segments in order, with overlapping ones made one."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(segments):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return tuple(found)


class FileVerdicts:
    """Collects the results of videos and pictures, not of cameras.

    Memory grows with the judged frames of videos and the number of folders, not with that of pictures.

    Args:
        contract: of the model that judges.
        detector: what the bundle is called in output.
    """

    def __init__(self, contract: ModelContract, detector: str) -> None:
        self._contract, self._detector = contract, detector
        self._frames: Counter[str] = Counter()
        self._began: dict[str, float] = {}
        self._tracks: dict[str, dict[int, _Track]] = {}
        self._pictures: dict[Source, dict[str, Counter[str]]] = {}

    def add(self, judged: Judged) -> None:
        """Take a result; those of one video come in the order of its frames."""
        result, given = judged.result, judged.given
        if given is None or given.live:
            return
        if result.state is SourceState.OK and not judged.still:
            if (position_s := judged.position_s) is None:
                # Standard input has no times of its own.
                position_s = judged.taken - self._began.setdefault(result.source, judged.taken)
            self._add_frame(result, position_s)
        elif not self._frames[result.source]:
            # Not for a video that breaks off: its frames give it a verdict.
            kind = "unreadable" if judged.failed else worst(face.verdict for face in result.faces)
            folders = self._pictures.setdefault(given, {})
            folders.setdefault(str(PurePath(result.source).parent), Counter())[kind] += 1

    def _add_frame(self, result: FrameResult, position_s: float) -> None:
        self._frames[result.source] += 1
        tracks = self._tracks.setdefault(result.source, {})
        for face in result.faces:
            if face.track is not None:
                if (track := tracks.get(face.track)) is None:
                    calibration = self._contract.calibration(result.precision).for_videos()
                    track = tracks[face.track] = _Track(face.track, calibration, result.frame, position_s)
                track.frames, track.last, track.to_s = track.frames + 1, result.frame, position_s
                if face.score is not None:
                    track.judged.extend((result.frame, position_s, logit(face.score)))
                    if face.reason_code and face.reason_code in DOUBTS:
                        track.doubts[face.reason_code] += 1

    def videos(self) -> list[VideoVerdict]:
        """Return the verdict on each video, in the order of their first frames."""
        found = []
        for source, tracks in self._tracks.items():
            faces = tuple(track.verdict() for track in tracks.values())
            scores = [face.score for face in faces if face.score is not None]
            fake_s = joined(segment for face in faces for segment in face.fake_s)
            worst_face = worst(face.verdict for face in faces if face.score is not None)
            verdict = Verdict(worst_face) if scores else Verdict.UNCERTAIN
            unjudged = f"no face was judged in {MIN_FRAMES} frames" if faces else "no face was found"
            score = max(scores, default=None)
            doubt = next((track.doubt for track in tracks.values() if track.doubt), None)
            reason = _reason(score, verdict, fake_s, unjudged, doubt)
            found.append(VideoVerdict(source, self._frames[source], score, verdict, reason, fake_s, faces))
        return found

    def counts(self) -> dict[str, Counter[str]]:
        """Return for each folder how many of its files got which verdict; a picture has that of its worst face."""
        folders: dict[str, Counter[str]] = {}
        for found in self._pictures.values():
            for folder, counts in found.items():
                folders.setdefault(folder, Counter()).update(counts)
        for video in self.videos():
            kind = "no face" if not video.faces else video.verdict.value
            folders.setdefault(str(PurePath(video.source).parent), Counter())[kind] += 1
        return folders

    def json_lines(self) -> Iterator[str]:
        """Yield a closing line for each video, and for each input with pictures that was not watched."""
        for video in self.videos():
            yield self._line(_rounded(plain(video)))
        for given, folders in self._pictures.items():
            if not given.endless:
                counts = sum(folders.values(), Counter())
                values = {kind.replace(" ", "_"): counts[kind] for kind in COUNTED}
                yield self._line({"source": given.name, **values, "faces": []})

    def _line(self, values: dict[str, Any]) -> str:
        head = {"source": values.pop("source"), "state": "summary"}
        notice = {"notice": DEMO_NOTICE} if self._contract.demo else {}
        tail = {"model": self._contract.version, "detector": self._detector, **notice}
        return json.dumps(head | values | tail, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def worst(verdicts: Iterable[Verdict]) -> str:
    """Return the verdict on faces together: fake if one is, else uncertain if one is; "no face" without any."""
    found = set(verdicts)
    return next((kind.value for kind in (Verdict.FAKE, Verdict.UNCERTAIN, Verdict.REAL) if kind in found), "no face")

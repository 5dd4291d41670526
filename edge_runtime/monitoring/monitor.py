"""The monitor: counts each face once, compares the latest faces with the baseline, and keeps summaries."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_runtime.errors import BundleError, UsageError
from edge_runtime.judging.results import FaceResult, Reason, iso_time
from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring.alarm import Alarm, DriftState
from edge_runtime.monitoring.baseline import Baseline
from edge_runtime.monitoring.checks import FEWEST, Check, compare
from edge_runtime.monitoring.store import Store, hour_of
from edge_runtime.monitoring.summary import UNLIKE, Summary
from edge_runtime.pipeline import Judged
from edge_runtime.plain_json import plain
from edge_runtime.sinks.disk import Losses

log = logging.getLogger("edge_runtime")

BLOCK = 50
BLOCKS = 4
"""The latest faces are compared whenever a block of 50 is full, with the last four blocks."""

SAVE_S = 300.0
"""A power cut loses the faces of at most so many seconds."""

UNJUDGED_FRAMES = 10
"""Frames that a tracked face must be too dark or too blurred for, without one that can be judged."""

TRACKS = 256
"""Tracks of a source that are remembered: those seen last."""

FORMAT = 1


class Monitor:
    """Watches the faces of one bundle, and keeps what it needs in a folder; thread-safe.

    Args:
        bundle: what judges the faces; without reference statistics only the state `unknown` is written.
        folder: where to keep summaries and status; locked until `close`.

    Raises:
        UsageError: the folder can't be written, or another process uses it.
        BundleError: the reference statistics can't be read.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self.losses, self._folder, self._guard = Losses(folder), folder, threading.RLock()
        self._next: tuple[Baseline | None, str] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(Baseline.of(bundle), bundle.contract.version)
            # Found out now, rather than at the first face.
            self.store.prune()
            self.store.save_status(self.status())
        except BlockingIOError:
            raise UsageError(
                f"--monitor {folder}: another process keeps its summaries there; give another folder"
            ) from None
        except OSError as error:
            raise UsageError(f"--monitor {folder}: can't be written ({error.strerror}); give another folder") from None

    def switch(self, bundle: Bundle) -> None:
        """Compare with another bundle's reference from the next result on; safe to call from another thread."""
        try:
            self._next = Baseline.of(bundle), bundle.contract.version
        except BundleError as error:
            log.warning(f"drift is no longer monitored: {error}")
            self._next = None, bundle.contract.version

    def _begin(self, baseline: Baseline | None, model: str) -> None:
        """Compare with `baseline` from now on, where the folder's files left off; OSError changes nothing."""
        self.store = Store(self._folder, baseline.digest if baseline else "")
        self.baseline, self._model = baseline, model
        now = datetime.now(timezone.utc)
        self.checks: list[Check] = []
        self.alarm = Alarm(DriftState.UNKNOWN, f"fewer than {FEWEST} faces so far", iso_time(now))
        self._saved, self._hour = time.monotonic(), hour_of(now)
        self._tracks: dict[str, dict[int, int]] = {}
        if self.baseline is None:
            reason = "the bundle has no reference statistics; export it again with enough faces"
            self.alarm = Alarm(DriftState.UNKNOWN, reason, iso_time(now))
            log.warning(f"{self._folder}: {reason}")
            return
        width = self.baseline.summary.width
        self._blocks = self.store.load_recent(width) or [Summary(width)]
        self._summary = self.store.load_hour(self._hour, width)
        try:
            self.alarm = Alarm.from_dict(self.store.load_status())
        except (KeyError, ValueError, TypeError):
            return

    @property
    def recent(self) -> Summary | None:
        """The latest faces together; None without reference statistics."""
        if self.baseline is None:
            return None
        total = Summary(self.baseline.summary.width)
        for block in self._blocks:
            total += block
        return total

    @property
    def recent_faces(self) -> int:
        """How many faces are compared."""
        return 0 if self.baseline is None else sum(block.faces for block in self._blocks)

    def observe(self, judged: Judged) -> Judged:
        """Count the faces of one result; return it with the state in it."""
        result = judged.result
        drift = self.count(result.faces, result.time, None if judged.still else result.source)
        return replace(judged, result=replace(result, drift=drift))

    def count(self, faces: Sequence[FaceResult], now: datetime, source: str | None = None) -> Mapping[str, str]:
        """Count the faces of a picture, judged at `now`; return state and reason.

        Args:
            faces: of the picture.
            now: when it was judged.
            source: the video or camera whose tracks the faces belong to; None for an independent picture.
        """
        with self._guard:
            self._take_over()
            if self.baseline is not None:
                tracks = None if source is None else self._tracks.setdefault(source, {})
                self.tick(now)
                for face in faces:
                    if self._is_new(face, tracks):
                        self.add(face, now)
            return {"state": self.alarm.state.value, "reason": self.alarm.reason}

    def _take_over(self) -> None:
        """Switch to the new bundle, if there is one."""
        if (wanted := self._next) is None:
            return
        self.save()

        def switch() -> None:
            self._begin(*wanted)
            if self._next is wanted:
                self._next = None
            self.store.save_status(self.status())

        self._attempt(switch)

    def _is_new(self, face: FaceResult, tracks: dict[int, int] | None) -> bool:
        """Return whether a face is to be counted: each track once, when it is judged for the first time."""
        unjudged = face.reason_code in (Reason.TOO_DARK, Reason.TOO_BLURRED)
        if face.traits is None and not unjudged:
            return False
        if face.traits is not None and len(face.traits.position) != self._summary.width:
            # Judged by the bundle from before.
            return False
        if tracks is None or face.track is None:
            return True
        before = tracks.pop(face.track, 0)
        frames = UNJUDGED_FRAMES if face.traits is not None else min(before + 1, UNJUDGED_FRAMES)
        # The one that was not seen for longest is first.
        tracks[face.track] = frames
        if len(tracks) > TRACKS:
            del tracks[next(iter(tracks))]
        return before < frames == UNJUDGED_FRAMES

    def add(self, face: FaceResult, now: datetime) -> None:
        """Count one face that was seen at `now`."""
        for summary in (self._summary, self._blocks[-1]):
            if face.traits is not None and face.score is not None:
                kind = UNLIKE if face.reason_code is Reason.UNLIKE else face.verdict.value
                summary.add(face.traits, kind, face.score)
            else:
                summary.unjudged += 1
        if (block := self._blocks[-1]).faces + block.unjudged >= BLOCK:
            self._compare(now)

    def _compare(self, now: datetime) -> None:
        assert self.baseline is not None
        recent = self.recent
        assert recent is not None
        self.checks = compare(recent, self.baseline)
        before, self.alarm = self.alarm, self.alarm.after(self.checks, now)
        self._blocks = [*self._blocks[1 - BLOCKS :], Summary(recent.width)]
        if self.alarm.state is not before.state:
            log.warning(f"drift monitor: {self.alarm.state.value}, {self.alarm.reason}")
            self.save()

    def tick(self, now: datetime) -> None:
        """Begin a new hour if one has begun, and save what is due."""
        hour = hour_of(now)
        if hour != self._hour:
            self.save()
            self._hour, self._summary = hour, self.store.load_hour(hour, self._summary.width)
            self._attempt(self.store.prune)
        elif time.monotonic() - self._saved >= SAVE_S:
            self.save()

    def close(self) -> None:
        """Save what is not saved yet, and let others use the folder."""
        with self._guard:
            self.save()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def save(self) -> None:
        """Write everything; a full disk is logged and counted, never raised."""
        self._saved = time.monotonic()
        if self.baseline is None:
            return
        self._attempt(self._save)

    def _save(self) -> None:
        self.store.save_status(self.status())
        self.store.save_recent(self._blocks)
        if self._summary.faces or self._summary.unjudged:
            self.store.save_hour(self._hour, self._summary)

    def _attempt(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            self.losses.add(error.strerror or str(error))
        else:
            self.losses.over()

    def status(self) -> Mapping[str, Any]:
        """Return what `status.json` holds: state, reason and checks, as plain values."""
        recent = self.recent
        return {
            "format": FORMAT,
            **plain(self.alarm),
            "time": iso_time(datetime.now(timezone.utc)),
            "model": self._model,
            "faces": self.recent_faces,
            "unjudged": recent.unjudged if recent else 0,
            "checks": plain(self.checks),
        }

"""The board at the door: the runtime's pipeline, monitor, review and shadow, with a source whose clock is simulated."""

import functools
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.year.faces import Passer
from benchmarks.year.own import own_folder
from edge_runtime.detector import Detector, renew
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.review.shadow import Budget, Shadow
from edge_runtime.sinks.review import ReviewSink
from edge_runtime.sinks.shadow import ShadowSink
from edge_runtime.sources import Frame, Gap, Source

NO_CAP = 1_000_000
"""Faces kept an hour and a day: these caps follow the real clock, in which the year takes minutes."""

MOMENT_S = 0.001


class Door(Source):
    """A camera that takes one picture of each passer."""

    name = "door"
    still = True

    def __init__(self, passers: Sequence[Passer]) -> None:
        self._passers = passers

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield the passers in order; a frame's number is the passer's."""
        for number, passer in enumerate(self._passers):
            if stop.is_set():
                return
            yield Frame(self.name, number, functools.partial(read_picture, passer.path), still=True, time=passer.time)


class Board:
    """A board that judges the passers with the bundle it was given last.

    Args:
        folder: what lies on the board, emptied at first.
        bundle: the first version.
        passers: who passes the door.
        public_key: age key for which kept faces are encrypted.
    """

    def __init__(self, folder: Path, bundle: Path, passers: Sequence[Passer], public_key: str) -> None:
        own_folder(folder)
        self.reviews, self.disagreements = folder / "reviews", folder / "disagreements.jsonl"
        self._folder, self._key = folder, public_key
        self._current = folder / "current"
        self._now = 0.0
        self._install(bundle)
        self._door = Door(passers)
        self._sinks: list[ReviewSink | ShadowSink] = []
        self._shadow: Shadow | None = None
        detector = self._load()
        self._pipeline = detector.pipeline([self._door])
        self.monitor = Monitor(detector.bundle, folder / "monitor")

    def _install(self, bundle: Path) -> None:
        """Copy a version beside the others and switch the link to it, as the board's installer does."""
        place = self._folder / "versions" / Bundle.open(bundle).contract.version
        shutil.copytree(bundle, place)
        fresh = self._folder / "next"
        fresh.symlink_to(place.resolve(), target_is_directory=True)
        fresh.replace(self._current)

    def _load(self) -> Detector:
        return Detector(self._current, device="CPU", faces="off", threads=1)

    def results(self) -> Iterator[Judged]:
        """Yield each passer's result, as the sinks got it."""
        with closing(self._pipeline.results()) as results:
            for judged in results:
                self._now = judged.result.time.timestamp()
                seen = self.monitor.observe(judged)
                for sink in self._sinks:
                    sink.write(seen)
                    # Minutes pass before the next face, so the shadow has time for each.
                    while self._shadow is not None and self._shadow.is_busy:
                        time.sleep(MOMENT_S)
                yield seen
        self.monitor.close()
        self.stop_sinks()

    def _review_sink(self) -> ReviewSink:
        return ReviewSink(
            self.reviews,
            purpose="next model",
            public_keys=[self._key],
            days=90.0,
            per_hour=NO_CAP,
            per_day=NO_CAP,
            sample=1.0,
        )

    def start_review(self) -> None:
        """Keep every face for review from the next one on."""
        self._sinks.append(self._review_sink())

    def start_shadow(self, bundle: Path) -> None:
        """Let a second detector judge beside the first, and keep the faces that tell who is right."""
        self._shadow = Shadow(Bundle.open(bundle), budget=Budget(clock=lambda: self._now))
        self._sinks.append(ShadowSink(self.disagreements, self._shadow, self._review_sink()))

    def stop_sinks(self) -> None:
        """End review and shadow."""
        while self._sinks:
            self._sinks.pop().close()
        self._shadow = None

    def roll_out(self, bundle: Path) -> None:
        """Install a version and reload, as SIGHUP does: checked, then switched between two frames.

        Raises:
            BundleError: the runtime refused it.
        """
        self._install(bundle)
        loaded = renew(self._load, lambda detector: self._pipeline.switch(*detector.judges([self._door])))
        if loaded is None:
            raise BundleError(f"{bundle}: the board refused it; the line before says why")
        self.monitor.switch(loaded)

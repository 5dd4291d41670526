"""Figures and thresholds of whole videos, judged as `edge-detect` judges them. No torch."""

import functools
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.atomic import write_atomic
from edge_runtime.detector import Detector
from edge_runtime.errors import DataError, EdgeError, UsageError
from edge_runtime.judging.summary import FileVerdicts, VideoVerdict, logit
from edge_runtime.model.bundle import BUNDLE_SIGNATURE, MANIFEST, Bundle
from edge_runtime.model.contract import LABELS, Calibration, Framing, Verdict
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.files import VIDEO_SUFFIXES
from edge_runtime.sources.video import Video
from train.evaluation.calibrate import find_edges, with_thresholds
from train.evaluation.metrics import Figure, measure, measure_decided
from train.parallel import Advance

FRAMES_FPS = 25.0
"""Rate at which a folder of frames is played."""

FEWEST_VIDEOS = 20
"""Judged videos of each class that thresholds need."""

CERTAIN = {Verdict.REAL: 0.0, Verdict.UNCERTAIN: 0.5, Verdict.FAKE: 1.0}


@dataclass(frozen=True)
class LabelledVideo:
    """A video file, or a folder with the frames of one; label 0 real, 1 fake."""

    path: Path
    label: int


@dataclass(frozen=True)
class JudgedVideos:
    """The verdict on each video that could be read, and why the others could not, by path."""

    videos: tuple[LabelledVideo, ...]
    verdicts: tuple[VideoVerdict, ...]
    unreadable: dict[str, str]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which videos have a score: a face was judged in enough frames."""
        return np.array([verdict.score is not None for verdict in self.verdicts], dtype=bool)

    @property
    def labels(self) -> NDArray[np.int64]:
        """0 real, 1 fake."""
        return np.array([video.label for video in self.videos], dtype=np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The highest score of each video's faces; NaN without one."""
        scores = [np.nan if verdict.score is None else verdict.score for verdict in self.verdicts]
        return np.array(scores, dtype=np.float64)


class FrameFolder(Source):
    """The pictures in a folder as the frames of a video, in the order of their names, numbers by their value."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def files(self) -> list[Path]:
        """Return the frames in their order."""
        frames = [path for path in self.path.iterdir() if path.suffix.lower() in SUFFIXES]
        return sorted(frames, key=lambda path: [part.zfill(12) for part in re.split(r"(\d+)", path.name)])

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every frame."""
        for index, path in enumerate(self.files()):
            load = functools.partial(read_picture, path)
            yield Frame(self.name, index, load, fps=FRAMES_FPS, position_s=index / FRAMES_FPS)


def list_videos(root: Path) -> list[LabelledVideo]:
    """Return the video files, and the folders that hold pictures, in `root`/real and `root`/fake.

    Raises:
        DataError: a class is missing, or pictures lie where a video's folder should be.
    """
    found: list[LabelledVideo] = []
    for label, name in enumerate(LABELS):
        places = [place for place in root.glob("*") if place.name.lower() == name and place.is_dir()]
        if any(file.suffix.lower() in SUFFIXES for place in places for file in place.glob("*")):
            raise DataError(f"{root}/{name}: holds pictures; put the frames of each video into a folder of their own")
        paths = {
            path if path.suffix.lower() in VIDEO_SUFFIXES else path.parent
            for place in places
            for path in place.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES | SUFFIXES and path.is_file()
        }
        if not paths:
            raise DataError(f"{root}: holds no {name} videos; put files, or a folder of frames for each, into {name}/")
        found += [LabelledVideo(path, label) for path in sorted(paths)]
    return found


def has_video_files(root: Path) -> bool:
    """Return whether there are video files in `root`/real or `root`/fake."""
    places = (place for place in root.glob("*") if place.name.lower() in LABELS)
    return any(path.suffix.lower() in VIDEO_SUFFIXES for place in places for path in place.rglob("*"))


def judge_videos(
    bundle: Bundle, videos: Sequence[LabelledVideo], *, precision: str, device: str, progress: Advance | None = None
) -> JudgedVideos:
    """Judge `videos`. Folders of frames are framed as the contract says, like pictures; in files, faces are found.

    Raises:
        BundleError, DeviceError, UsageError: the detector can't be made.
        DataError: no video can be read.
    """

    @functools.cache
    def detector(faces: str) -> Detector:
        return Detector(bundle, device=device, precision=precision, faces=faces)

    judged, verdicts, unreadable = [], [], {}
    for video in videos:
        whole = video.path.is_dir() and bundle.contract.framing is Framing.WHOLE
        verdict, error = _judge(detector("off" if whole else "auto"), video.path)
        if verdict is None:
            unreadable[str(video.path)] = error
        else:
            judged.append(video)
            verdicts.append(verdict)
        if progress:
            progress(1)
    if not judged:
        raise DataError(f"none of the {len(videos)} videos can be read; the first: {next(iter(unreadable.values()))}")
    return JudgedVideos(tuple(judged), tuple(verdicts), unreadable)


def _judge(detector: Detector, path: Path) -> tuple[VideoVerdict | None, str]:
    """Return the verdict on a video; without one, why."""
    files, error = FileVerdicts(detector.bundle.contract, ""), "it has no frames"
    try:
        source = FrameFolder(path) if path.is_dir() else Video(path)
        for judged in detector.pipeline([source]).results():
            files.add(judged)
            error = judged.result.error or error
    except EdgeError as refused:
        error = str(refused)
    return next(iter(files.videos()), None), error


def video_figures(judged: JudgedVideos, bootstrap: int) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Return the figures of the scores, and those of the verdicts; videos without a score are uncertain.

    For their keys see `measure` and `measure_decided`.

    Raises:
        DataError: no video of some class has a score.
    """
    labels, scored = judged.labels, judged.scored
    for label, name in enumerate(LABELS):
        if not (scored & (labels == label)).any():
            raise DataError(f"no {name} video has a score: a face must be judged in at least 16 frames")
    ranking = measure(labels[scored], judged.scores[scored], bootstrap=bootstrap)
    verdicts = [CERTAIN[verdict.verdict] for verdict in judged.verdicts]
    return ranking, measure_decided(labels, verdicts, low=0.0, high=1.0, bootstrap=bootstrap)


def fit_video_thresholds(calibration: Calibration, judged: JudgedVideos) -> Calibration:
    """Return `calibration` as it reads the score of a whole video: `low`, `high`, and what so many videos prove.

    Conformal over videos, not frames, since the frames of one depend on each other; see `upper_quantile`.

    Raises:
        DataError: fewer than FEWEST_VIDEOS of a class have a score.
    """
    labels, scored = judged.labels, judged.scored
    counts = [int((scored & (labels == label)).sum()) for label in range(len(LABELS))]
    if min(counts) < FEWEST_VIDEOS:
        held = " and ".join(f"{count} {name}" for count, name in zip(counts, LABELS, strict=True))
        raise DataError(f"thresholds need {FEWEST_VIDEOS} judged videos of each class, here are {held}; add some")
    odds = np.array([logit(score) for score in judged.scores[scored]])
    edges = find_edges(odds, labels[scored], [""] * len(odds), calibration)
    return with_thresholds(calibration, odds, labels[scored], edges)


def write_video_thresholds(bundle: Bundle, fitted: dict[str, Calibration]) -> bool:
    """Write the thresholds of `fitted`, by precision, into the manifest of `bundle`.

    A signature does not hold for the new manifest. It is deleted; return whether there was one.

    Raises:
        UsageError: it can't be written.
    """
    contract, calibrations = bundle.contract, dict(bundle.contract.calibrations)
    for precision, found in fitted.items():
        own = contract.calibration(precision)
        calibrations[precision] = replace(own, video_low=found.low, video_high=found.high)
    manifest = replace(bundle.manifest, contract=contract.replace(calibrations=calibrations))
    signature = bundle.path / BUNDLE_SIGNATURE
    try:
        write_atomic(bundle.path / MANIFEST, manifest.to_json())
        signed = signature.is_file()
        signature.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{bundle.path}: can't be written ({error.strerror}); copy the bundle and name that") from None
    return signed


def fitted_text(precision: str, fitted: Calibration) -> str:
    """Return the thresholds fitted for a precision, and what the number of videos proves about them."""
    return (
        f"{precision}: a video scoring at most {fitted.low:.4f} is real, at least {fitted.high:.4f} fake; proven with "
        f"95 % confidence, for videos like these: at most {fitted.fpr_bound:.1%} of reals are called fake (from "
        f"{fitted.reals}) and at most {fitted.fnr_bound:.1%} of fakes real (from {fitted.fakes})"
    )


def video_rows(judged: JudgedVideos) -> list[dict[str, Any]]:
    """Return path, label, score, verdict, reason and parts of each video, for JSON."""
    return [
        {
            "path": str(video.path),
            "label": LABELS[video.label],
            "frames": verdict.frames,
            "score": verdict.score,
            "verdict": verdict.verdict.value,
            "reason": verdict.reason,
            "fake_s": verdict.fake_s,
        }
        for video, verdict in zip(judged.videos, judged.verdicts, strict=True)
    ]

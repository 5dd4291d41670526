"""Measures what attention to live sources saves, and whether its verdicts are those of judging every frame.

    python -m benchmarks.studies.attention BUNDLE --clips ../shared/clips

Each with every frame searched and judged (`--always`), and with attention:

- *crowd*: a 720p video of five faces, played at 25 frames/s, and a stand-in for a device of 20 crops a second: how
  old frames are at their verdict.
- *one*: one moving face at 720p, and a stand-in that judges at once: core time of everything beside the classifier.
- *busy*, *still*: a moving and a resting face with the bundle's network: the core time of everything. Their frames
  come from a video; in *busy-camera* and *still-camera* they are JPEGs, as an MJPG camera gives them.
- *beside*: a video file with one face, and a stand-in for graphics that takes 24 ms or 4 ms a crop without using the
  CPU: frames/s as a share of what the slower of device and CPU does alone.
- the clips: as files and with attention; a track agrees if verdict and side of 0.5 are the same most of the time.

All but *crowd* and *beside* are judged one frame after the other as if they came at their rate: other work on the
machine matters little then.
"""

import io
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.measure.children import in_process
from benchmarks.studies.pipeline import textures
from benchmarks.studies.small import small_network, write_small_bundle
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.judging.live import LiveScorer
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.judging.scorer import Verdicts
from edge_runtime.judging.tracking import match
from edge_runtime.model.bundle import Bundle
from edge_runtime.pixels.quality import MIN_FACE_PX, QualityLimits
from edge_runtime.sources import Frame, Source, open_sources
from edge_runtime.sources.mjpeg import JpegView
from edge_runtime.sources.paced import PacedVideo
from export.children.scratch import ScratchFolder
from train.data.catalog import SEED
from train.sample_faces import draw_face
from train.sample_faces.files import write_video

FPS, CROPS_PER_S = 25.0, 20.0
"""Of the videos, and of the stand-in for a device."""

SKIPPED = 50
"""Frames that find the faces and, in a still scene, come to rest; they are not counted."""

LEAST_FRAMES = 16
"""Shorter tracks are not compared."""


GRAPHICS_S = (0.024, 0.004)
"""Seconds a crop of stand-ins for graphics, slower and faster than the CPU's share of the work."""


class StandIn:
    """A device that judges one crop at a time, each in `crop_s` seconds, without using the CPU."""

    requests = 1

    def __init__(self, crop_s: float) -> None:
        self._crop_s, self._lock, self.crops = crop_s, threading.Lock(), 0

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [N, 2] that follow the pixels' colour."""
        with self._lock:
            time.sleep(self._crop_s * len(pixels))
            self.crops += len(pixels)
        redness = pixels[..., 0].mean((1, 2, 3)[: pixels.ndim - 2]) - pixels[..., 2].mean((1, 2, 3)[: pixels.ndim - 2])
        return np.stack([-redness, redness], axis=1).astype(np.float32) / 64.0

    rows = logits


def make_video(path: Path, faces: int, seconds: float, *, moving: bool) -> None:
    """Write a 720p video of drawn faces before a textured wall."""
    side = 400 if faces == 1 else 230
    drawn = [np.asarray(draw_face(SEED + number, side)) for number in range(faces)]
    wall = np.asarray(textures(1, 1280)[0])[:720]

    def frame(number: int) -> NDArray[np.uint8]:
        picture = wall.copy()
        for place, face in enumerate(drawn):
            angle = 2 * np.pi * number / (4 * FPS) + place if moving else 0.0
            left, top = 10 + 250 * place + round(8 * np.sin(angle)), 150 + round(100 * np.cos(angle))
            left += 400 * (faces == 1) + round(200 * np.sin(angle)) * (faces == 1)
            picture[top : top + side, left : left + side] = face
        return picture

    write_video(path, map(frame, range(round(seconds * FPS))), fps=FPS)


def detector_of(bundle: Path, *, always: bool, crop_s: float | None, device: str = "CPU") -> Detector:
    """Return a detector; `crop_s` takes a stand-in as its device, which is then called `device`."""
    detector = Detector(bundle, device="CPU", precision="int8", always=always)
    if crop_s is not None:
        network, choice = StandIn(crop_s), replace(detector.choice, device=device)
        detector.engine = Engine(detector.bundle, choice, build=lambda *_, **__: network)
        detector.scorer.engine = detector.engine
    return detector


def play(video: Path, bundle: Path, *, always: bool) -> dict[str, Any]:
    """Play `video` with the slow stand-in; return how old frames were, and how often tracks were judged."""
    detector = detector_of(bundle, always=always, crop_s=1 / CROPS_PER_S)
    pipeline = detector.pipeline([PacedVideo(source) for source in open_sources([str(video)])])
    began = time.perf_counter()
    results = [judged.result for judged in pipeline.results()]
    seconds = time.perf_counter() - began
    # The first second finds the faces.
    results = [result for result in results if result.frame >= FPS]
    ages = [result.age_ms for result in results]
    judged: dict[int | None, set[float]] = defaultdict(set)
    for result in results:
        for face in result.faces:
            if face.track_score is not None:
                judged[face.track].add(round(result.time.timestamp() - (face.carried_s or 0.0), 2))
    spans = [(max(times) - min(times), len(times)) for times in judged.values() if len(times) > 1]
    return {
        "frames_per_s": len(results) / (seconds - 1.0),
        "age_ms_median": float(np.median(ages)),
        "age_ms_p99": float(np.percentile(ages, 99)),
        "judged_per_s": sum(len(times) for times in judged.values()) / (seconds - 1.0),
        "least_judged_per_s": min(((count - 1) / span for span, count in spans if span >= 2.0), default=0.0),
        "tracks": len(judged),
    }


class Jpegs(Source):
    """The frames of a video as the JPEGs of a camera; they are made before the first is given."""

    live = True

    def __init__(self, video: Path) -> None:
        (source,) = open_sources([str(video)])
        self.name, self._jpegs = str(video), list[bytes]()
        for item in source.frames(threading.Event()):
            if isinstance(item, Frame):
                file = io.BytesIO()
                item.load().save(file, "JPEG", quality=85)
                self._jpegs.append(file.getvalue())

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield every frame."""
        for number, jpeg in enumerate(self._jpegs):
            yield Frame(self.name, number, JpegView(jpeg))


def judged_live(source: Source, detector: Detector) -> Iterator[FrameResult]:
    """Yield the result of every frame of `source`, each judged as if it came live at its time."""
    detector.moving_faces()
    score = detector.scorer if detector.always else LiveScorer(detector.scorer, clock=None)
    verdicts = Verdicts(detector.bundle.contract, limits=detector.limits)
    for item in source.frames(threading.Event()):
        if isinstance(item, Frame):
            taken = item.index / (item.fps or FPS)
            yield verdicts.of_frame(score(replace(item, taken=taken, live=True, turn=item.index)))


def cost(video: Path, bundle: Path, *, always: bool, crop_s: float | None, camera: bool = False) -> dict[str, Any]:
    """Return core milliseconds per frame of `video`, or of its JPEGs as a `camera` gives them."""
    judged, frames, cpu = 0, 0, 0.0
    source = Jpegs(video) if camera else open_sources([str(video)])[0]
    for result in judged_live(source, detector_of(bundle, always=always, crop_s=crop_s)):
        if result.frame == SKIPPED:
            cpu = time.process_time()
        elif result.frame > SKIPPED:
            frames += 1
            judged += sum(face.carried_s is None for face in result.faces)
    return {"core_ms": 1e3 * (time.process_time() - cpu) / frames, "judged_per_frame": judged / frames}


def crowd(bundle: Path, folder: Path, seconds: float, always: bool) -> dict[str, Any]:
    """Play five faces with a device of 20 crops a second."""
    return play(_video(folder, 5, seconds, moving=True), _stand_in_bundle(bundle, folder), always=always)


def one_face(
    bundle: Path,
    folder: Path,
    seconds: float,
    always: bool,
    moving: bool,
    camera: bool,
    stand_in: bool,
) -> dict[str, Any]:
    """Judge one face with the bundle's network, or with a stand-in that takes no time."""
    video = _video(folder, 1, seconds, moving=moving)
    used, crop_s = (_stand_in_bundle(bundle, folder), 0.0) if stand_in else (bundle, None)
    return cost(video, used, always=always, crop_s=crop_s, camera=camera)


def beside(bundle: Path, folder: Path, seconds: float, always: bool) -> dict[str, Any]:
    """Judge every frame of a video, as fast as possible, with stand-ins for graphics."""
    video, stand_in = _video(folder, 1, seconds, moving=True), _stand_in_bundle(bundle, folder)

    def rate(crop_s: float) -> float:
        detector = detector_of(stand_in, always=True, crop_s=crop_s, device="GPU")
        pipeline = detector.pipeline(open_sources([str(video)]))
        began = time.perf_counter()
        return sum(len(judged.result.faces) for judged in pipeline.results()) / (time.perf_counter() - began)

    cpu = rate(0.0)
    found: dict[str, Any] = {"cpu_alone_per_s": cpu}
    for crop_s in GRAPHICS_S:
        name, device, both = f"{1e3 * crop_s:g}_ms", 1 / crop_s, rate(crop_s)
        found |= {f"{name}_per_s": both, f"{name}_of_slower": both / min(cpu, device)}
        found |= {f"{name}_one_after_the_other": 1 / (1 / cpu + crop_s)}
    return found


def _video(folder: Path, faces: int, seconds: float, *, moving: bool) -> Path:
    path = folder / f"{faces}-{moving}-{seconds}.mp4"
    if not path.exists():
        make_video(path, faces, seconds, moving=moving)
    return path


def _stand_in_bundle(bundle: Path, folder: Path) -> Path:
    """Return a bundle with the face detector and pixels of `bundle`, and a network without meaning."""
    path, opened = folder / "stand_in", Bundle.open(bundle)
    if not path.exists():
        contract = opened.contract
        network = small_network(contract.input_size)
        write_small_bundle(path, contract, face_model=opened.file(FACE_MODEL), network=network)
    return path


def agreement(full: list[FrameResult], other: list[FrameResult]) -> tuple[int, int, int]:
    """Return how many tracks of `full` have LEAST_FRAMES, how many were found in `other`, and how many agree there.

    A track agrees if its most frequent verdict, and the side of 0.5 on which its score is then, are also those of the
    faces in the same places of `other`.
    """

    def said(face: FaceResult) -> str:
        return f"{face.verdict.value} {face.track_score is not None and face.track_score >= 0.5}"

    frames = {result.frame: result.faces for result in other}
    ours: dict[int | None, Counter[str]] = defaultdict(Counter)
    theirs: dict[int | None, Counter[str]] = defaultdict(Counter)
    for result in full:
        faces = frames.get(result.frame, ())
        matches = match([face.box for face in result.faces], [face.box for face in faces], 0.3)
        for index, face in enumerate(result.faces):
            ours[face.track][said(face)] += 1
            if index in matches:
                theirs[face.track][said(faces[matches[index]])] += 1
    long = [track for track, verdicts in ours.items() if verdicts.total() >= LEAST_FRAMES]
    found = [track for track in long if theirs[track]]
    same = [track for track in found if ours[track].most_common(1)[0][0] == theirs[track].most_common(1)[0][0]]
    return len(long), len(found), len(same)


def clip(bundle: Path, path: Path, min_face: int) -> dict[str, Any]:
    """Compare the verdicts on one clip, as a file and as if it were live."""
    detector = Detector(bundle, device="CPU", precision="int8", limits=QualityLimits(min_face=min_face))
    full = [judged.result for judged in detector.pipeline(open_sources([str(path)])).results()]
    (source,) = open_sources([str(path)])
    live = list(judged_live(source, detector))
    tracks, found, same = agreement(full, live)
    judged = sum(face.score is not None for result in live for face in result.faces)
    counts = {"frames": len(full), "tracks": tracks, "found": found, "agree": same}
    fake = {face.track for result in full for face in result.faces if (face.track_score or 0.0) >= 0.5}
    share = judged / max(1, sum(len(result.faces) for result in live))
    return {"clip": path.name, **counts, "judged_share": share, "ever_from_0.5": len(fake)}


SCENES: dict[str, tuple[Any, ...]] = {
    "crowd": (crowd,),
    "one": (one_face, True, False, True),
    "busy": (one_face, True, False, False),
    "still": (one_face, False, False, False),
    "busy-camera": (one_face, True, True, False),
    "still-camera": (one_face, False, True, False),
    "beside": (beside,),
}


def _rounded(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield name, round(value, 2) if isinstance(value, float) else value


def attention(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an INT8 network and a face detector.")],
    clips: Annotated[Path | None, typer.Option(help="Folder of video clips with people.")] = None,
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of each video.")] = 20.0,
    scene: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    min_face: Annotated[int, typer.Option(min=1, help="Smallest face of the clips, pixels.")] = MIN_FACE_PX,
) -> int:
    """Measure what attention to live sources saves."""
    with ScratchFolder() as folder:
        for name in scene or SCENES:
            measure, *flags = SCENES[name]
            for always in (True, False) if name != "beside" else (True,):
                found = in_process(measure, bundle, folder, seconds, always, *flags)
                print(json.dumps({"scene": name, "always": always, **dict(_rounded(found))}), flush=True)
    for path in sorted(clips.glob("*.mp4")) if clips else []:
        print(json.dumps(dict(_rounded(in_process(clip, bundle, path, min_face)))), flush=True)
    return 0


if __name__ == "__main__":
    run_command(attention, "python -m benchmarks.studies.attention")

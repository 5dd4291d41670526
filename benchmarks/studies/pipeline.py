"""Measures how much of the machine's limit the runtime reaches, as ratios within one run, in interleaved rounds.

    python -m benchmarks.studies.pipeline BUNDLE

Frames in memory are compared with benchmark_app on the same network; a folder of JPEGs and a video with what their
stages allow: cores divided by the sum of each stage's CPU time. Each measurement has its own process.
"""

import json
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openvino as ov
import typer
from PIL import Image

from benchmarks.engines.benchmark_app import run_benchmark_app
from benchmarks.measure.cases import Case, EngineKind, Job, Mode, TimingLimits
from benchmarks.measure.children import in_process
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.errors import BundleError
from edge_runtime.inference.core import openvino_core
from edge_runtime.judging.scorer import prepare_face
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.provenance import picture_provenance
from edge_runtime.sinks.lines import JsonlSink
from edge_runtime.sources import Frame, Source, open_sources
from edge_runtime.sources.opencv import cv2, picture_of
from export.children.scratch import ScratchFolder
from train.data.catalog import SEED
from train.sample_faces import draw_face
from train.sample_faces.files import write_video

GOALS = {"memory": 0.96, "folder": 0.85, "video": 0.9}
"""The ratios to reach."""

PICTURES, FILES = 64, 600
"""Number of different pictures, and of JPEGs in the folder."""

VIDEO_FRAMES, STAGE_FRAMES = 300, 100
"""Frames of the video, and on how many of them each stage is timed."""

Steps = Mapping[str, Callable[[Any], Any]]
"""What is done to a picture, by name; each step takes what the one before returned."""


class Memory(Source):
    """A source of decoded pictures, repeated for some seconds."""

    name, live, still = "memory", False, True

    def __init__(self, pictures: list[Image.Image], seconds: float) -> None:
        self._pictures, self._seconds = pictures, seconds

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield pictures until the time is over."""
        end, number = time.monotonic() + self._seconds, 0
        while time.monotonic() < end:
            picture = self._pictures[number % len(self._pictures)]
            yield Frame(self.name, number, partial(lambda shown: shown, picture), still=True)
            number += 1


def textures(count: int, side: int) -> list[Image.Image]:
    """Return random pictures with detail at every scale, which cost JPEG the usual work."""
    random, pictures = np.random.default_rng(SEED), []
    for _ in range(count):
        total = np.zeros((side, side, 3), np.float32)
        for scale in (4, 16, 64, side):
            noise = Image.fromarray(random.integers(0, 256, (scale, scale, 3), np.uint8))
            total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32) / scale**0.5
        pictures.append(Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)))
    return pictures


def measure_benchmark_app(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the frames/s of OpenVINO's own benchmark with the bundle's INT8 network."""
    case = Case("bundle", "int8", Mode.THROUGHPUT, engine=EngineKind.CEILING)
    job = Job(case=case, bundle=str(bundle), checkpoint=None, pictures=(), limits=TimingLimits(seconds=seconds))
    return {"fps": run_benchmark_app(job)[0]["model_fps"]}


def measure_network(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the speed of the network alone: its input filled once, in OpenVINO's own queue."""
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(Bundle.open(bundle).model(Precision.INT8), "CPU", settings)
    queue = ov.AsyncInferQueue(compiled)
    pixels = np.random.default_rng(SEED).random(tuple(compiled.input(0).shape), np.float32)
    for request in queue:
        request.set_input_tensor(ov.Tensor(pixels))

    def infer(seconds: float) -> int:
        frames, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            queue.start_async()
            frames += 1
        queue.wait_all()
        return frames

    infer(0.1)
    return _rates(lambda: infer(seconds))


def measure_memory(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the speed from pictures in memory to verdicts."""
    detector = _warm_detector(bundle, faces="off")
    pictures = textures(PICTURES, 256)
    return _rates(lambda: sum(1 for _ in detector.pipeline([Memory(pictures, seconds)]).results()))


def measure_folder(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the speed from a folder of JPEGs to lines of JSON."""
    detector = _warm_detector(bundle, faces="off")

    def judge_folder() -> int:
        count = 0
        with JsonlSink(folder / "out.jsonl") as sink:
            for judged in detector.pipeline(open_sources([str(folder / "jpegs")])).results():
                sink.write(judged)
                count += 1
        return count

    return _rates(judge_folder)


def measure_video(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the speed on a 720p video with one face, with the face stage."""
    detector = _warm_detector(bundle)

    def judge_video() -> int:
        results = [judged.result for judged in detector.pipeline(open_sources([str(folder / "face.mp4")])).results()]
        return sum(len(result.faces) == 1 and result.faces[0].score is not None for result in results)

    return _rates(judge_video)


def measure_folder_stages(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the CPU milliseconds per picture of each stage of the folder, alone in one thread."""
    detector = _warm_detector(bundle, faces="off")

    def look_up(path: Path) -> Path:
        picture_provenance(path)
        return path

    steps: Steps = {"provenance": look_up, "read": lambda path: (read_picture(path), None)}
    return _stage_times(detector, sorted((folder / "jpegs").iterdir()), steps)


def measure_video_stages(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the CPU milliseconds per frame of each stage of the video, alone in one thread."""
    detector = _warm_detector(bundle)
    finder = detector.moving_faces()
    if finder is None:
        raise BundleError(f"{bundle}: has no face detector; export it again with --face-model")
    capture = cv2.VideoCapture(str(folder / "face.mp4"), cv2.CAP_FFMPEG)
    steps: Steps = {
        "decode": lambda _: capture.read()[1],
        "convert": picture_of,
        "faces": lambda picture: (picture, finder.detect(picture)[0]),
    }
    return _stage_times(detector, range(STAGE_FRAMES), steps)


def _stage_times(detector: Detector, inputs: Iterable[Any], steps: Steps) -> dict[str, float]:
    """Return the CPU milliseconds of each step, and of cutting out and classifying the picture and face they end with.

    One input after another passes the steps, so that memory is used again as in the pipeline: fresh memory for every
    frame costs more than some of the steps. The network gets all faces at once, as it is fastest.
    """
    contract, limits = detector.bundle.contract, detector.limits

    def crop(found: tuple[Any, Any]) -> Any:
        return prepare_face(found[0], found[1], contract, limits).crops

    steps = {**steps, "crop": crop}
    cpu_s, crops = dict.fromkeys([*steps, "classify"], 0.0), []
    for given in islice(inputs, STAGE_FRAMES):
        for stage, step in steps.items():
            began = time.process_time()
            given = step(given)
            cpu_s[stage] += time.process_time() - began
        crops.append(given)
    batch = np.concatenate(crops)
    began = time.process_time()
    detector.engine.logits(batch)
    cpu_s["classify"] = time.process_time() - began
    return {stage: 1e3 * spent / len(crops) for stage, spent in cpu_s.items()}


def _warm_detector(bundle: Path, **options: Any) -> Detector:
    detector = Detector(bundle, device="CPU", precision="int8", **options)
    size = detector.bundle.contract.input_size
    detector.engine.logits(np.zeros((8, size, size, 3), np.uint8))
    return detector


def _rates(work: Callable[[], int]) -> dict[str, float]:
    """Run `work`, which returns its number of frames; return frames/s, frames per CPU second, and cores in use."""
    began, cpu = time.perf_counter(), time.process_time()
    frames = work()
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    return {"fps": frames / wall, "per_core_s": frames / used, "cores": used / wall}


MEASURES = {
    "benchmark_app": measure_benchmark_app,
    "network": measure_network,
    "memory": measure_memory,
    "folder": measure_folder,
    "video": measure_video,
    "folder_stages": measure_folder_stages,
    "video_stages": measure_video_stages,
}


def make_inputs(folder: Path) -> None:
    """Write the folder of JPEGs and the video of one face."""
    (folder / "jpegs").mkdir()
    for number, picture in enumerate(textures(PICTURES, 256)):
        picture.save(folder / "jpegs" / f"{number:05}.jpg", quality=95)
    for number in range(PICTURES, FILES):
        shutil.copy(folder / "jpegs" / f"{number % PICTURES:05}.jpg", folder / "jpegs" / f"{number:05}.jpg")
    face, background = np.asarray(draw_face(SEED, 400)), np.asarray(textures(1, 1280)[0])[:720]

    def frame(number: int) -> np.ndarray:
        picture, left = background.copy(), 100 + 2 * number
        picture[150 : 150 + face.shape[0], left : left + face.shape[1]] = face
        return picture

    write_video(folder / "face.mp4", map(frame, range(VIDEO_FRAMES)))


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """Return each figure as a share of its limit: frames/s, and frames per CPU second (`…_core`).

    `folder_of_network` is the folder's share of benchmark_app.

    On a machine that does other work too, only the latter is fair: a program with more threads gets more of the
    machine. But it does not show whether every core had something to do.
    """
    limits = {"memory": (measured["benchmark_app"]["fps"], measured["network"]["per_core_s"])}
    for what in ("folder", "video"):
        per_core_s = 1e3 / sum(measured[f"{what}_stages"].values())
        limits[what] = ((os.cpu_count() or 1) * per_core_s, per_core_s)
    shares = {what: round(measured[what]["fps"] / limit, 3) for what, (limit, _) in limits.items()}
    cores = {f"{what}_core": round(measured[what]["per_core_s"] / limit, 3) for what, (_, limit) in limits.items()}
    of_network = round(measured["folder"]["fps"] / measured["benchmark_app"]["fps"], 3)
    return shares | cores | {"folder_of_network": of_network}


def pipeline(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an INT8 network and a face detector.")],
    rounds: Annotated[int, typer.Option(min=1, help="Number of interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds per measurement.")] = 6.0,
) -> int:
    """Measure how much of the machine's limit the runtime reaches."""
    shares: list[dict[str, float]] = []
    with ScratchFolder() as folder:
        make_inputs(folder)
        for _ in range(rounds):
            measured = {what: in_process(measure, bundle, folder, seconds) for what, measure in MEASURES.items()}
            shares.append(ratios(measured))
            print(json.dumps({"measured": measured, "ratios": shares[-1]}), flush=True)
    for name in shares[0]:
        median = statistics.median(share[name] for share in shares)
        goal = GOALS.get(name.removesuffix("_core"))
        print(f"{name}: {median:.3f} of the limit" + (f" (goal {goal})" if goal else ""))
    return 0


if __name__ == "__main__":
    run_command(pipeline, "python -m benchmarks.studies.pipeline")

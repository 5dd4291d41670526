"""How much of the machine's limit the runtime reaches: each figure a ratio within one run, in interleaved rounds.

    python -m benchmarks.studies.pipeline BUNDLE

Frames in memory and a folder of JPEGs are compared with `benchmark_app` on the same network; a video with what its
stages would allow, cores divided by the sum of each stage's own core time. Every measurement is a process of its own.
"""

import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from PIL import Image

from edge_runtime.command import run_command
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.sources import Frame, Source

if TYPE_CHECKING:
    import threading

    from edge_runtime.detector import Detector

GOALS = {"memory": 0.96, "folder": 0.86, "video": 0.9}
"""What each ratio should reach."""

PICTURES = 64
"""Different pictures that are used in turn."""

FILES = 600
"""JPEGs in the folder."""

VIDEO_FRAMES = 300


class Memory(Source):
    """A source of decoded pictures, in turn, for some seconds."""

    name, live, still, endless = "memory", False, True, False

    def __init__(self, pictures: list[Image.Image], seconds: float) -> None:
        self._pictures, self._seconds = pictures, seconds

    def prove(self) -> None:
        """Memory can always be read."""

    def frames(self, stop: "threading.Event") -> "Iterator[Frame]":
        """Yield pictures until time is over."""
        end, number = time.monotonic() + self._seconds, 0
        while time.monotonic() < end:
            picture = self._pictures[number % len(self._pictures)]
            yield Frame(self.name, number, functools.partial(_same, picture), still=True)
            number += 1


def _same(picture: Image.Image) -> Image.Image:
    return picture


def textures(count: int, side: int) -> list[Image.Image]:
    """Return pictures with detail at every scale, so that JPEG has its usual work."""
    random, pictures = np.random.default_rng(42), []
    for _ in range(count):
        total = np.zeros((side, side, 3), np.float32)
        for scale in (4, 16, 64, side):
            noise = Image.fromarray(random.integers(0, 256, (scale, scale, 3), np.uint8))
            total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32) / scale**0.5
        pictures.append(Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)))
    return pictures


def measure_memory(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return frames a second and a core second, from pictures in memory to verdicts."""
    from edge_runtime.detector import Detector

    detector = Detector(bundle, device="CPU", precision="int8", faces="off")
    pictures = textures(PICTURES, 256)
    return _timed(lambda: sum(1 for _ in detector.pipeline([Memory(pictures, seconds)]).results()), detector)


def measure_folder(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return frames a second and a core second, from a folder of JPEGs to lines of JSON."""
    from edge_runtime.detector import Detector
    from edge_runtime.sinks.lines import JsonlSink
    from edge_runtime.sources import open_sources

    detector = Detector(bundle, device="CPU", precision="int8", faces="off")

    def work() -> int:
        count = 0
        with JsonlSink(folder / "out.jsonl") as sink:
            for judged in detector.pipeline(open_sources([str(folder / "jpegs")])).results():
                sink.write(judged)
                count += 1
        return count

    return _timed(work, detector)


def measure_video(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return frames a second and a core second of a 720p video with one face, face stage on."""
    from edge_runtime.detector import Detector
    from edge_runtime.sources import open_sources

    detector = Detector(bundle, device="CPU", precision="int8")

    def work() -> int:
        results = [judged.result for judged in detector.pipeline(open_sources([str(folder / "face.mp4")])).results()]
        return sum(len(result.faces) == 1 and result.faces[0].score is not None for result in results)

    return _timed(work, detector)


def measure_stages(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return the core milliseconds that each stage of the video takes alone, in one thread, a frame."""
    from edge_runtime.detector import Detector
    from edge_runtime.judging.scorer import prepare_face
    from edge_runtime.sources.opencv import cv2, picture_of

    detector = Detector(bundle, device="CPU", precision="int8")
    detector.engine.logits(
        np.zeros((1, detector.bundle.contract.input_size, detector.bundle.contract.input_size, 3), np.uint8)
    )
    finder = detector.moving_faces()
    if finder is None:
        raise BundleError(f"{bundle}: holds no face model")
    capture = cv2.VideoCapture(str(folder / "face.mp4"), cv2.CAP_FFMPEG)
    images: list[Any] = []
    clock = {"decode": _core_ms(lambda: images.append(capture.read()[1]), 100)}
    pictures: list[Image.Image] = []
    turn = iter(images)
    clock["convert"] = _core_ms(lambda: pictures.append(picture_of(next(turn))), 100)
    found: list[Any] = []
    each = iter(pictures)
    clock["faces"] = _core_ms(lambda: found.append(finder.detect(next(each))), 100)
    pairs = iter(zip(pictures, found, strict=True))
    crops: list[Any] = []

    def cut() -> None:
        picture, faces = next(pairs)
        crops.append(prepare_face(picture, faces[0], detector.bundle.contract, detector.limits).crops)

    clock["crop"] = _core_ms(cut, 100)
    batch = np.concatenate([pixels for pixels in crops if pixels is not None])
    detector.engine.logits(batch)
    began = time.process_time()
    detector.engine.logits(batch)
    clock["classify"] = 1e3 * (time.process_time() - began) / len(batch)
    return clock


def _core_ms(step: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        step()
    return 1e3 * (time.process_time() - began) / times


def _timed(work: Callable[[], int], detector: "Detector") -> dict[str, float]:
    _warm_up(detector)
    began, core = time.perf_counter(), time.process_time()
    frames = work()
    wall, used = time.perf_counter() - began, time.process_time() - core
    return {"fps": frames / wall, "per_core_s": frames / used, "cores": used / wall}


def _warm_up(detector: "Detector") -> None:
    size = detector.bundle.contract.input_size
    detector.engine.logits(np.zeros((8, size, size, 3), np.uint8))


def benchmark_app(bundle: Path, seconds: float) -> dict[str, float]:
    """Return frames a second that OpenVINO's own benchmark reaches with the bundle's INT8 network."""
    program = Path(sys.executable).with_name("benchmark_app")
    network = Bundle.open(bundle).model(Precision.INT8)
    arguments = ["-m", str(network), "-d", "CPU", "-hint", "throughput", "-infer_precision", "f32"]
    done = subprocess.run([str(program), *arguments, "-t", f"{seconds:g}"], capture_output=True, text=True, check=True)
    return {"fps": float(re.findall(r"Throughput:\s+([\d.]+) FPS", done.stdout)[-1])}


def measure_network(bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Return what the network alone gives: its own input, filled once, in OpenVINO's own queue."""
    import openvino as ov

    from edge_runtime.inference.core import openvino_core

    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(Bundle.open(bundle).model(Precision.INT8), "CPU", settings)
    queue = ov.AsyncInferQueue(compiled)
    pixels = np.random.default_rng(42).random(tuple(compiled.input(0).shape), np.float32)
    for request in queue:
        request.set_input_tensor(ov.Tensor(pixels))
    for _ in range(8):
        queue.start_async()
    queue.wait_all()
    began, core, frames = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        queue.start_async()
        frames += 1
    queue.wait_all()
    wall, used = time.perf_counter() - began, time.process_time() - core
    return {"fps": frames / wall, "per_core_s": frames / used, "cores": used / wall}


MEASURES = {
    "network": measure_network,
    "memory": measure_memory,
    "folder": measure_folder,
    "video": measure_video,
    "stages": measure_stages,
}


def _child(what: str, bundle: Path, folder: Path, seconds: float) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.studies.pipeline",
        str(bundle),
        "--child",
        what,
        "--folder",
        str(folder),
    ]
    done = subprocess.run([*command, "--seconds", f"{seconds:g}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(f"{what} could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def make_inputs(folder: Path) -> None:
    """Write the folder of JPEGs and the video of one face."""
    from train.sample_faces import draw_face

    (folder / "jpegs").mkdir()
    for number, picture in enumerate(textures(PICTURES, 256)):
        picture.save(folder / "jpegs" / f"{number:05}.jpg", quality=95)
    for number in range(PICTURES, FILES):
        shutil.copy(folder / "jpegs" / f"{number % PICTURES:05}.jpg", folder / "jpegs" / f"{number:05}.jpg")
    _write_video(folder / "face.mp4", np.asarray(draw_face(42, 400)))


def _write_video(path: Path, face: np.ndarray) -> None:
    from edge_runtime.sources.opencv import cv2

    background = np.asarray(textures(1, 1280)[0])[:720]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (1280, 720))
    for number in range(VIDEO_FRAMES):
        frame = np.ascontiguousarray(background[:, :, ::-1])
        left = 100 + 2 * number
        frame[150 : 150 + face.shape[0], left : left + face.shape[1]] = face[:, :, ::-1]
        writer.write(frame)
    writer.release()


def measure_all(bundle: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure everything `rounds` times in turn and return medians, with every round."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for _ in range(rounds):
            measured: dict[str, Any] = {"benchmark_app": benchmark_app(bundle, seconds)}
            measured |= {what: _child(what, bundle, folder, seconds) for what in MEASURES}
            found.append(measured)
            print(json.dumps({"measured": measured, "ratios": ratios(measured)}), flush=True)
    shares = [ratios(one) for one in found]
    return {"rounds": found, "ratios": {key: statistics.median(one[key] for one in shares) for key in shares[0]}}


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """Return each figure as a share of its limit: frames a second, and frames a core second (`…_core`).

    On a machine that does other work too, a program with more threads is given more of it, so only the latter is fair
    there; it leaves out whether every core had something to do.
    """
    stages = 1e3 / sum(measured["stages"].values())
    limits = {
        "memory": (measured["benchmark_app"]["fps"], measured["network"]["per_core_s"]),
        "folder": (measured["benchmark_app"]["fps"], measured["network"]["per_core_s"]),
        "video": ((os.cpu_count() or 1) * stages, stages),
    }
    shares = {what: round(measured[what]["fps"] / limit, 3) for what, (limit, _) in limits.items()}
    cores = {f"{what}_core": round(measured[what]["per_core_s"] / limit, 3) for what, (_, limit) in limits.items()}
    return shares | cores


def pipeline(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an INT8 network and a face model.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured, in turn.")] = 5,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long each measurement lasts.")] = 6.0,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> int:
    """Measure how much of the machine's limit the runtime reaches."""
    if child:
        print(json.dumps(MEASURES[child](bundle, folder, seconds)))
        return 0
    result = measure_all(bundle, rounds, seconds)
    for name, value in result["ratios"].items():
        print(f"{name}: {value:.3f} of the limit (goal {GOALS[name.removesuffix('_core')]})")
    return 0


def main() -> None:
    """Start the command."""
    run_command(pipeline, "python -m benchmarks.studies.pipeline")


if __name__ == "__main__":
    main()

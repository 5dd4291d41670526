"""Rows to compare with: the first article's PyTorch loop, PyTorch done well, ONNX Runtime, and benchmark_app's ceiling.

Each is imported only when it is asked for, in a child process of its own.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure.cases import Engine, Job, Limits, Mode
from benchmarks.measure.speed import Logits, Pixels, picture_pixels
from benchmarks.measure.timing import Timing, in_batches, in_threads, one_by_one
from edge_runtime.errors import DeviceError, UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, ModelContract
from edge_runtime.pixels.preprocess import face_pixels

BATCH = 4
"""Pictures a batch of PyTorch's throughput row."""

BENCHMARK_APP = "from openvino.tools.benchmark.main import main; main()"
"""What the script benchmark_app of OpenVINO's wheel runs."""

NEEDS: Mapping[Engine, str] = {Engine.ARTICLE: "torch", Engine.PYTORCH: "torch", Engine.ONNXRUNTIME: "onnxruntime"}
"""The package that a row needs."""


def missing_package(engine: Engine) -> str | None:
    """Name the package that `engine` needs and that is not installed, if there is one."""
    name = NEEDS.get(engine)
    return name if name and importlib.util.find_spec(name) is None else None


def normalised(pixels: Pixels, contract: ModelContract) -> np.ndarray:
    """Return crops uint8 [N, H, W, 3] as float32 [N, 3, H, W] with the contract's mean and scale taken out."""
    planes = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255.0
    mean, scale = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in (contract.mean, contract.scale))
    return np.ascontiguousarray((planes - mean) / scale)


def judge(logits: Logits, calibration: Calibration) -> object:
    """Return the verdict for one face's logits [K, 2], crops averaged."""
    mean = logits.mean(axis=0)
    return calibration.verdict(calibration.score(float(mean[1] - mean[0])))


class PlainEngine:
    """What the rows to compare with have in common: a function from planes, float32 [N, 3, H, W], to logits [N, 2]."""

    def __init__(self, job: Job, forward: Callable[[np.ndarray], Logits], facts: Mapping[str, Any]) -> None:
        self.contract = Bundle.open(job.bundle).contract
        self._forward, self._facts = forward, facts
        self._reading = self.contract.calibration(job.case.precision)
        self._mode = job.case.mode

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], one after the other."""
        return np.concatenate([self._infer(crop[None]) for crop in pixels])

    def verdict(self, path: str) -> object:
        """Judge one picture file."""
        return judge(self._infer(picture_pixels(path, self.contract)), self._reading)

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""
        return one_by_one(self._infer, crops, limits)

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to verdicts."""
        return one_by_one(self.verdict, paths, limits)

    def facts(self) -> dict[str, Any]:
        """Say what runs."""
        return dict(self._facts)

    def _infer(self, pixels: Pixels) -> Logits:
        return self._forward(normalised(pixels, self.contract))


class BatchEngine(PlainEngine):
    """PyTorch as its makers advise for a CPU: inference mode, channels last; batches where throughput counts."""

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""
        if self._mode is Mode.LATENCY:
            return one_by_one(self._infer, crops, limits)
        return in_batches(lambda batch: self._infer(np.concatenate(batch)), crops, limits, BATCH)

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to verdicts."""
        if self._mode is Mode.LATENCY:
            return one_by_one(self.verdict, paths, limits)
        return in_batches(self._judge_batch, paths, limits, BATCH)

    def _judge_batch(self, paths: list[str]) -> None:
        crops = [picture_pixels(path, self.contract) for path in paths]
        logits = self._infer(np.concatenate(crops)).reshape(len(paths), -1, 2)
        for face in logits:
            judge(face, self._reading)


class ThreadsEngine(PlainEngine):
    """ONNX Runtime: all cores for one picture, or one core a picture where throughput counts."""

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""
        return self._timed(self._infer, crops, limits)

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to verdicts."""
        return self._timed(self.verdict, paths, limits)

    def _timed(self, step: Callable[[Any], object], inputs: Sequence[Any], limits: Limits) -> Timing:
        if self._mode is Mode.LATENCY:
            return one_by_one(step, inputs, limits)
        return in_threads(step, inputs, limits, os.cpu_count() or 1)


class ArticleEngine:
    """The first article's loop as written: one picture, softmax, FPS = 1 / time; torch's threads are left as they are.

    Only the pixels are this project's, so that its outputs can be held against ours.
    """

    def __init__(self, job: Job) -> None:
        import torch

        self._torch = torch
        self.contract = Bundle.open(job.bundle).contract
        self._model = load_network(job)
        self._mean = torch.tensor(self.contract.mean).view(3, 1, 1)
        self._scale = torch.tensor(self.contract.scale).view(3, 1, 1)
        self._article_fps: list[float] = []

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], one after the other."""
        return np.concatenate([self._forward(crop[None]).numpy() for crop in pixels])

    def verdict(self, path: str) -> object:
        """Judge one picture file as the article's loop does, and note its FPS as the article counts them."""
        start = time.time()
        image = Image.open(path).convert("RGB")
        output = self._forward(face_pixels(image, None, self.contract))
        probability = self._torch.softmax(output, dim=1).mean(dim=0)
        predicted = int(probability.argmax())
        self._article_fps.append(1.0 / (time.time() - start))
        return predicted

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""
        return one_by_one(self._forward, crops, limits)

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to predictions."""
        return one_by_one(self.verdict, paths, limits)

    def facts(self) -> dict[str, Any]:
        """Say what runs, with the mean FPS as the article counts them: 1 / time of each picture, the cold first too."""
        return {**torch_facts(), "fps_as_the_article_counts": round(float(np.mean(self._article_fps or [0.0])), 2)}

    def _forward(self, pixels: Pixels) -> Any:
        tensor = self._torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0
        with self._torch.no_grad():
            return self._model((tensor - self._mean) / self._scale)


def article_training(model: Any, faces: Sequence[tuple[str, int]], batch: int) -> Iterator[float]:
    """Train as the first article does, and yield the mean loss of each pass over `faces`, without end.

    Plain PyTorch: Adam at 1e-3, pictures resized to 224 pixels as they are loaded, one process, 32-bit floats; torch's
    threads are left as they are.

    Args:
        model: the network.
        faces: path and label, 0 or 1, of each picture.
        batch: pictures a step.
    """
    import torch
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    class Faces(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(faces)

        def __getitem__(self, index: int) -> Any:
            path, label = faces[index]
            return transform(Image.open(path).convert("RGB")), label

    loader = torch.utils.data.DataLoader(Faces(), batch_size=batch, shuffle=True)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model.train()
    while True:
        running_loss = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        yield running_loss / len(loader)


def load_network(job: Job) -> Any:
    """Return the checkpoint's network, in evaluation mode.

    Raises:
        UsageError: there is none, or it can't be read.
    """
    from train.models.checkpoint import load_checkpoint, load_model

    if job.checkpoint is None:
        raise UsageError(f"{job.case.bundle}: PyTorch's rows need --checkpoint, the file that the bundle was made from")
    return load_model(load_checkpoint(job.checkpoint))


def torch_facts() -> dict[str, Any]:
    """Say which PyTorch runs, on how many threads and with which instruction set."""
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "aten_isa": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
    }


def pytorch_engine(job: Job) -> BatchEngine:
    """Return PyTorch in inference mode with channels last."""
    import torch

    network = load_network(job).to(memory_format=torch.channels_last)

    def forward(planes: np.ndarray) -> Logits:
        with torch.inference_mode():
            given = torch.from_numpy(planes).to(memory_format=torch.channels_last)
            return network(given).numpy()

    return BatchEngine(job, forward, {**torch_facts(), "batch": 1 if job.case.mode is Mode.LATENCY else BATCH})


def onnxruntime_engine(job: Job) -> ThreadsEngine:
    """Return ONNX Runtime on the CPU with the bundle's ONNX file.

    Raises:
        BundleError: the bundle holds none.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if job.case.mode is Mode.THROUGHPUT:
        options.intra_op_num_threads = 1
    path = Bundle.open(job.bundle).file("onnx/model.onnx")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    facts = {
        "onnxruntime": onnxruntime.__version__,
        "providers": session.get_providers(),
        "threads": options.intra_op_num_threads or os.cpu_count(),
        "pictures_at_once": 1 if job.case.mode is Mode.LATENCY else os.cpu_count(),
    }
    return ThreadsEngine(job, lambda planes: session.run(None, {name: planes})[0], facts)


def ceiling(job: Job) -> tuple[dict[str, float], dict[str, Any]]:
    """Run OpenVINO's benchmark_app on the same network; return its figures and what it ran with.

    It feeds itself random input and only infers, so it has no outputs and no end-to-end figure.

    Raises:
        DeviceError: it failed.
    """
    command = ceiling_command(job)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    figures = parse_ceiling(done.stdout)
    if done.returncode or "model_fps" not in figures:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise DeviceError(f"benchmark_app failed with exit code {done.returncode}: {lines[-1]}")
    return figures, {"benchmark_app": importlib.metadata.version("openvino"), "options": " ".join(command[5:])}


def ceiling_command(job: Job) -> list[str]:
    """Return the command line of benchmark_app for a case: the same network, hint and float32."""
    bundle = Bundle.open(job.bundle)
    size, device = bundle.contract.input_size, job.case.device
    command = [sys.executable, "-c", BENCHMARK_APP, "-m", str(bundle.model(job.case.precision))]
    command += ["-d", device, "-hint", job.case.mode.value, "-shape", f"[1,3,{size},{size}]", "-ip", "u8"]
    command += ["-infer_precision", "f32"] if device == "CPU" else []
    if job.limits.frames < 1_000_000:
        return [*command, "-niter", str(job.limits.frames)]
    return [*command, "-t", str(max(1, round(job.limits.seconds)))]


def parse_ceiling(text: str) -> dict[str, float]:
    """Return the figures that benchmark_app prints: FPS and latencies in milliseconds."""
    patterns = {
        "model_fps": r"Throughput:\s+([\d.]+) FPS",
        "model_p50_ms": r"Median:\s+([\d.]+) ms",
        "model_max_ms": r"Max:\s+([\d.]+) ms",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    return {name: float(match.group(1)) for name, match in found.items() if match}


def cap_variables(isa: str) -> dict[str, str]:
    """Return what caps PyTorch's own kernels to `isa`, beside oneDNN's."""
    capability = {"sse42": "default", "avx2": "avx2"}.get(isa)
    return {"ATEN_CPU_CAPABILITY": capability} if capability else {}


def onnx_file(bundle: Bundle) -> bool:
    """Whether the bundle holds an ONNX file."""
    return "onnx/model.onnx" in bundle.manifest.files and (bundle.path / Path("onnx/model.onnx")).exists()

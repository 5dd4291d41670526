"""ONNX Runtime on the CPU: all cores for one picture, or one core per picture in throughput mode."""

import os

import numpy as np
import onnxruntime

from benchmarks.engines.common import BaselineEngine, Logits, Pixels
from benchmarks.measure.cases import ONNX_FILE, Job, Mode
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract


def onnxruntime_engine(job: Job) -> BaselineEngine:
    """Return ONNX Runtime with the bundle's ONNX file.

    Raises:
        BundleError: the bundle has no ONNX file.
    """
    bundle, options = Bundle.open(job.bundle), onnxruntime.SessionOptions()
    pictures_at_once = 1
    if job.case.mode is Mode.THROUGHPUT:
        options.intra_op_num_threads = 1
        pictures_at_once = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(str(bundle.file(ONNX_FILE)), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    facts = {
        "onnxruntime": onnxruntime.__version__,
        "providers": session.get_providers(),
        "threads": options.intra_op_num_threads or os.cpu_count(),
        "pictures_at_once": pictures_at_once,
    }

    def forward(pixels: Pixels) -> Logits:
        logits: Logits = session.run(None, {name: normalized(pixels, bundle.contract)})[0]
        return logits

    return BaselineEngine(job, forward, facts, threads=pictures_at_once)


def normalized(pixels: Pixels, contract: ModelContract) -> np.ndarray:
    """Return crops uint8 [N, H, W, 3] as the network's input, float32 [N, 3, H, W]."""
    planes = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255.0
    mean, scale = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in (contract.mean, contract.scale))
    return np.ascontiguousarray((planes - mean) / scale)

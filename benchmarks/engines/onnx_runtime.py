"""ONNX Runtime on the CPU: all cores for one picture, or one core per picture in throughput mode."""

import os

import onnxruntime

from benchmarks.engines.common import BaselineEngine, Logits, Pixels
from benchmarks.measure.cases import ONNX_FILE, Job, Mode
from edge_runtime.model.bundle import Bundle
from edge_runtime.pixels.preprocess import normalized


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

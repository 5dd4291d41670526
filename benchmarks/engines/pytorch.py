"""PyTorch as its documentation recommends for a CPU: inference mode, channels last, batches for throughput."""

from typing import Any

import torch

from benchmarks.engines.common import BaselineEngine
from benchmarks.measure.cases import Job, Mode
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from train.models.checkpoint import load_checkpoint, load_model
from train.models.network import torch_logits

BATCH = 4
"""Pictures per batch in throughput mode."""


def pytorch_engine(job: Job) -> BaselineEngine:
    """Return PyTorch with the checkpoint's network."""
    batch = 1 if job.case.mode is Mode.LATENCY else BATCH
    forward = torch_logits(load_network(job), Bundle.open(job.bundle).contract)
    return BaselineEngine(job, forward, {**torch_facts(), "batch": batch}, batch=batch)


def load_network(job: Job) -> Any:
    """Return the checkpoint's network in evaluation mode.

    Raises:
        UsageError: the job has no checkpoint.
        CheckpointError: it can't be read.
    """
    if job.checkpoint is None:
        raise UsageError(f"{job.case.bundle}: PyTorch needs --checkpoint, the .pth that the bundle was exported from")
    return load_model(load_checkpoint(job.checkpoint))


def torch_facts() -> dict[str, Any]:
    """Return PyTorch's version, thread counts and instruction set."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "aten_isa": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
    }

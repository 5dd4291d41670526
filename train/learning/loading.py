"""The processes that load training faces: how they are started, checked and reported when they die."""

import contextlib
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Sampler

from edge_runtime.errors import UsageError
from train.learning.dataset import FaceDataset, collate
from train.models.state_dict import first_line


class CurrentBatches(Sampler[list[int]]):
    """Calls `batches` at the start of every epoch, so that one loader and its processes serve all epochs."""

    def __init__(self, batches: Callable[[], list[list[int]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())


def build_loader(dataset: FaceDataset, batches: Callable[[], list[list[int]]], workers: int) -> DataLoader[Any]:
    """Return a loader of `Batch`, or of a PictureGoneError; its processes live as long as it does."""
    return DataLoader(
        dataset,
        batch_sampler=CurrentBatches(batches),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which often reach all processes; the main process saves and ends the loaders."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def dead_loaders_reported(workers: int) -> Iterator[None]:
    """Turn the error that follows the death of a loader process into one line.

    Raises:
        UsageError: a loader process died.
    """
    others = set(multiprocessing.active_children())
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        # A process that dies resets its connections before it is gone, which torch's own handler then reports.
        with contextlib.suppress(RuntimeError):
            time.sleep(1.0 if workers else 0.0)
        if len(set(multiprocessing.active_children()) - others) >= workers:
            raise
        raise UsageError(
            f"--workers {workers}: a process that loads pictures died ({first_line(error)}); "
            "give fewer, or 0, to resume from the last save"
        ) from None


def check_shared_memory(workers: int, batch: int, side: int) -> None:
    """Check that the batches which loader processes hold ready, two each, fit into /dev/shm.

    Raises:
        UsageError: they do not.
    """
    shared = Path("/dev/shm")
    if not workers or not shared.is_dir():
        return
    needed, free = (2 * workers + 1) * batch * side * side * 3, shutil.disk_usage(shared).free
    if free < needed:
        raise UsageError(
            f"--workers {workers}: /dev/shm has {free / 2**20:.0f} MB free, {needed / 2**20:.0f} MB are needed; "
            "give --workers 0"
        )

"""The queue in front of the detector."""

import threading

import numpy as np
import pytest

from edge_runtime.inference.engine import Answer, Choice
from edge_runtime.model.contract import Calibration, Precision
from edge_runtime.web.service.batching import BatchingQueue, QueueFullError


def crops(count: int, value: int = 0) -> np.ndarray:
    return np.full((count, 2, 2, 3), value, np.uint8)


class HeldDetector:
    """A detector that waits to be released and remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.released, self.started, self.batches = threading.Event(), threading.Event(), []

    def compute(self, pixels: np.ndarray) -> Answer:
        self.started.set()
        assert self.released.wait(10)
        self.batches.append(len(pixels))
        return Answer(pixels[:, 0, 0, :2].astype(np.float32), Choice("CPU", Precision.INT8), Calibration())


@pytest.fixture
def detector():
    return HeldDetector()


@pytest.fixture
def queue(detector):
    """A queue whose detector is busy with one crop."""
    queue = BatchingQueue(waiting=40)
    queue.submit(crops(1), detector.compute)
    assert detector.started.wait(10)
    yield queue
    detector.released.set()
    queue.close()


def test_jobs_of_several_clients_share_a_batch(queue, detector):
    jobs = [queue.submit(crops(2, value), detector.compute) for value in range(5)]
    detector.released.set()
    assert [job.result(10).logits[:, 0].tolist() for job in jobs] == [[value, value] for value in range(5)]
    assert detector.batches == [1, 10]


def test_only_single_jobs_exceed_the_largest_batch(queue, detector):
    jobs = [queue.submit(crops(count), detector.compute) for count in (20, 10, 5, 39)]
    detector.released.set()
    assert [len(job.result(10).logits) for job in jobs] == [20, 10, 5, 39]
    assert detector.batches == [1, 30, 5, 39]


def test_full_queue_refuses_or_waits(queue, detector):
    waiting = queue.submit(crops(40), detector.compute)
    assert queue.full
    with pytest.raises(QueueFullError):
        queue.submit(crops(1), detector.compute)
    answers = []
    patient = threading.Thread(
        target=lambda: answers.append(queue.submit(crops(3), detector.compute, wait=True).result(10))
    )
    patient.start()
    detector.released.set()
    patient.join(10)
    assert answers[0].logits.shape == (3, 2)
    assert len(waiting.result(10).logits) == 40
    assert queue.submit(crops(1), detector.compute).result(10).logits.shape == (1, 2)
    assert queue.waiting == 0


def test_cancelled_jobs_are_not_computed(queue, detector):
    cancelled = queue.submit(crops(7), detector.compute)
    kept = queue.submit(crops(2), detector.compute)
    assert cancelled.cancel()
    detector.released.set()
    kept.result(10)
    assert detector.batches == [1, 2]


def test_failing_detector_fails_its_jobs_only(queue, detector):
    def fail(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("device lost")

    failing = [queue.submit(crops(1), fail) for _ in range(2)]
    following = queue.submit(crops(1), detector.compute)
    detector.released.set()
    for job in failing:
        with pytest.raises(RuntimeError, match="device lost"):
            job.result(10)
    assert following.result(10).logits.shape == (1, 2)
    assert queue.alive


def test_closing_cancels_waiting_jobs(queue, detector):
    waiting = queue.submit(crops(1), detector.compute)
    threading.Timer(0.1, detector.released.set).start()
    queue.close()
    assert waiting.cancelled()
    assert not queue.alive
    with pytest.raises(QueueFullError):
        queue.submit(crops(1), detector.compute)

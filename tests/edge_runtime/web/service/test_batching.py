"""The one queue in front of the detector."""

import threading

import numpy as np
import pytest

from edge_runtime.inference.engine import Answer, Choice
from edge_runtime.model.contract import Calibration, Precision
from edge_runtime.web.service.batching import LARGEST_BATCH, BatchingQueue, QueueFullError

CHOICE = Choice("CPU", Precision.INT8)


def crops(count: int, value: int = 0) -> np.ndarray:
    return np.full((count, 2, 2, 3), value, np.uint8)


class Held:
    """A detector that computes nothing before it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.go, self.begun, self.batches = threading.Event(), threading.Event(), []

    def compute(self, pixels: np.ndarray) -> Answer:
        self.begun.set()
        assert self.go.wait(10)
        self.batches.append(len(pixels))
        return Answer(pixels[:, 0, 0, :2].astype(np.float32), CHOICE, Calibration())


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def queue(held):
    queue = BatchingQueue(waiting=40)
    first = queue.submit(crops(1), held.compute)
    assert held.begun.wait(10)
    yield queue
    held.go.set()
    first.result(10)
    queue.close()


def test_what_several_clients_bring_is_computed_together_and_given_back_to_each(queue, held):
    jobs = [queue.submit(crops(2, value), held.compute) for value in range(5)]
    held.go.set()
    assert [job.result(10).logits[:, 0].tolist() for job in jobs] == [[value, value] for value in range(5)]
    assert held.batches == [1, 10]


def test_a_batch_is_not_larger_than_the_largest_except_for_one_picture_with_more_faces(queue, held):
    jobs = [queue.submit(crops(count), held.compute) for count in (20, 10, 5, 39)]
    held.go.set()
    assert [len(job.result(10).logits) for job in jobs] == [20, 10, 5, 39]
    assert held.batches == [1, 30, 5, 39]
    assert LARGEST_BATCH == 32


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(queue, held):
    assert not queue.full
    waiting = queue.submit(crops(40), held.compute)
    assert queue.full
    with pytest.raises(QueueFullError):
        queue.submit(crops(1), held.compute)
    held.go.set()
    assert len(waiting.result(10).logits) == 40
    assert queue.submit(crops(1), held.compute).result(10).logits.shape == (1, 2)
    assert queue.waiting == 0


def test_who_may_wait_is_let_in_when_there_is_room(queue, held):
    queue.submit(crops(40), held.compute)
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.submit(crops(3), held.compute, wait=True).result(10)))
    thread.start()
    held.go.set()
    thread.join(10)
    assert got[0].logits.shape == (3, 2)


def test_a_job_that_nobody_waits_for_any_more_is_not_computed(queue, held):
    left = queue.submit(crops(7), held.compute)
    stays = queue.submit(crops(2), held.compute)
    assert left.cancel()
    held.go.set()
    stays.result(10)
    assert held.batches == [1, 2]


def test_a_failing_detector_fails_those_who_wait_and_works_on(queue, held):
    def fail(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("device lost")

    failing = [queue.submit(crops(1), fail) for _ in range(2)]
    following = queue.submit(crops(1), held.compute)
    held.go.set()
    for job in failing:
        with pytest.raises(RuntimeError, match="device lost"):
            job.result(10)
    assert following.result(10).logits.shape == (1, 2)
    assert queue.alive


def test_a_closed_queue_cancels_what_waits_and_takes_nothing_more():
    held = Held()
    queue = BatchingQueue(waiting=10)
    queue.submit(crops(1), held.compute)
    assert held.begun.wait(10)
    waiting = queue.submit(crops(1), held.compute)
    held.go.set()
    queue.close()
    assert waiting.cancelled() or waiting.done()
    assert not queue.alive
    with pytest.raises(QueueFullError):
        queue.submit(crops(1), held.compute)

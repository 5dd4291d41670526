"""The engine `ray`: one actor for each worker, on the machines of a Ray cluster or on this one."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from edge_runtime.bulk.engines import Queue
from edge_runtime.bulk.judge import Outcome, PartWorker
from edge_runtime.bulk.parts import Job, PictureList
from edge_runtime.errors import UsageError


class RayActors:
    """Actors of a Ray cluster.

    Args:
        workers: how many; None is one for each `threads` CPUs of the cluster.
        address: of a running cluster; None is $RAY_ADDRESS, or a cluster started on this machine.

    Raises:
        UsageError: Ray is not installed, or the cluster can't be reached.
    """

    def __init__(self, workers: int | None, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray; run pip install ray") from None
        self._ray, self._workers = ray, workers
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray can't be reached ({str(error).splitlines()[0]}); check --ray-address") from None

    def run(self, job: Job, pictures: PictureList, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Yield outcomes; the actors end with this process."""
        ray, queue = self._ray, Queue(pictures, numbers)
        actor_class = ray.remote(num_cpus=job.threads, max_restarts=0, max_task_retries=0)(PartWorker)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        busy: dict[Any, tuple[Any, int]] = {}

        def give(actor: Any) -> None:
            part = queue.take()
            if part is None:
                ray.kill(actor)
            else:
                busy[actor.judge.remote(part)] = (actor, part.number)

        try:
            for _ in range(min(self._workers or max(1, cpus // job.threads), len(numbers))):
                give(actor_class.remote(job))
            while busy:
                (ready,), _ = ray.wait(list(busy), num_returns=1)
                actor, number = busy.pop(ready)
                outcome: Outcome | None
                try:
                    outcome = ray.get(ready)
                except ray.exceptions.RayActorError:
                    outcome, actor = queue.died(number), actor_class.remote(job)
                give(actor)
                if outcome is not None:
                    yield outcome
        finally:
            for actor, _ in busy.values():
                with contextlib.suppress(Exception):
                    ray.kill(actor)

"""The child process of an export: `python -m export.children.worker` does jobs under its environment's instruction set.

A job is a line of JSON on standard input. The answers are `+N` for N more steps done, and `done`. It ends when its
standard input is closed: with whoever started it, also where that one was killed.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.model.contract import Calibration, ModelContract
from train.data.build import Catalog
from train.evaluation.logits import network_logits
from train.parallel import Advance


def measure(job: Mapping[str, Any], advance: Advance) -> None:
    """Write the logits [N, 2] of each of `networks` (path by name) on the faces of `catalog` to `out` (.npz)."""
    contract, records = _contract(job), Catalog.read(job["catalog"]).records
    found = {name: network_logits(xml, contract, records, progress=advance) for name, xml in job["networks"].items()}
    np.savez(job["out"], allow_pickle=False, **found)


def quantize(job: Mapping[str, Any], advance: Advance) -> None:
    """Write the INT8 network of candidate `candidate` of `xml` to `out`, with `control` under accuracy control."""
    from export.int8 import quantize as quantizing
    from export.int8.gate import Limits, limit_metric

    control = None
    if given := job.get("control"):
        judged, exact = Catalog.read(given["catalog"]).records, np.array(given["fp32"], np.float32)
        labels, limits = [face.label for face in judged], Limits(**given["limits"])
        judge = limit_metric(labels, exact, Calibration(**given["reading"]), limits)
        control = quantizing.Control(judged, exact, judge)
    candidate, records = quantizing.Candidate(**job["candidate"]), Catalog.read(job["catalog"]).records
    quantizing.quantize(Path(job["xml"]), Path(job["out"]), candidate, _contract(job), records, advance, control)


def noise(job: Mapping[str, Any], advance: Advance) -> None:
    """Write the layers that hurt most between `fp32` and `int8` to `out` (JSON)."""
    from export.int8.quantize import layers_that_hurt

    records = Catalog.read(job["catalog"]).records
    worst = layers_that_hurt(Path(job["fp32"]), Path(job["int8"]), _contract(job), records)
    Path(job["out"]).write_text(json.dumps([[found.layer, found.added] for found in worst]), encoding="utf-8")


JOBS: Mapping[str, Callable[[Mapping[str, Any], Advance], None]] = {
    "measure": measure,
    "quantize": quantize,
    "noise": noise,
}


def _contract(job: Mapping[str, Any]) -> ModelContract:
    return ModelContract.from_dict(job["contract"])


def _jobs() -> "queue.SimpleQueue[str]":
    """Return the queue of the lines that come in. When there are no more, nobody waits for us any longer: we end."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(os.dup(0), encoding="utf-8") as given:
            for line in given:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    """Do each job that comes in as a line of JSON; a job that fails ends the process with its traceback."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Libraries print what they like; only our answers may reach the one who reads us.
    os.dup2(2, 1)
    lines = _jobs()
    while True:
        job = json.loads(lines.get())
        JOBS[job["kind"]](job, lambda count: print(f"+{count}", file=answers))
        print("done", file=answers)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)

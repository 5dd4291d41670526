"""The child process of an export: `python -m export.worker JOB.json` does one job under its environment's ISA.

It prints `+N` for N more steps done, and ends when its standard input is closed: with whoever started it.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.contract import ModelContract
from train.catalog import Catalog
from train.evaluate import network_logits
from train.workers import Advance


def measure(job: Mapping[str, Any], advance: Advance) -> None:
    """Write the logits [N, 2] of each of `networks` (path by name) on the faces of `catalog` to `out` (.npz)."""
    contract, records = _contract(job), Catalog.read(job["catalog"]).records
    found = {name: network_logits(xml, contract, records, progress=advance) for name, xml in job["networks"].items()}
    np.savez(job["out"], **found)


def quantize(job: Mapping[str, Any], advance: Advance) -> None:
    """Write the INT8 network of candidate `candidate` of `xml` to `out`."""
    from export import quantize as quantizing

    candidate = quantizing.Candidate(**job["candidate"])
    records = Catalog.read(job["catalog"]).records
    quantizing.quantize(Path(job["xml"]), Path(job["out"]), candidate, _contract(job), records, advance)


JOBS: Mapping[str, Callable[[Mapping[str, Any], Advance], None]] = {"measure": measure, "quantize": quantize}


def _contract(job: Mapping[str, Any]) -> ModelContract:
    return ModelContract.from_dict(job["contract"])


def _end_with_parent() -> None:
    def wait() -> None:
        # Not sys.stdin: its lock would stop the interpreter from ending.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Do the job that the file named by the first argument describes."""
    _end_with_parent()
    # Libraries print what they like; only counts may reach the one who reads us.
    counts = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    JOBS[job["kind"]](job, lambda count: print(f"+{count}", file=counts))


if __name__ == "__main__":
    main()

"""Load test over loopback: many clients at once, compared with the speed of the classifier alone.

    python tests/edge_runtime/web/load.py --model detector/ --seconds 60

Both are measured alternately in one run. The server runs in a process of its own.
"""

import argparse
import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from edge_runtime.detector import Detector
from edge_runtime.model.bundle import Bundle
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from train.sample_faces import sample_jpeg


@dataclass
class Load:
    """Answers by HTTP status, their latencies, and lost connections."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@contextmanager
def server(model: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run `edge-serve`; yields its port and process."""
    command = [sys.executable, "-m", "edge_runtime.web.cli", "--port", "0", "--model", str(model), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found, "edge-serve did not start"
        yield int(found[1]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def request_of(picture: bytes) -> bytes:
    """Return the HTTP request that uploads `picture`."""
    top = b'--load\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = top + picture + b"\r\n--load--\r\n"
    form = f"Content-Type: multipart/form-data; boundary=load\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{form}".encode() + body


async def client(port: int, requests: Iterator[bytes], until: float, load: Load) -> None:
    """Send one request after the other until the monotonic time `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(next(requests))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
            load.statuses[int(head.split(b" ", 2)[1])] += 1
            load.latencies_ms.append(1e3 * (time.monotonic() - began))
            closed = b"connection: close" in head.lower()
        except (asyncio.IncompleteReadError, OSError) as error:
            load.failures[type(error).__name__] += 1
            closed = True
        if closed:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def put_load(port: int, requests: list[bytes], clients: int, seconds: float, load: Load) -> None:
    """Run `clients` for `seconds` and add their answers to `load`."""
    began, cycle = time.monotonic(), itertools.cycle(requests)
    await asyncio.gather(*(client(port, cycle, began + seconds, load) for _ in range(clients)))
    load.seconds += time.monotonic() - began


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time that a process has used, in seconds."""
    times = process.cpu_times()
    return times.user + times.system


def measure(model: Path, clients: int, seconds: float, rounds: int, faces: str) -> dict[str, object]:
    """Measure the service and the classifier alternately."""
    pictures = [sample_jpeg(seed, "real" if seed % 2 else "fake") for seed in range(8)]
    detector = Detector(Bundle.open(model), faces=faces)
    contract = detector.engine.contract
    pixels = np.concatenate([face_pixels(read_picture(data), None, contract) for data in pictures * 4])
    requests = [request_of(data) for data in pictures]
    load, memory_mb, crops, alone_s, alone_cpu_s, service_cpu_s = Load(), [], 0, 0.0, 0.0, 0.0
    with server(model, "--faces", faces) as (port, process):
        asyncio.run(put_load(port, requests, clients, min(3.0, seconds), Load()))
        for _ in range(rounds):
            began, cpu = time.monotonic(), time.process_time()
            while time.monotonic() - began < max(1.0, seconds / rounds / 3):
                detector.engine.logits(pixels)
                crops += len(pixels)
            alone_s += time.monotonic() - began
            alone_cpu_s += time.process_time() - cpu
            memory_mb.append(process.memory_info().rss / 2**20)
            before = cpu_s(process)
            asyncio.run(put_load(port, requests, clients, seconds / rounds, load))
            service_cpu_s += cpu_s(process) - before
        memory_mb.append(process.memory_info().rss / 2**20)
    per_s, alone_per_s = load.statuses[200] / load.seconds, crops / alone_s / contract.pixels.crops
    return {
        "model": f"{contract.architecture} {detector.choice.precision.value}",
        "clients": clients,
        "seconds": round(load.seconds, 1),
        "pictures_per_s": round(per_s, 1),
        "classifier_alone_per_s": round(alone_per_s, 1),
        "ratio": round(per_s / alone_per_s, 3),
        "cpu_ms_a_picture": round(1e3 * service_cpu_s / max(load.statuses[200], 1), 2),
        "classifier_cpu_ms": round(1e3 * alone_cpu_s / crops * contract.pixels.crops, 2),
        "p50_ms": round(float(np.percentile(load.latencies_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(load.latencies_ms, 99)), 1),
        "statuses": dict(load.statuses),
        "failures": dict(load.failures),
        "rss_mb": [round(value, 1) for value in memory_mb],
    }


def main() -> int:
    """Print the measurements as JSON; exit with 1 if a request failed or got another status than 200, 429 or 503."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--faces", default="off")
    measured = measure(**vars(parser.parse_args()))
    print(json.dumps(measured, indent=2))
    return int(bool(measured["failures"]) or bool(set(measured["statuses"]) - {200, 429, 503}))


if __name__ == "__main__":
    sys.exit(main())

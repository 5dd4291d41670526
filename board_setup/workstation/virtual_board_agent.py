"""Runs on the virtual board: reads commands from the workstation, one JSON line each, and writes one line each back."""

import json
import os
import subprocess
import time
from typing import Any, Dict

PORT = "/dev/virtio-ports/virtual-board"
TIMED_OUT = 124
PRIORITY = -15
"""Commands get a higher priority than the board's own work, which takes all of these slow cores."""


def answer(request: Dict[str, Any]) -> Dict[str, Any]:
    """Run the request's shell command and return its exit code and output."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", request["command"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=request["timeout_s"],
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = TIMED_OUT, late.stdout or b"", late.stderr or b""
    return {"code": code, "out": out.decode(errors="replace"), "err": err.decode(errors="replace")}


def main() -> None:
    """Answer until killed."""
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    while True:
        try:
            with open(PORT, "r+b", buffering=0) as port:
                pending = b""
                while True:
                    received = port.read(65536)
                    if not received:
                        time.sleep(0.2)
                        continue
                    *lines, pending = (pending + received).split(b"\n")
                    for line in lines:
                        reply = json.dumps(answer(json.loads(line))).encode() + b"\n"
                        while reply:
                            reply = reply[port.write(reply) :]
        except OSError:
            time.sleep(0.2)


if __name__ == "__main__":
    main()

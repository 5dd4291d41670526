"""The worker process: runs one job after the other, in the environment that it was started with.

It exits when the connection closes, also in the middle of a job: a parent that was killed leaves no worker behind.
"""

import os
import pickle
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from edge_runtime.errors import EdgeError
from export.children.protocol import Advanced, Call, Raised, Returned, WorkerError


def main(descriptor: int) -> None:
    """Answer the calls that arrive on the socket `descriptor`, forever."""
    connection, calls = Connection(descriptor), queue.SimpleQueue[bytes]()

    def receive() -> None:
        try:
            while True:
                calls.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        connection.send(_answer(calls.get(), connection))


def _answer(call: bytes, connection: Connection) -> Returned | Raised:
    # Unpickling imports the job's module. OpenVINO must be imported in the main thread, not in the receiving one.
    name = "unpickling"
    try:
        given: Call = pickle.loads(call)
        name = given.job.__name__
        options = {"advance": lambda count: connection.send(Advanced(count))} if given.wants_progress else {}
        return Returned(given.job(*given.arguments, **options))
    except EdgeError as error:
        return Raised(error)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        return Raised(WorkerError(f"{name} failed: {type(error).__name__}: {error}"))

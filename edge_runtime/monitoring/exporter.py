"""Serves the metrics over HTTP with the standard library, for `edge-detect --metrics`."""

import contextlib
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any

from edge_runtime.errors import UsageError
from edge_runtime.monitoring.exposition import CONTENT_TYPE

log = logging.getLogger("edge_runtime")

PATIENCE_S = 5.0
"""A client that takes longer for its request and the answer is dropped."""

MOST_CLIENTS = 8
"""Further clients at once are dropped."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `PORT` (loopback), `HOST:PORT` or `[IPv6]:PORT`; raises UsageError if it is neither."""
    found = re.fullmatch(r"(?:(?:\[([\da-fA-F:.]+)\]|([\w.-]+)):)?(\d{1,5})", text.strip())
    if found is None or int(found[3]) > 65535:
        raise UsageError(f"--metrics {text}: is not a port; give for example 9464, or 0.0.0.0:9464 for other machines")
    return found[1] or found[2] or "127.0.0.1", int(found[3])


# HTTPServer would look up the host's name, which may take long without a network.
class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = daemon_threads = True
    # The end of the process waits for no client.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.clients: dict[socket.socket, float] = {}
        """When they connected, in monotonic seconds."""
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the client is answered."""
        if len(self.clients) >= MOST_CLIENTS:
            return False
        self.clients[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        self.clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Drop clients that are too slow; called at least twice a second."""
        for client, since in list(self.clients.items()):
            if time.monotonic() - since >= PATIENCE_S:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Don't log clients that disconnect."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("metrics: a scrape failed")


class Exporter:
    """Answers GET /metrics with what `text` returns, in a thread, until it is closed.

    Args:
        address: host and port; port 0 picks a free one.
        text: returns the metrics; called by a thread per client.

    Raises:
        UsageError: the address can't be listened on.
    """

    def __init__(self, address: tuple[str, int], text: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            server_version, sys_version = "deepfake-edge", ""

            def do_GET(self) -> None:
                if self.path.split("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text().encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log no scrapes."""

        try:
            self._server = _Server(address, Handler)
        except OSError as error:
            raise UsageError(
                f"--metrics {address[0]}:{address[1]}: can't listen ({error.strerror or error}); choose another port"
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

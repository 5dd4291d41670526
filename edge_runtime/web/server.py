"""The HTTP server around the service: its address is taken first, and slow heads are cut off."""

import asyncio
import logging
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_runtime.errors import UsageError
from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.http.security import HEADERS

BACKLOG = 100
"""Connections that may wait to be accepted."""

CONNECTIONS = 400
"""Connections that may be open at once, idle ones too; one more is answered with 429."""

SPARE = 100
"""Connections beyond those that hear why; one more is cut. Even with those that are just being accepted, all of them
together stay well below the 1024 files that a process may usually open: asyncio fills the log where there are none."""

UNREAD_S = 30
"""A connection is given up whose other side takes nothing of what is sent for so long: it left without a word, or never
meant to read."""

GRACE_S = 3
"""Open answers have so long to end when the service ends."""


def bind(host: str, port: int) -> socket.socket:
    """Take an address.

    Raises:
        UsageError: it is taken, needs more rights, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # What is accepted there inherits it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: can't listen there ({reason}); choose another") from None


def impatient(header_s: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, which gives up on a client that has sent no whole head after `header_s`."""

    class ImpatientProtocol(H11Protocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > CONNECTIONS + SPARE:
                transport.abort()
                return
            if len(self.connections) > CONNECTIONS:
                self.app = _too_many
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_waiting()
            elif self._patience is None:
                self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            self._patience = asyncio.get_running_loop().call_later(header_s, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return ImpatientProtocol


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    problem = ProblemError("too-many-requests", f"{CONNECTIONS} connections are open; try again soon")
    problem.unread = True
    await problem.response({**HEADERS, "Cache-Control": "no-store"})(scope, receive, send)


class Server(uvicorn.Server):
    """Uvicorn, which lets the streams without end go first when it ends."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the live view's streams, then what is left."""
        if self.config.app.state.live is not None:  # type: ignore[union-attr]
            self.config.app.state.live.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def http_server(app: FastAPI, header_s: float) -> uvicorn.Server:
    """Return the server, not running yet."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http=impatient(header_s),
        ws="none",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    return Server(config)

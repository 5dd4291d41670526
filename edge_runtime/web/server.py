"""The HTTP server: uvicorn with a time limit on request heads and a limit on connections."""

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
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.security import HEADERS

BACKLOG = 100
"""Connections waiting to be accepted."""

MOST_CONNECTIONS = 400
"""Open connections, idle ones included. Further ones get 429."""

SPARE_CONNECTIONS = 100
"""Connections that still get that answer; further ones are dropped. All together stay well below the usual limit of
1024 open files, beyond which asyncio fills the log with errors."""

UNREAD_S = 30
"""A connection is dropped if its peer has acknowledged no sent data for this long."""

SHUTDOWN_S = 3
"""How long answers in progress may take at shutdown."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: the address is in use, needs more permissions, or is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Accepted connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: can't listen there ({reason}); choose another") from None


def timed_protocol(header_s: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, changed to close connections that send no complete head within `header_s`."""

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > MOST_CONNECTIONS + SPARE_CONNECTIONS:
                transport.abort()
                return
            if len(self.connections) > MOST_CONNECTIONS:
                self.app = refuse_connection
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._timer is None:
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _start_timer(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(header_s, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return TimedProtocol


async def refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 429 and close the connection."""
    detail = f"{MOST_CONNECTIONS} connections are open; try again soon"
    problem = ProblemError(ProblemKind.TOO_MANY_REQUESTS, detail)
    problem.unread = True
    await problem.response({**HEADERS, "Cache-Control": "no-store"})(scope, receive, send)


class Server(uvicorn.Server):
    """Uvicorn that ends the live page's endless answers first at shutdown."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the live page's streams, then shut down."""
        app = self.config.app
        assert isinstance(app, FastAPI)
        if app.state.feed is not None:
            app.state.feed.close()
        await super().shutdown(sockets)


def http_server(app: FastAPI, header_s: float) -> uvicorn.Server:
    """Return the server, not running yet."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http=timed_protocol(header_s),
        ws="none",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    return Server(config)

"""The HTTP server: uvicorn with time limits for slow clients and a limit on connections."""

import asyncio
import fcntl
import logging
import socket
import struct
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_runtime.errors import UsageError
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.request_limits import LINGER_S
from edge_runtime.web.http.security import HEADERS
from edge_runtime.web.settings import is_loopback

BACKLOG = 100
"""Connections waiting to be accepted."""

MOST_CONNECTIONS = 400
"""Open connections, idle ones included. Further ones get 429."""

SPARE_CONNECTIONS = 100
"""Connections that still get that answer; further ones are dropped. All together stay well below the usual limit of
1024 open files, beyond which asyncio fills the log with errors."""

UNREAD_S = 30
"""A connection is dropped if its peer acknowledges nothing for this long, or takes this long to read a full buffer
(about 50 KB) or the end of the last answer."""

SHUTDOWN_S = 10
"""How long answers in progress may take at shutdown."""


SIOCGIFADDR = 0x8915
"""Linux's ioctl for the IPv4 address of a network interface (netdevice(7))."""


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


def reachable_address(host: str) -> str:
    """Return an address that other machines can open if `host` means all addresses of this one, else `host`."""
    if host not in ("0.0.0.0", "::", ""):
        return host
    family, other = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing; the kernel picks the address from which it would send.
            probe.connect((other, 9))
            return str(probe.getsockname()[0])
        except OSError:
            pass
        # Without a default route, as on a board that is its own access point: the address of the first interface.
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                address = socket.inet_ntoa(answer[20:24])
                if not is_loopback(address):
                    return address
    return socket.gethostname()


class _TimedProtocol(H11Protocol):
    """Uvicorn's HTTP protocol with a deadline for whatever the client has to send next.

    A head must be complete within `header_s` of the connection or of the previous answer, a body within `body_s` of its
    head, and the rest of a body that nobody reads within LINGER_S of the answer. Answers must be read within UNREAD_S.
    Single bytes don't extend a deadline.
    """

    _phase: object = None
    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS + SPARE_CONNECTIONS:
            transport.abort()
            return
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = refuse_connection
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            super().send_400_response(msg)
        else:
            # The garbage follows an answer, so there is no request to answer.
            self.transport.close()

    def _set_deadline(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        closing = self.transport.is_closing()
        phase = (self.cycle, self.conn.their_state, answered, closing)
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
        limits, seconds = service(self.config).state.limits, None
        if closing:
            self._timer = self.loop.call_later(UNREAD_S, self.transport.abort)
            return
        if self.conn.their_state is h11.IDLE:
            seconds = limits.header_s
        elif self.conn.their_state is h11.SEND_BODY:
            # `RequestLimiter` answers a slow body before the connection is closed.
            seconds = LINGER_S if answered else limits.body_s + 2 * LINGER_S
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.transport.close()
        self._set_deadline()


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
        feed = service(self.config).state.feed
        if feed is not None:
            feed.close()
        await super().shutdown(sockets)


def service(config: uvicorn.Config) -> FastAPI:
    """Return the application that a server runs."""
    assert isinstance(config.app, FastAPI)
    return config.app


def http_server(app: FastAPI) -> uvicorn.Server:
    """Return the server, not running yet."""
    # Their warnings are about malformed requests, so anybody could fill the log.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=_TimedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    return Server(config)

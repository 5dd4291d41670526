"""Limits on incoming requests: how many at once, how large, how slow."""

from collections.abc import Callable

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.settings import MEGABYTE, ServiceLimits

LINGER_BYTES = 16 * MEGABYTE
LINGER_S = 2.0
"""How much more of a refused body is read and discarded: a sender that is cut off would never see the answer."""

LOGIN_PATH, MOST_LOGINS = "/login", 8
"""Signing in has slots of its own, since it is open to everybody: it can't take those of clients with the token."""


class RequestLimiter:
    """Middleware that holds request bodies to the limits. Methods whose bodies are never read pass through.

    While `is_full`, the detector's queue is full and no body is read.
    """

    def __init__(self, app: ASGIApp, limits: ServiceLimits, is_full: Callable[[], bool]) -> None:
        self._app, self._limits, self._is_full = app, limits, is_full
        self._open = {"logins": 0, "requests": 0}
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        limits, headers = self._limits, Headers(scope=scope)
        login = scope["path"] == LOGIN_PATH
        slots, most = ("logins", MOST_LOGINS) if login else ("requests", limits.requests)
        body_s = limits.header_s if login else limits.body_s
        deadline = anyio.current_time() + body_s
        received, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            message: Message | None = None
            with anyio.CancelScope(deadline=deadline):
                message = await receive()
            if message is None:
                detail = f"the limit is {body_s:g} s; send fewer or smaller pictures"
                raise ProblemError(ProblemKind.BODY_TOO_SLOW, detail)
            size = len(message.get("body", b""))
            received += size
            self._bytes += size
            complete = not message.get("more_body", False)
            if self._bytes > limits.bodies_bytes:
                raise ProblemError(ProblemKind.TOO_MANY_REQUESTS, "the memory for uploads is in use; try again soon")
            self._check_size(received)
            return message

        self._open[slots] += 1
        try:
            if self._open[slots] > most:
                detail = f"{most} {slots} are being served; try again soon"
                raise ProblemError(ProblemKind.TOO_MANY_REQUESTS, detail)
            if self._is_full() and not login:
                raise ProblemError(ProblemKind.QUEUE_FULL, "try again soon")
            declared = headers.get("content-length", "0")
            if not (declared.isascii() and declared.isdigit()):
                raise ProblemError(ProblemKind.BAD_REQUEST, "Content-Length is not a number")
            self._check_size(int(declared))
            await self._app(scope, receive_limited, send)
        except ProblemError as problem:
            # A sender that waits for "100 Continue" has sent nothing yet.
            left = 0 if "expect" in headers else LINGER_BYTES
            with anyio.move_on_after(LINGER_S):
                while not complete and left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    complete = not message.get("more_body", False)
            problem.unread = not complete
            raise
        finally:
            self._open[slots] -= 1
            self._bytes -= received

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            limit = f"{self._limits.body_bytes / MEGABYTE:g} MB"
            raise ProblemError(ProblemKind.BODY_TOO_LARGE, f"the limit is {limit}; send fewer or smaller pictures")

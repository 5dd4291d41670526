"""What may come in: how many requests at once, how many bytes, how fast, and forms that are held in memory only."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.settings import Limits

FIELDS = 8
FIELD_BYTES = 1_000

LINGER_BYTES = 16_000_000
LINGER_S = 2.0
"""How much more is read, and thrown away, of a body that was refused, so that its sender hears why."""


@dataclass(frozen=True)
class Upload:
    """A file of a form: the name that its sender gave it (never to be trusted), and its bytes."""

    name: str
    data: bytes


class Intake:
    """Holds requests to the limits; those without a body pass by.

    Args:
        app: what serves them.
        limits: what strangers can't exceed.
        full: tells whether the detector's queue is full, so that a body is not read in vain.
    """

    def __init__(self, app: ASGIApp, limits: Limits, full: Callable[[], bool] = lambda: False) -> None:
        self._app, self._limits, self._full = app, limits, full
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        body = _Body(self, self._limits, receive)
        self._requests += 1
        try:
            self._admit(Headers(scope=scope))
            await self._app(scope, body.receive, send)
        except ProblemError as problem:
            await body.linger(Headers(scope=scope))
            problem.unread = not body.ended
            raise
        finally:
            self._requests -= 1
            self._bytes -= body.received

    def _admit(self, headers: Headers) -> None:
        if self._requests > self._limits.requests:
            raise ProblemError("too-many-requests", f"{self._limits.requests} are served at once; try again soon")
        if self._full():
            raise ProblemError("queue-full", "try again soon")
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise ProblemError("bad-request", "Content-Length is no number")
        self.check_size(int(declared))

    def check_size(self, size: int) -> None:
        """Refuse a body of `size` bytes that is too large.

        Raises:
            ProblemError: it is.
        """
        if size > self._limits.body_bytes:
            raise ProblemError(
                "body-too-large", f"over {self._limits.body_bytes // 1_000_000} MB; send fewer or smaller"
            )

    def hold(self, size: int) -> None:
        """Account for `size` more bytes of a body.

        Raises:
            ProblemError: all bodies together are too large.
        """
        self._bytes += size
        if self._bytes > self._limits.bodies_bytes:
            raise ProblemError("too-many-requests", "those being served hold all the memory there is; try again soon")


class _Body:
    """Counts what arrives of one body, and the time that it takes."""

    def __init__(self, intake: Intake, limits: Limits, receive: Receive) -> None:
        self._intake, self._receive = intake, receive
        self._deadline = anyio.current_time() + limits.body_s
        self._limit_s = limits.body_s
        self.ended = False
        self.received = 0

    async def receive(self) -> Message:
        """Return the next message of the body, or ProblemError where it is too slow or too large."""
        if self.ended:
            return await self._receive()
        message: Message | None = None
        with anyio.CancelScope(deadline=self._deadline):
            message = await self._receive()
        if message is None:
            raise ProblemError("body-too-slow", f"{self._limit_s:g} s is the limit; send fewer or smaller pictures")
        size = len(message.get("body", b""))
        self.received += size
        self._intake.hold(size)
        self._intake.check_size(self.received)
        self.ended = not message.get("more_body", False)
        return message

    async def linger(self, headers: Headers) -> None:
        """Read on for a while and throw away, so that the answer is not lost with a connection that is cut."""
        left = 0 if "expect" in headers else LINGER_BYTES
        with anyio.move_on_after(LINGER_S):
            while not self.ended and left > 0:
                message = await self._receive()
                left -= len(message.get("body", b""))
                self.ended = not message.get("more_body", False)


class _MemoryParser(MultiPartParser):
    """Starlette's parser, whose files would go to disk from a size on; the intake's limits keep them small enough."""

    spool_max_size = 1 << 62


async def read_form(request: Request, files: int) -> tuple[dict[str, list[Upload]], dict[str, str]]:
    """Read a multipart form into memory: its files and its other fields, by name.

    Raises:
        ProblemError: it is no such form, is broken, or holds more than `files` files.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise ProblemError("not-a-form", "send the picture as multipart/form-data, in the field `image`")
    parser = _MemoryParser(
        request.headers, request.stream(), max_files=files, max_fields=FIELDS, max_part_size=FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise ProblemError("too-many-files", f"{files} is the limit; send them in several requests") from None
        raise ProblemError("bad-request", error.message) from None
    return await _sorted(form)


async def _sorted(form: FormData) -> tuple[dict[str, list[Upload]], dict[str, str]]:
    files: dict[str, list[Upload]] = {}
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(Upload(value.filename or "", value.file.read()))
            value.file.close()
        else:
            fields[name] = value
    return files, fields

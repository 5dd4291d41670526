"""Endless answers: the live page's frames and their status."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext, suppress

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edge_runtime.web.service.feed import CameraFeed

STATUS_S = 0.25
"""Pause between two status events without pictures."""

BOUNDARY = "frame"


async def mjpeg(feed: CameraFeed) -> AsyncIterator[bytes]:
    """Yield the frames as parts of `multipart/x-mixed-replace`, which browsers show in an <img>."""
    async for shown in feed.updates():
        if shown.jpeg:
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(shown.jpeg)}\r\n\r\n"
            yield head.encode() + shown.jpeg + b"\r\n"


async def status_events(feed: CameraFeed, *, pictures: bool) -> AsyncIterator[bytes]:
    """Yield the status as server-sent events (HTML, section 9.2).

    With `pictures`, every frame's status, together with its picture as a data URI; otherwise a few per second.
    """
    async for shown in feed.updates():
        status = shown.status
        if pictures:
            jpeg = base64.b64encode(shown.jpeg).decode()
            status = {**status, "picture": f"data:image/jpeg;base64,{jpeg}" if jpeg else None}
        yield f"data: {json.dumps(status)}\n\n".encode()
        if not pictures:
            await asyncio.sleep(STATUS_S)


class Stream(StreamingResponse):
    """An endless answer, which ends when the client disconnects; `while_open` is a context manager around it."""

    def __init__(
        self,
        content_type: str,
        parts: AsyncIterator[bytes],
        while_open: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        # Without this header nginx buffers the parts.
        super().__init__(parts, media_type=content_type, headers={"X-Accel-Buffering": "no"})
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client disconnects or nothing is left."""

        async def cancel_on_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        with self._while_open():
            async with anyio.create_task_group() as group:
                group.start_soon(cancel_on_disconnect)
                with suppress(OSError):
                    await self.stream_response(send)
                group.cancel_scope.cancel()

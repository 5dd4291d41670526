"""What goes wrong between a client and the service, as RFC 9457 problem details."""

import http
import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its HTTP status and its title, which is the same every time."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "The request can't be read"),
    "token-needed": Kind(401, "A token is needed"),
    "cross-site": Kind(403, "Requests from other sites are refused"),
    "not-found": Kind(404, "There is nothing here"),
    "method-not-allowed": Kind(405, "That can't be done here"),
    "body-too-slow": Kind(408, "The request took too long to arrive"),
    "body-too-large": Kind(413, "The request is too large"),
    "too-many-pixels": Kind(413, "The picture has too many pixels"),
    "too-many-files": Kind(413, "Too many pictures in one request"),
    "not-a-form": Kind(415, "The request is no multipart form"),
    "wrong-host": Kind(421, "The service does not go by this name"),
    "no-picture": Kind(422, "The form holds no picture"),
    "not-a-picture": Kind(422, "The picture can't be read"),
    "bad-value": Kind(422, "A value can't be used"),
    "too-many-requests": Kind(429, "Too many requests at once"),
    "internal": Kind(500, "The service failed"),
    "queue-full": Kind(503, "The detector has too much to do"),
    "too-slow": Kind(503, "The detector did not answer in time"),
    "detector-failed": Kind(503, "The detector failed"),
    "not-ready": Kind(503, "The detector is not ready"),
}
"""By name, which is the last part of the problem's `type`."""

RETRY_AFTER_S = {429: 1, 503: 2}


class ProblemError(Exception):
    """A problem that a client is told of.

    Args:
        name: one of KINDS.
        detail: what is wrong this time, for a person to read.

    Attributes:
        unread: the request was not read to its end, so its connection can't be used again.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name, self.detail = name, detail
        self.unread = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.name].status

    def to_dict(self) -> dict[str, object]:
        """Return the members of the problem."""
        kind = KINDS[self.name]
        return {"type": f"/problems/{self.name}", "title": kind.title, "status": kind.status, "detail": self.detail}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        headers = {"Retry-After": str(RETRY_AFTER_S[self.status])} if self.status in RETRY_AFTER_S else {}
        if self.unread:
            headers["Connection"] = "close"
        if self.status == http.HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="deepfake-edge"'
        return headers

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the response that tells of it, with `headers` too."""
        body = json.dumps(self.to_dict(), ensure_ascii=False)
        return Response(body, self.status, {**self.headers(), **(headers or {})}, MEDIA_TYPE)

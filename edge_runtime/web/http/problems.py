"""Error answers as RFC 9457 problem details."""

import http
import json
from collections.abc import Mapping
from enum import Enum

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = {429: 1, 503: 2}


class ProblemKind(Enum):
    """Kinds of problem: the last part of the problem's `type`, HTTP status, title."""

    status: int
    title: str

    BAD_REQUEST = ("bad-request", 400, "The request can't be read")
    TOKEN_NEEDED = ("token-needed", 401, "A token is needed")
    CROSS_SITE = ("cross-site", 403, "Requests from other sites are refused")
    NOT_FOUND = ("not-found", 404, "Not found")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "Method not allowed")
    BODY_TOO_SLOW = ("body-too-slow", 408, "The request took too long to arrive")
    BODY_TOO_LARGE = ("body-too-large", 413, "The request is too large")
    TOO_MANY_PIXELS = ("too-many-pixels", 413, "The picture has too many pixels")
    TOO_MANY_FILES = ("too-many-files", 413, "Too many pictures in one request")
    NOT_A_FORM = ("not-a-form", 415, "The request is not a multipart form")
    WRONG_HOST = ("wrong-host", 421, "Unknown host name")
    NO_PICTURE = ("no-picture", 422, "The form contains no picture")
    NOT_A_PICTURE = ("not-a-picture", 422, "The picture can't be read")
    UNSUPPORTED_FORMAT = ("unsupported-format", 422, "The picture's format is not supported")
    BAD_VALUE = ("bad-value", 422, "Invalid value")
    TOO_MANY_REQUESTS = ("too-many-requests", 429, "Too many requests")
    INTERNAL = ("internal", 500, "Internal error")
    QUEUE_FULL = ("queue-full", 503, "The detector is busy")
    TOO_SLOW = ("too-slow", 503, "The detector did not answer in time")
    DETECTOR_FAILED = ("detector-failed", 503, "The detector failed")
    NOT_READY = ("not-ready", 503, "The detector is not ready")
    NO_REVIEWS = ("no-reviews", 503, "Reviews can't be read or saved")

    def __new__(cls, slug: str, status: int, title: str) -> "ProblemKind":
        """Make the slug the member's value."""
        member = object.__new__(cls)
        member._value_ = slug
        member.status, member.title = status, title
        return member

    @property
    def type(self) -> str:
        """Path of the page that explains this kind of problem."""
        return f"/problems/{self.value}"


class ProblemError(Exception):
    """A problem to report to the client; `detail` says what is wrong this time.

    If `unread`, the request body was not read to its end, so the connection must be closed.
    """

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.unread = False

    def to_dict(self) -> dict[str, object]:
        """Return the members of the problem details."""
        kind = self.kind
        return {"type": kind.type, "title": kind.title, "status": kind.status, "detail": self.detail}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the error response, with `headers` added."""
        status = self.kind.status
        own = {"Retry-After": str(RETRY_AFTER_S[status])} if status in RETRY_AFTER_S else {}
        if self.unread:
            own["Connection"] = "close"
        if status == http.HTTPStatus.UNAUTHORIZED:
            own["WWW-Authenticate"] = 'Bearer realm="deepfake-edge"'
        body = json.dumps(self.to_dict(), ensure_ascii=False)
        return Response(body, status, {**own, **(headers or {})}, MEDIA_TYPE)

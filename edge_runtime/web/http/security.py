"""Who may come in, and what every answer carries: token, session cookie, names of this host, headers."""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.settings import Settings, is_loopback

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from another host, no inline script or style, no plug-in, no frame."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; `Cache-Control: no-store` too, where an answer does not say otherwise."""

OPEN_PATHS = ("/healthz", "/readyz", "/login", "/favicon.ico")
OPEN_FOLDER = "/static/"
"""What needs no token: whether the service lives, and the page that asks for the token."""

STREAMS = "/live/"
"""Answers without end, which have no head to ask for alone."""

COOKIE = "deepfake_edge_session"
SESSION_S = 12 * 3600


def same_secret(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing of where two texts differ, nor of their lengths."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


def new_session(token: str, now: float | None = None) -> str:
    """Return a cookie's value that proves for SESSION_S seconds that its holder knew the token."""
    until = str(int((time.time() if now is None else now) + SESSION_S))
    return f"{until}.{_signature(token, until)}"


def session_holds(value: str, token: str, now: float | None = None) -> bool:
    """Tell whether `value` was made by `new_session` with this token and is not over."""
    until, _, signature = value.partition(".")
    if not same_secret(signature, _signature(token, until)):
        return False
    return int(until) > (time.time() if now is None else now)


def _signature(token: str, until: str) -> str:
    return hmac.new(token.encode(), f"session until {until}".encode(), hashlib.sha256).hexdigest()


def may_enter(connection: HTTPConnection, token: str | None) -> bool:
    """Tell whether a request shows the token, as a bearer or by its session."""
    if token is None:
        return True
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return same_secret(given.strip(), token)
    return session_holds(connection.cookies.get(COOKIE, ""), token)


def knows_host(host: str, settings: Settings) -> bool:
    """Tell whether a request may call this host by the name `host`.

    Without a token a page elsewhere could otherwise reach the service by a name of its own that it lets point here
    (DNS rebinding).
    """
    if settings.token is not None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name in settings.hosts


class Gate:
    """The outermost layer: lets requests in or not, puts the headers on every answer, and turns failures into one."""

    def __init__(self, app: ASGIApp, settings: Settings, refused: Callable[[str], None] = lambda problem: None) -> None:
        self._app, self._settings, self._refused = app, settings, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and not scope["path"].startswith(STREAMS):
            # As many monitors ask; the server leaves out the body (RFC 9110, section 9.3.2).
            scope = {**scope, "method": "GET"}
        guarded = _Answer(send)
        try:
            self._check(HTTPConnection(scope))
        except ProblemError as problem:
            problem.unread = scope["method"] != "GET"
            self._refused(problem.name)
            await self._tell(problem, scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except ProblemError as problem:
            self._refused(problem.name)
            await self._tell(problem, scope, receive, guarded)
        except ClientDisconnect:
            log.debug("a client went away")
        except Exception:
            log.exception("the service failed")
            self._refused("internal")
            if guarded.begun:
                raise
            await ProblemError("internal", "the log of the service says more").response()(scope, receive, guarded)

    def _check(self, request: HTTPConnection) -> None:
        if not knows_host(request.headers.get("host", ""), self._settings):
            raise ProblemError("wrong-host", "start the service with --allowed-host and this name, if it is meant")
        if request.headers.get("sec-fetch-site") == "cross-site" and not _follows_link(request):
            raise ProblemError("cross-site", "ask from the service's own page, or from a program")
        path = request.url.path
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return
        if not may_enter(request, self._settings.token):
            raise ProblemError("token-needed", "send it as `Authorization: Bearer …`, or open the page and type it in")

    async def _tell(self, problem: ProblemError, scope: Scope, receive: Receive, send: "_Answer") -> None:
        if send.begun:
            raise problem
        if problem.name == "token-needed" and _wants_page(scope):
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"/login?{query}" if query else "/login", 303)(scope, receive, send)
        else:
            await problem.response()(scope, receive, send)


def _follows_link(request: HTTPConnection) -> bool:
    """Tell whether somebody comes by a link; a picture or script of another site would turn the camera on."""
    shown = (request.headers.get("sec-fetch-mode"), request.headers.get("sec-fetch-dest"))
    return request.scope["method"] == "GET" and shown == ("navigate", "document")


def _wants_page(scope: Scope) -> bool:
    return scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")


class _Answer:
    """Sends an answer with the headers that all carry."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store")
            for name, value in HEADERS.items():
                headers[name] = value
        await self._send(message)

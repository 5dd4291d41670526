"""Access control, and the security headers of every answer."""

import hashlib
import hmac
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.sessions import COOKIE, Sessions
from edge_runtime.web.settings import Settings, is_loopback

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from other hosts, no inline script or style, no plug-ins, no frames."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer. `Cache-Control: no-store` is added unless the answer has its own."""

OPEN_PATHS = ("/healthz", "/readyz", "/login", "/favicon.ico")
OPEN_FOLDERS = ("/static/", "/login/")
"""Paths that need no token: health checks, and what signing in needs."""

NO_HEAD = ("/live/", "/login/")
"""Paths without HEAD: endless answers, and links that work once."""


def same_secret(given: str, secret: str) -> bool:
    """Compare in constant time, hiding the lengths too."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


def knows_host(host: str, settings: Settings) -> bool:
    """Return whether a request with this Host header may be served.

    Without a token this protects against DNS rebinding: a page elsewhere whose own name resolves to this machine.
    """
    if settings.token is not None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name in settings.hosts


class AccessControl:
    """The outermost middleware: checks access, adds the security headers, and turns exceptions into error answers.

    `count` is called with the kind of each problem.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, sessions: Sessions, count: Callable[[ProblemKind], None]
    ) -> None:
        self._app, self._settings, self._sessions, self._count = app, settings, sessions, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and not scope["path"].startswith(NO_HEAD):
            # Many monitors use HEAD. The server leaves out the body (RFC 9110, section 9.3.2).
            scope = {**scope, "method": "GET"}
        started = False

        async def send_secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.update(HEADERS)
            await send(message)

        try:
            self._check(HTTPConnection(scope))
            await self._app(scope, receive, send_secured)
        except ProblemError as problem:
            self._count(problem.kind)
            if started:
                raise
            response = problem.response()
            wants_page = scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
            if problem.kind is ProblemKind.TOKEN_NEEDED and wants_page:
                query = scope["query_string"].decode("latin-1")
                response = RedirectResponse(f"/login?{query}" if query else "/login", 303)
            await response(scope, receive, send_secured)
        except ClientDisconnect:
            log.debug("the client disconnected")
        except Exception:
            log.exception("internal error")
            self._count(ProblemKind.INTERNAL)
            if started:
                raise
            failure = ProblemError(ProblemKind.INTERNAL, "the service's log has the details")
            await failure.response()(scope, receive, send_secured)

    def _check(self, request: HTTPConnection) -> None:
        """Raise a ProblemError unless the request may be served."""
        try:
            if not knows_host(request.headers.get("host", ""), self._settings):
                raise ProblemError(ProblemKind.WRONG_HOST, "to allow this name, start the service with --allowed-host")
            if request.headers.get("sec-fetch-site") == "cross-site":
                mode = (request.headers.get("sec-fetch-mode"), request.headers.get("sec-fetch-dest"))
                # Following a link is fine. An image or script tag of another site would turn the camera on.
                if request.scope["method"] != "GET" or mode != ("navigate", "document"):
                    raise ProblemError(ProblemKind.CROSS_SITE, "send the request from the service's own page")
            if "content-length" in request.headers and "transfer-encoding" in request.headers:
                # Proxies disagree on which one counts, which lets requests be smuggled (RFC 9112, section 6.1).
                raise ProblemError(ProblemKind.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other")
            path, token = request.url.path, self._settings.token
            if token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
                return
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer":
                allowed = same_secret(given.strip(), token)
            else:
                allowed = self._sessions.is_valid(request.cookies.get(COOKIE, ""))
            if not allowed:
                raise ProblemError(ProblemKind.TOKEN_NEEDED, "send `Authorization: Bearer …`, or sign in on the page")
        except ProblemError as problem:
            problem.unread = "content-length" in request.headers or "transfer-encoding" in request.headers
            raise

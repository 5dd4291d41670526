"""Signing in with the token, so that a browser can use the pages."""

import asyncio
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.http.security import COOKIE, SESSION_S, new_session, same_secret
from edge_runtime.web.pages import Pages
from edge_runtime.web.settings import Settings

LOGIN_BYTES = 4096
WRONG_TOKEN_WAIT_S = 0.5


def session_router(pages: Pages, settings: Settings) -> APIRouter:
    """Return the routes that begin and end a session."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    async def login(request: Request) -> Response:
        return pages.render(request, "login.html", wrong=False)

    @router.post("/login")
    async def signed_in(request: Request) -> Response:
        given = parse_qs((await _small_body(request)).decode("utf-8", "replace")).get("token", [""])[0].strip()
        home = f"/{pages.query(request)}"
        if settings.token is None:
            return RedirectResponse(home, 303)
        if not same_secret(given, settings.token):
            await asyncio.sleep(WRONG_TOKEN_WAIT_S)
            return pages.render(request, "login.html", 401, wrong=True)
        response = RedirectResponse(home, 303)
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, new_session(settings.token), SESSION_S, httponly=True, samesite="strict", secure=secure
        )
        return response

    @router.post("/logout")
    async def signed_out(request: Request) -> Response:
        response = RedirectResponse(f"/login{pages.query(request)}", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


async def _small_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LOGIN_BYTES:
            raise ProblemError("body-too-large", "a token is shorter")
    return body

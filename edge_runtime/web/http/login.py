"""Signing in and out, for browsers."""

import asyncio
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.security import same_secret
from edge_runtime.web.http.sessions import COOKIE, SESSION_S, Sessions
from edge_runtime.web.pages import Pages

LOGIN_BYTES = 4096
WRONG_TOKEN_DELAY_S = 0.5


def login_router(pages: Pages, token: str | None, sessions: Sessions) -> APIRouter:
    """Return the routes for signing in and out."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    async def form(request: Request) -> Response:
        return pages.render(request, "login.html", wrong=False)

    @router.post("/login")
    async def sign_in(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LOGIN_BYTES:
                raise ProblemError(ProblemKind.BODY_TOO_LARGE, f"the limit for the form is {LOGIN_BYTES} bytes")
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        response = RedirectResponse(f"/{pages.language_query(request)}", 303)
        if token is None:
            return response
        if not same_secret(given, token):
            await asyncio.sleep(WRONG_TOKEN_DELAY_S)
            return pages.render(request, "login.html", 401, wrong=True)
        response.set_cookie(
            COOKIE,
            sessions.start(),
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @router.post("/logout")
    async def sign_out(request: Request) -> Response:
        sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(f"/login{pages.language_query(request)}", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router

"""Signing in and out, for browsers."""

import asyncio
import math

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from edge_runtime.web.http.forms import read_fields
from edge_runtime.web.http.security import same_secret
from edge_runtime.web.http.sessions import COOKIE, SESSION_S, Sessions
from edge_runtime.web.http.throttle import Throttle, client_address
from edge_runtime.web.pages import Pages

LOGIN_BYTES = 4096
MOST_LOGINS, LOGIN_PERIOD_S = 10, 60.0
"""Attempts to sign in per client address and period; signing in resets them."""

WRONG_TOKEN_DELAY_S = 1.0
"""How long the answer to a wrong token is delayed."""


def login_router(pages: Pages, token: str | None, sessions: Sessions) -> APIRouter:
    """Return the routes for signing in and out."""
    router = APIRouter(include_in_schema=False)
    throttle = Throttle(MOST_LOGINS, LOGIN_PERIOD_S)

    def signed_in(request: Request) -> Response:
        throttle.forget(client_address(request))
        response = RedirectResponse(f"/{pages.language_query(request)}", 303)
        if token is not None:
            response.set_cookie(
                COOKIE,
                sessions.start(),
                max_age=SESSION_S,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
        return response

    @router.get("/login")
    async def form(request: Request) -> Response:
        return pages.render(request, "login.html", error="")

    @router.post("/login")
    async def sign_in(request: Request) -> Response:
        wait_s = throttle.wait_s(client_address(request))
        if wait_s > 0:
            response = pages.render(request, "login.html", 429, error="token_too_often")
            response.headers.update({"Retry-After": str(math.ceil(wait_s)), "Connection": "close"})
            return response
        given = (await read_fields(request, LOGIN_BYTES)).get("token", "").strip()
        if token is not None and not same_secret(given, token):
            await asyncio.sleep(WRONG_TOKEN_DELAY_S)
            return pages.render(request, "login.html", 401, error="token_wrong")
        return signed_in(request)

    @router.get("/login/{ticket}")
    async def sign_in_with_ticket(request: Request, ticket: str) -> Response:
        """Sign in with the link that `edge-serve` shows at its start."""
        if sessions.redeem_ticket(ticket):
            return signed_in(request)
        return pages.render(request, "login.html", 401, error="link_invalid")

    @router.post("/logout")
    async def sign_out(request: Request) -> Response:
        sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(f"/login{pages.language_query(request)}", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router

"""The page on which people review kept faces."""

import base64
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from edge_runtime.review.agreement import agreements
from edge_runtime.review.database import ReviewLabel
from edge_runtime.review.desk import ReviewDesk
from edge_runtime.web.http.forms import read_fields
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.pages import Pages

COOKIE = "deepfake_edge_reviewer"
COOKIE_S = 180 * 86400
FORM_BYTES = 1024
LONGEST_NAME = 60


def reviewer_of(request: Request) -> str:
    """Return the name that the reviewer gave, empty if there is none."""
    name = unquote(request.cookies.get(COOKIE, ""))
    return name if name.isprintable() and len(name) <= LONGEST_NAME else ""


def named(request: Request) -> str:
    """Return the reviewer's name; raises ProblemError if there is none."""
    name = reviewer_of(request)
    if not name:
        raise ProblemError(ProblemKind.BAD_VALUE, "open /review and give your name first")
    return name


def review_router(pages: Pages, desk: ReviewDesk | None) -> APIRouter:
    """Return the routes of the review page; `desk` is None if there is nothing to review."""
    router = APIRouter(include_in_schema=False)
    if desk is None:

        @router.get("/review")
        async def nothing(request: Request) -> Response:
            return pages.render(request, "review.html", 404, desk=None, reviewer="")

        return router

    def again(request: Request) -> Response:
        return RedirectResponse(f"/review{pages.language_query(request)}", 303)

    @router.get("/review")
    def page(request: Request) -> Response:
        reviewer = reviewer_of(request)
        reviews = desk.database.reviews()
        mine = {review.face_id: review for review in reviews if review.reviewer == reviewer}
        faces = desk.faces()
        left = [number for number in faces if number not in mine]
        # A face may expire between the list and the look.
        found = ((number, desk.open(number)) for number in left) if reviewer else ()
        number, opened = next((pair for pair in found if pair[1]), (None, None))
        return pages.render(
            request,
            "review.html",
            desk=desk,
            reviewer=reviewer,
            number=number,
            picture=base64.b64encode(opened[0]).decode() if opened else "",
            record=opened[1] if opened else {},
            done=len(faces) - len(left),
            all=len(faces),
            can_undo=bool(mine),
            agreements=agreements(reviews),
        )

    @router.post("/review")
    async def say(request: Request) -> Response:
        reviewer, fields = named(request), await read_fields(request, FORM_BYTES)
        try:
            number, label = int(fields.get("face", "")), ReviewLabel(fields.get("label", ""))
            known = await run_in_threadpool(desk.database.face, number)
        except (ValueError, OverflowError) as error:
            raise ProblemError(ProblemKind.BAD_VALUE, str(error)) from None
        if known is None:
            raise ProblemError(ProblemKind.BAD_VALUE, f"there is no face {number}; reload the page")
        await run_in_threadpool(desk.database.add_review, number, reviewer, label)
        return again(request)

    @router.post("/review/undo")
    async def undo(request: Request) -> Response:
        await run_in_threadpool(desk.database.undo, named(request))
        return again(request)

    @router.post("/review/name")
    async def name(request: Request) -> Response:
        given = " ".join((await read_fields(request, FORM_BYTES)).get("name", "").split())
        if not given.isprintable() or len(given) > LONGEST_NAME:
            raise ProblemError(ProblemKind.BAD_VALUE, f"a name has at most {LONGEST_NAME} characters")
        response = again(request)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, quote(given), max_age=COOKIE_S, httponly=True, samesite="strict", secure=secure)
        return response

    return router

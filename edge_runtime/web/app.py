"""The service as an ASGI application: middleware, API and pages around one detector."""

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from edge_runtime.command import DISTRIBUTION
from edge_runtime.detector import Detector
from edge_runtime.errors import DataError, EdgeError
from edge_runtime.inference.attempts import clean_end
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.review.desk import ReviewDesk
from edge_runtime.systemd import Notifier
from edge_runtime.web.api import api_router
from edge_runtime.web.http.login import login_router
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.request_limits import RequestLimiter
from edge_runtime.web.http.security import AccessControl
from edge_runtime.web.http.sessions import Sessions
from edge_runtime.web.pages import HERE, Pages, live_router, page_router
from edge_runtime.web.review import review_router
from edge_runtime.web.schemas import ProblemDetails
from edge_runtime.web.service.feed import CameraFeed
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import UploadJudge
from edge_runtime.web.settings import Settings

HEARTBEAT_S = 1.0
REFRESH_S = 10.0
"""Time between two looks into the review's folder."""

log = logging.getLogger(__name__)
DESCRIPTION = """For every face in a picture: real, fake (AI-generated) or uncertain, with a score.

If the service was started with a token, send it as `Authorization: Bearer …`. Errors are problem details (RFC 9457).
"""


def create_app(detector: Detector, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application."""
    monitor = None if settings.monitor is None else Monitor(detector.bundle, settings.monitor)
    metrics = Metrics(detector.bundle, monitor)
    judge = UploadJudge(detector, settings.limits, metrics)
    sessions = Sessions(settings.token)
    pages = Pages(judge, settings)
    feed: CameraFeed | None = None
    if settings.camera is not None:
        feed = CameraFeed(judge, settings.camera, metrics, most_viewers=settings.limits.viewers)
    desk = None if settings.review is None else ReviewDesk(settings.review)

    def switch(detector: Detector) -> None:
        """Judge with another detector, from the next picture and the next frame on; safe to call from a thread.

        Raises:
            BundleError: it can't be used; nothing changes.
        """
        with nullcontext() if feed is None else feed.switching(detector):
            judge.switch(detector)
        metrics.switch(detector.bundle)
        if monitor is not None:
            monitor.switch(detector.bundle)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_notify_systemd(judge))]
        if desk is not None:
            tasks.append(asyncio.create_task(_refresh(desk)))
        yield
        for task in tasks:
            task.cancel()
        if feed is not None:
            feed.close()
        judge.close()
        if monitor is not None:
            monitor.close()
        clean_end.close()

    app = FastAPI(
        title="deepfake-edge",
        version=importlib.metadata.version(DISTRIBUTION),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.limits, app.state.feed, app.state.sessions = settings.limits, feed, sessions
    app.state.judge, app.state.switch = judge, switch
    app.include_router(api_router(judge, settings, metrics))
    app.include_router(page_router(pages, settings))
    app.include_router(live_router(pages, feed))
    app.include_router(review_router(pages, desk))
    app.include_router(login_router(pages, settings.token, sessions))
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_exception_handler(DataError, _review_problem)
    app.add_middleware(RequestLimiter, limits=settings.limits, is_full=lambda: judge.queue.full)
    app.add_middleware(AccessControl, settings=settings, sessions=sessions, count=metrics.count_problem)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Add the problem details and the token, which FastAPI can't know, to the schema."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        components = schema.setdefault("components", {})
        problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {})["ProblemDetails"] = problem
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}, {}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _notify_systemd(judge: UploadJudge) -> None:
    """Tell systemd that the service is ready, and ping its watchdog as long as the detector does not hang."""
    notifier = Notifier()
    choice = judge.detector.engine.choice
    notifier.ready(f"{choice.precision.value} on {choice.device}")
    try:
        while True:
            if judge.queue.alive:
                notifier.alive()
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        notifier.stopping()


async def _refresh(desk: ReviewDesk) -> None:
    """Take in what is copied to the review's folder, and delete what has expired."""
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            await run_in_threadpool(desk.refresh)
        except (EdgeError, OSError) as error:
            log.warning(f"--review: {error}")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds = {404: ProblemKind.NOT_FOUND, 405: ProblemKind.METHOD_NOT_ALLOWED}
    kind = kinds.get(error.status_code, ProblemKind.BAD_REQUEST)
    return ProblemError(kind, f"{request.method} {request.url.path}").response(error.headers)


async def _review_problem(request: Request, error: Exception) -> Response:
    """Answer when the database of reviews is damaged or locked, or its disk is full."""
    log.error(str(error))
    return ProblemError(ProblemKind.NO_REVIEWS, "the service's log has the details").response()


async def _validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return ProblemError(ProblemKind.BAD_VALUE, details).response()

"""The service put together: the gate, the intake, the API and the pages around one detector."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from edge_runtime.command import DISTRIBUTION
from edge_runtime.detector import Detector
from edge_runtime.systemd import Notifier
from edge_runtime.web.api import api_router
from edge_runtime.web.http.intake import Intake
from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.http.security import Gate
from edge_runtime.web.http.sessions import session_router
from edge_runtime.web.pages import Pages, live_router, page_router, static_files
from edge_runtime.web.schemas import ProblemDetails
from edge_runtime.web.service.live import LiveView, open_live
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import Judge
from edge_runtime.web.settings import Settings

BEAT_S = 1.0
DESCRIPTION = """Says of every face in a picture whether it is real, AI-generated or uncertain, and how sure it is.

Where the service was started with a token, send it as `Authorization: Bearer …`. Errors are problem details (RFC 9457).
"""


def create_app(detector: Detector, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application; it closes the detector's queue when it ends."""
    metrics = Metrics()
    judge = Judge(detector, settings.limits, metrics)
    pages = Pages(judge, settings)
    live = LiveView(judge, open_live(settings.camera), metrics, settings.limits.viewers) if settings.camera else None
    contract = detector.engine.contract
    metrics.model.info({"architecture": contract.architecture, "version": contract.version})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        beating = asyncio.create_task(_beat(judge))
        yield
        beating.cancel()
        if live is not None:
            live.close()
        judge.close()

    app = FastAPI(
        title="deepfake-edge",
        version=importlib.metadata.version(DISTRIBUTION),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.judge, app.state.live = judge, live
    app.include_router(api_router(judge, settings, metrics))
    app.include_router(page_router(pages, settings))
    app.include_router(live_router(pages, live))
    app.include_router(session_router(pages, settings))
    app.mount("/static", static_files())
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _value_problem)
    app.add_middleware(Intake, limits=settings.limits, full=lambda: judge.queue.full)
    app.add_middleware(Gate, settings=settings, refused=lambda name: metrics.problems.labels(name).inc())
    _describe(app)
    return app


async def _beat(judge: Judge) -> None:
    """Tell systemd that the service is ready, and its watchdog that the detector does not hang."""
    notifier = Notifier()
    notifier.ready(f"{judge.detector.engine.choice.precision.value} on {judge.detector.engine.choice.device}")
    try:
        while True:
            if judge.queue.alive:
                notifier.alive()
            await asyncio.sleep(BEAT_S)
    finally:
        notifier.stopping()


def _describe(app: FastAPI) -> None:
    """Add to OpenAPI what FastAPI can't know: the problems, and the token."""
    original = app.openapi

    def described() -> dict[str, Any]:
        schema = original()
        components = schema.setdefault("components", {})
        problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {})["ProblemDetails"] = problem
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}, {}]
        return schema

    app.openapi = described  # type: ignore[method-assign]


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    names = {404: "not-found", 405: "method-not-allowed"}
    detail = f"{request.method} {request.url.path}"
    return ProblemError(names.get(error.status_code, "bad-request"), detail).response(error.headers)


async def _value_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return ProblemError("bad-value", details).response()

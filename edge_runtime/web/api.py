"""The programs' side: judge pictures, and say how the service is."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from edge_runtime.web.http.intake import Upload, read_form
from edge_runtime.web.http.problems import KINDS, MEDIA_TYPE, ProblemError
from edge_runtime.web.schemas import Batch, BatchItem, Health, ModelCard, Prediction, ProblemDetails
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import Judge
from edge_runtime.web.settings import Settings

AT_ONCE = 4
"""Pictures of one batch that are worked on at the same time, so that a batch leaves room for others."""

HeatQuery = Annotated[bool, Query(description="Say for each face where the model looked too.")]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of these statuses for OpenAPI."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        kinds = {name: kind for name, kind in KINDS.items() if kind.status == status}
        examples = {
            name: {"value": {"type": f"/problems/{name}", "title": kind.title, "status": status, "detail": "…"}}
            for name, kind in kinds.items()
        }
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": examples}}
        described[status] = {"description": "; ".join(kind.title for kind in kinds.values()), "content": content}
    return described


def _form(field: str, many: bool) -> dict[str, Any]:
    """Describe a multipart form with pictures in `field` for OpenAPI."""
    binary: dict[str, Any] = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF, BMP or TIFF"}
    value = {"type": "array", "items": binary, "minItems": 1} if many else binary
    schema = {"type": "object", "required": [field], "properties": {field: value}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


EVERYWHERE = (401, 403, 421, 500)
SENDING = (400, 408, 413, 415, 422, 429, 503)


def _json(value: BaseModel) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")


def api_router(judge: Judge, settings: Settings, metrics: Metrics) -> APIRouter:
    """Return the routes for programs."""
    router = APIRouter(responses=_problems(*EVERYWHERE))

    @router.post(
        "/predict",
        response_model=Prediction,
        summary="Judge one picture",
        responses=_problems(*SENDING),
        openapi_extra=_form("image", many=False),
    )
    async def predict(request: Request, heat: HeatQuery = False) -> Response:
        """Say of each face in the form's field `image` whether it is real, fake or uncertain.

        With several faces the highest score decides `prediction`; without a face, or where that one is uncertain, it is
        null and `reason` says why.
        """
        uploads, _ = await read_form(request, files=1)
        judgement = await judge.judge(the_pictures(uploads, "image")[0].data, heat=heat)
        return _json(judgement.prediction)

    @router.post(
        "/predict/batch",
        response_model=Batch,
        summary="Judge many pictures",
        responses=_problems(*SENDING),
        openapi_extra=_form("images", many=True),
    )
    async def predict_batch(request: Request, heat: HeatQuery = False) -> Response:
        """Judge every picture in the form's field `images`; one that can't be judged does not spoil the others."""
        uploads, _ = await read_form(request, files=settings.limits.files)
        turn = asyncio.Semaphore(AT_ONCE)

        async def item(upload: Upload) -> BatchItem:
            async with turn:
                return await _item(judge, upload, heat)

        return _json(Batch(results=await asyncio.gather(*map(item, the_pictures(uploads, "images")))))

    @router.get("/healthz", response_model=Health, summary="Does the service live?")
    async def healthz() -> Response:
        """Answer as long as the service answers at all; needs no token."""
        return _json(Health(status="ok"))

    @router.get("/readyz", response_model=Health, summary="Can it judge?", responses=_problems(503))
    async def readyz() -> Response:
        """Let the detector judge a grey square; needs no token."""
        if not judge.queue.alive:
            raise ProblemError("not-ready", "the detector hangs, or its thread has ended")
        await judge.check()
        return _json(Health(status="ok"))

    @router.get("/model", response_model=ModelCard, summary="What judges?")
    async def model() -> Response:
        """Return the model's contract, the SHA-256 of its files and what was measured."""
        return _json(model_card(judge))

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def figures() -> Response:
        """Return what the service counts, in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def the_pictures(uploads: dict[str, list[Upload]], field: str) -> list[Upload]:
    """Return the files of a form's `field`.

    Raises:
        ProblemError: there is none.
    """
    if not uploads.get(field):
        raise ProblemError("no-picture", f"the form has no file in its field `{field}`")
    return uploads[field]


async def _item(judge: Judge, upload: Upload, heat: bool) -> BatchItem:
    try:
        judgement = await judge.judge(upload.data, heat=heat)
    except ProblemError as problem:
        judge.count_problem(problem)
        return BatchItem(name=upload.name, result=None, problem=ProblemDetails.model_validate(problem.to_dict()))
    return BatchItem(name=upload.name, result=judgement.prediction, problem=None)


def model_card(judge: Judge) -> ModelCard:
    """Return what judges."""
    engine = judge.detector.engine
    manifest = engine.bundle.manifest
    return ModelCard(
        name=manifest.name,
        created=manifest.created,
        contract=manifest.contract.to_dict(),
        files=dict(manifest.files),
        tools=dict(manifest.tools),
        parity=dict(manifest.parity),
        precisions=[precision.value for precision in engine.bundle.precisions],
        device=engine.choice.device,
        precision=engine.choice.precision.value,
        faces=judge.detector.faces is not None,
    )

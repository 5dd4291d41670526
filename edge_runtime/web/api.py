"""The HTTP API: judging pictures, health, the model, metrics."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from edge_runtime.monitoring.exposition import CONTENT_TYPE
from edge_runtime.web.http.forms import Upload, read_pictures
from edge_runtime.web.http.problems import MEDIA_TYPE, ProblemError, ProblemKind
from edge_runtime.web.schemas import Batch, BatchItem, Health, ModelAnswer, Prediction, ProblemDetails
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import UploadJudge, readable_formats
from edge_runtime.web.settings import Settings

AT_ONCE = 4
"""Pictures of one batch processed at the same time; leaves room for other clients."""

HeatQuery = Annotated[bool, Query(description="Also return where the model looked at each face.")]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems with these HTTP statuses for OpenAPI."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        kinds = [kind for kind in ProblemKind if kind.status == status]
        examples = {kind.value: {"value": ProblemError(kind, "…").to_dict()} for kind in kinds}
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": examples}}
        described[status] = {"description": "; ".join(kind.title for kind in kinds), "content": content}
    return described


def _form(field: str, *, many: bool) -> dict[str, Any]:
    """Describe a multipart form with pictures in `field` for OpenAPI."""
    binary: dict[str, Any] = {
        "type": "string",
        "format": "binary",
        "description": ", ".join(readable_formats().values()),
    }
    value = {"type": "array", "items": binary, "minItems": 1} if many else binary
    schema = {"type": "object", "required": [field], "properties": {field: value}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


EVERYWHERE = _problems(401, 403, 421, 500)
SENDING = _problems(400, 408, 413, 415, 422, 429, 503)


def _json(value: BaseModel) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")


def api_router(judge: UploadJudge, settings: Settings, metrics: Metrics) -> APIRouter:
    """Return the routes of the API."""
    router = APIRouter(responses=EVERYWHERE)
    single, several = _form("image", many=False), _form("images", many=True)

    @router.post(
        "/predict", response_model=Prediction, summary="Judge one picture", responses=SENDING, openapi_extra=single
    )
    async def predict(request: Request, heat: HeatQuery = False) -> Response:
        """Judge each face of the picture in the form field `image` as real, fake or uncertain.

        `prediction` is that of the face with the highest score. It is null, and `reason` says why, if that face is
        uncertain or there is no face.
        """
        (upload,) = await read_pictures(request, "image", most=1)
        return _json((await judge.judge(upload.data, heat=heat)).prediction)

    @router.post(
        "/predict/batch", response_model=Batch, summary="Judge pictures", responses=SENDING, openapi_extra=several
    )
    async def predict_batch(request: Request, heat: HeatQuery = False) -> Response:
        """Judge every picture in the form field `images`; one that can't be judged does not affect the others."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def item(upload: Upload) -> BatchItem:
            try:
                async with slots:
                    judged = await judge.judge(upload.data, heat=heat)
            except ProblemError as problem:
                metrics.count_problem(problem.kind)
                details = ProblemDetails.model_validate(problem.to_dict())
                return BatchItem(name=upload.name, result=None, problem=details)
            return BatchItem(name=upload.name, result=judged.prediction, problem=None)

        uploads = await read_pictures(request, "images", most=settings.limits.files)
        return _json(Batch(results=await asyncio.gather(*map(item, uploads))))

    @router.get("/healthz", response_model=Health, summary="Is the service running?")
    async def healthz() -> Response:
        """Answer as long as the service runs; needs no token."""
        return _json(Health(status="ok"))

    @router.get("/readyz", response_model=Health, summary="Can it judge?", responses=_problems(503))
    async def readyz() -> Response:
        """Run the detector on a grey square; needs no token."""
        await judge.check()
        return _json(Health(status="ok"))

    @router.get("/model", response_model=ModelAnswer, summary="Which model is it?")
    async def model() -> Response:
        """Return the model's contract, the SHA-256 of its files and its metrics."""
        return _json(describe_model(judge))

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        """Return the service's metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return router


def describe_model(judge: UploadJudge) -> ModelAnswer:
    """Return the answer of `/model`."""
    engine = judge.detector.engine
    manifest = engine.bundle.manifest
    return ModelAnswer(
        name=manifest.name,
        shipped=engine.bundle.shipped,
        trained_on={key: list(names) for key, names in manifest.trained_on.items()},
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

"""The people's side: pages rendered here, with a little script that makes them pleasant but is not needed."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from edge_runtime.web.api import the_pictures
from edge_runtime.web.http.intake import Upload, read_form
from edge_runtime.web.http.problems import KINDS, ProblemError
from edge_runtime.web.schemas import Face, Prediction
from edge_runtime.web.service.heat import HeatMap
from edge_runtime.web.service.live import BOUNDARY, LiveView, Stream, events, mjpeg
from edge_runtime.web.service.uploads import Judge, Judgement
from edge_runtime.web.settings import Settings
from edge_runtime.web.texts import TEXTS, choose_language, percent, problem_text, reason_text, threshold_percent

HERE = Path(__file__).parent
SCRIPTED = (
    *("progress", "waiting", "failed", "real", "fake", "uncertain", "face", "unknown"),
    *("state_opening", "state_ok", "state_lost", "state_ended"),
)
"""The words that scripts need, beside those of the problems."""

PREVIEW = 1024
"""Pixels of a preview's longer side."""

SHOWN_BY_BROWSERS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")


@dataclass(frozen=True)
class FaceView:
    """A face as the page shows it."""

    number: int
    face: Face
    heat: str | None
    heat_region: tuple[float, float, float, float]


@dataclass(frozen=True)
class CardView:
    """A picture as the page shows it: judged, or with the name of the problem that it had."""

    name: str
    prediction: Prediction | None = None
    faces: tuple[FaceView, ...] = ()
    preview: str = ""
    problem: str = ""

    @property
    def data(self) -> str:
        """What is said of the picture, as JSON."""
        result = self.prediction.model_dump(mode="json") if self.prediction else None
        return json.dumps({"name": self.name, "result": result, "problem": self.problem or None}, ensure_ascii=False)

    @property
    def outcome(self) -> str:
        """The word for what is said: a verdict, `no_face` or `failed`."""
        if self.prediction is None:
            return "failed"
        return self.prediction.verdict.value if self.prediction.verdict else "no_face"


class Pages:
    """Renders the pages of one service."""

    def __init__(self, judge: Judge, settings: Settings) -> None:
        self._judge, self._settings = judge, settings
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            percent=percent, threshold_percent=threshold_percent, reason_text=reason_text, problem_text=problem_text
        )

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page in the language that the browser asks for."""
        language = _language(request)
        html = self._templates.get_template(template).render(
            **self._common(language), lang=language, query=self.query(request), **values
        )
        return HTMLResponse(html, status, {"Content-Language": language, "Vary": "Accept-Language"})

    def query(self, request: Request) -> str:
        """Return what carries the language on to the next page, where one was asked for by a link."""
        return f"?lang={_language(request)}" if request.query_params.get("lang") else ""

    def _common(self, language: str) -> dict[str, Any]:
        engine = self._judge.detector.engine
        return {
            "t": TEXTS[language],
            "contract": engine.contract,
            "calibration": engine.calibration,
            "device": engine.choice.device,
            "precision": engine.choice.precision.value.upper(),
            "heat": self._judge.heat,
            "finds_faces": self._judge.detector.faces is not None,
            "signed": self._settings.token is not None,
            "camera": self._settings.camera is not None,
            "limits": self._settings.limits,
            "page_texts": page_texts(TEXTS[language], self._settings.limits.files),
        }

    async def card(self, upload: Upload, *, preview: bool) -> CardView:
        """Judge a picture and return how the page shows it.

        Args:
            upload: the picture.
            preview: bring the picture along, for a browser that can't show its own.

        Raises:
            ProblemError: it could not be judged.
        """
        judgement = await self._judge.judge(upload.data, heat=True)
        shown = ""
        if preview or not upload.data.startswith(SHOWN_BY_BROWSERS):
            shown = jpeg_uri(await self._judge.preview(upload.data, PREVIEW))
        return CardView(upload.name or "–", judgement.prediction, _face_views(judgement), shown)

    async def card_or_problem(self, upload: Upload) -> CardView:
        """Judge one picture of many and return how the page shows it, or the problem that it had."""
        try:
            return await self.card(upload, preview=True)
        except ProblemError as problem:
            self._judge.count_problem(problem)
            return CardView(upload.name or "–", problem=problem.name)


def _language(request: Request) -> str:
    return choose_language(request.headers.get("accept-language", ""), request.query_params.get("lang"))


def page_texts(texts: Mapping[str, str], files: int) -> dict[str, str]:
    """Return the words that the script needs."""
    names = [key for key in texts if key.startswith("problem_")]
    return {key: texts[key].replace("{files}", str(files)) for key in (*names, *SCRIPTED)}


def _face_views(judgement: Judgement) -> tuple[FaceView, ...]:
    pairs = zip(judgement.prediction.faces, judgement.heat, strict=True)
    return tuple(_face_view(number, face, heat) for number, (face, heat) in enumerate(pairs, 1))


def _face_view(number: int, face: Face, heat: HeatMap | None) -> FaceView:
    if heat is None:
        return FaceView(number, face, None, (0.0, 0.0, 0.0, 0.0))
    return FaceView(number, face, heat.to_data_uri(), heat.region)


def jpeg_uri(picture: Image.Image) -> str:
    """Return a picture as a `data:` address of a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def live_router(pages: Pages, live: LiveView | None) -> APIRouter:
    """Return the routes of the live page."""
    router = APIRouter(include_in_schema=False)

    def there() -> LiveView:
        if live is None:
            raise ProblemError("not-found", "the service was started without --camera")
        return live

    @router.get("/live")
    async def page(request: Request) -> Response:
        return pages.render(request, "live.html", 200 if live else 404)

    @router.get("/live/stream")
    async def stream() -> Response:
        """Send the camera's frames, with what is said of them, for as long as somebody looks."""
        watched = there()
        return Stream(f"multipart/x-mixed-replace; boundary={BOUNDARY}", mjpeg(watched), watched.viewer)

    @router.get("/live/events")
    async def figures() -> Response:
        """Send the live page's figures."""
        return Stream("text/event-stream", events(there()))

    return router


def page_router(pages: Pages, settings: Settings) -> APIRouter:
    """Return the routes for people."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        return pages.render(request, "index.html", cards=())

    @router.post("/")
    async def judged(request: Request) -> Response:
        """Judge pictures for a browser without script."""
        uploads, _ = await read_form(request, files=settings.limits.files)
        given = [upload for upload in the_pictures(uploads, "images") if upload.data]
        cards = [await pages.card_or_problem(upload) for upload in given]
        return pages.render(request, "index.html", cards=cards)

    @router.post("/card")
    async def card(request: Request) -> Response:
        """Judge one picture for the page's script, which lays the answer into the page."""
        uploads, _ = await read_form(request, files=1)
        view = await pages.card(the_pictures(uploads, "image")[0], preview=False)
        return pages.render(request, "card.html", card=view)

    @router.get("/problems/{name}")
    async def problem(request: Request, name: str) -> Response:
        """Explain a kind of problem, at the address that its details name."""
        if name not in KINDS:
            raise ProblemError("not-found", f"no problem is called {name}")
        kind = KINDS[name]
        if "text/html" in request.headers.get("accept", ""):
            return pages.render(request, "problem.html", kind=kind, name=name)
        return JSONResponse({"type": f"/problems/{name}", "title": kind.title, "status": kind.status})

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return RedirectResponse("/static/icon.svg", 308)

    return router


def static_files() -> StaticFiles:
    """Return the page's script, style and icon."""
    return StaticFiles(directory=HERE / "static")

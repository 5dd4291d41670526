"""The web pages, rendered on the server. The script makes them more pleasant and is not required."""

import base64
import io
import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from edge_runtime.judging.results import Reason
from edge_runtime.web.http.forms import Upload, read_pictures
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.http.streams import BOUNDARY, Stream, mjpeg, status_events
from edge_runtime.web.schemas import FaceAnswer, Prediction
from edge_runtime.web.service.feed import CameraFeed
from edge_runtime.web.service.heat import HeatMap
from edge_runtime.web.service.uploads import UploadJudge, readable_formats
from edge_runtime.web.settings import Settings
from edge_runtime.web.texts import TEXTS, choose_language, problem_texts, score_text, threshold_text

HERE = Path(__file__).parent
SCRIPT_TEXTS = (
    *("progress", "waiting", "failed", "real", "fake", "uncertain", "face", "unknown", "means_real", "means_fake"),
    *("state_opening", "state_ok", "state_lost", "state_ended", "see_log"),
    *("drift_unknown", "drift_ok", "drift_watch", "drift_drift"),
)
"""The texts that the scripts use, besides those of the problems."""

MEDIA_TYPES = {"HEIF": "image/heic,image/heif"}
"""Media types of formats whose type is not simply their name."""

PREVIEW_PIXELS = 1024

SHOWN_BY_BROWSERS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
"""First bytes of the formats that every browser can show."""


@dataclass(frozen=True)
class FaceView:
    """A face on the page: its result, why the verdict is uncertain, and where the model looked."""

    face: FaceAnswer
    reason: Reason | None
    heat: HeatMap | None


@dataclass(frozen=True)
class CardView:
    """A picture on the page: its result and preview, or the kind of problem it had."""

    name: str
    prediction: Prediction | None = None
    faces: tuple[FaceView, ...] = ()
    preview: str = ""
    problem: str = ""

    @property
    def data(self) -> str:
        """The result as JSON, which the script saves."""
        result = self.prediction.model_dump(mode="json") if self.prediction else None
        return json.dumps({"name": self.name, "result": result, "problem": self.problem or None}, ensure_ascii=False)

    @property
    def outcome(self) -> str:
        """Key of the card's heading: a verdict, `no_face` or `failed`."""
        if self.prediction is None:
            return "failed"
        return self.prediction.verdict.value if self.prediction.verdict else "no_face"


class Pages:
    """Renders the pages of one service."""

    def __init__(self, judge: UploadJudge, settings: Settings) -> None:
        self._judge, self._settings, self._formats = judge, settings, readable_formats()
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        accepted = ",".join(MEDIA_TYPES.get(name, f"image/{name.lower()}") for name in self._formats)
        self._templates.globals.update(score_text=score_text, threshold_text=threshold_text, accepted=accepted)

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page in the language of the request."""
        language = choose_language(request.headers.get("accept-language", ""), request.query_params.get("lang"))
        texts, limits = TEXTS[language], self._settings.limits
        problems = problem_texts(texts, files=limits.files, formats=self._formats.values())
        detector = self._judge.detector
        choice = detector.engine.choice
        html = self._templates.get_template(template).render(
            lang=language,
            query=self.language_query(request),
            t=texts,
            problems=problems,
            script_texts={**{key: texts[key] for key in SCRIPT_TEXTS}, "problems": problems},
            contract=detector.engine.contract,
            bundle=detector.bundle,
            calibration=detector.engine.calibration,
            device=choice.device,
            precision=choice.precision.value.upper(),
            heat=self._judge.heat,
            finds_faces=detector.faces is not None,
            needs_token=self._settings.token is not None,
            camera=self._settings.camera is not None,
            monitored=self._settings.monitor is not None,
            review=self._settings.review is not None,
            limits=limits,
            **values,
        )
        return HTMLResponse(html, status, {"Content-Language": language, "Vary": "Accept-Language"})

    def language_query(self, request: Request) -> str:
        """Return the query that keeps a language chosen by link on the next page; empty if none was chosen."""
        requested = request.query_params.get("lang")
        if not requested:
            return ""
        return f"?lang={choose_language(request.headers.get('accept-language', ''), requested)}"

    async def card(self, upload: Upload, *, preview: bool) -> CardView:
        """Judge a picture and return its card, with a preview if asked for or if browsers can't show the format.

        Raises:
            ProblemError: it could not be judged.
        """
        judged = await self._judge.judge(upload.data, heat=True)
        shown = ""
        if preview or not upload.data.startswith(SHOWN_BY_BROWSERS):
            file = io.BytesIO()
            picture = await self._judge.preview(upload.data, PREVIEW_PIXELS)
            picture.save(file, "JPEG", quality=85)
            shown = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        views = map(FaceView, judged.prediction.faces, judged.reasons, judged.heat)
        return CardView(upload.name or "–", judged.prediction, tuple(views), shown)

    async def card_or_problem(self, upload: Upload) -> CardView:
        """Judge one picture of several and return its card, which names the problem if it had one."""
        try:
            return await self.card(upload, preview=True)
        except ProblemError as problem:
            self._judge.metrics.count_problem(problem.kind)
            return CardView(upload.name or "–", problem=problem.kind.value)


def page_router(pages: Pages, settings: Settings) -> APIRouter:
    """Return the routes of the page that judges pictures."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        return pages.render(request, "index.html", cards=())

    @router.post("/")
    async def judge_without_script(request: Request) -> Response:
        uploads = await read_pictures(request, "images", most=settings.limits.files)
        # A form without a chosen file sends an empty one.
        cards = [await pages.card_or_problem(upload) for upload in uploads if upload.data]
        return pages.render(request, "index.html", cards=cards)

    @router.post("/card")
    async def card(request: Request) -> Response:
        """Judge one picture for the script, which inserts the answer into the page."""
        (upload,) = await read_pictures(request, "image", most=1)
        return pages.render(request, "card.html", card=await pages.card(upload, preview=False))

    @router.get("/problems/{slug}")
    async def problem(request: Request, slug: str) -> Response:
        """Explain a kind of problem: the page that the `type` of problem details points to."""
        kind = next((kind for kind in ProblemKind if kind.value == slug), None)
        if kind is None:
            raise ProblemError(ProblemKind.NOT_FOUND, f"there is no problem called {slug}")
        if "text/html" in request.headers.get("accept", ""):
            return pages.render(request, "problem.html", kind=kind)
        return JSONResponse({"type": kind.type, "title": kind.title, "status": kind.status})

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return RedirectResponse("/static/icon.svg", 308)

    return router


def live_router(pages: Pages, feed: CameraFeed | None) -> APIRouter:
    """Return the routes of the live page; `feed` is None if there is no camera."""
    router = APIRouter(include_in_schema=False)

    @router.get("/live")
    async def page(request: Request) -> Response:
        return pages.render(request, "live.html", 404 if feed is None else 200)

    if feed is None:
        return router

    @router.get("/live/stream")
    async def stream() -> Response:
        """Send the camera's frames with the verdicts drawn on them until the client disconnects."""
        return Stream(f"multipart/x-mixed-replace; boundary={BOUNDARY}", mjpeg(feed), feed.viewer)

    @router.get("/live/events")
    async def events(pictures: bool = False) -> Response:
        """Send the feed's status until the client disconnects; with pictures, the client counts as a viewer."""
        parts = status_events(feed, pictures=pictures)
        return Stream("text/event-stream", parts, feed.viewer if pictures else nullcontext)

    return router

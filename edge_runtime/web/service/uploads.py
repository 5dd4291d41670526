"""From the bytes of a picture to what is said of it, for many clients at once.

Decoding, the face stage and cutting out run in a few threads; the crops of all clients meet in the one queue.
"""

import asyncio
import io
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.detector import Detector
from edge_runtime.errors import EdgeError, PictureError
from edge_runtime.inference.engine import Answer, Choice
from edge_runtime.judging.decide import decide
from edge_runtime.judging.results import FaceResult
from edge_runtime.judging.scorer import PreparedFace, all_crops, find_faces, prepare_face, score_faces, split_rows
from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.schemas import Face, Heat, Prediction
from edge_runtime.web.service.batching import BatchingQueue, QueueFullError
from edge_runtime.web.service.heat import HeatMap, HeatNetwork, heat_map
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.settings import Limits, cores

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What strangers may send; other readers of Pillow's are older and less tried, and one starts other programs."""

LARGE_PIXELS = 12_000_000
"""Pictures of more are decoded one at a time, since each takes hundreds of megabytes."""

MOST_SCANS = 100
"""Scans of a JPEG. Each goes over the whole picture: a few bytes a scan would keep a thread busy for hours."""

MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
"""A marker of a JPEG that has a segment, or ends the picture."""

PROOF_S = 5.0
"""An answer of the detector proves for so long that it works."""

NO_FACE = "no face found"

PREDICTIONS: Mapping[Verdict, Literal[0, 1]] = {Verdict.REAL: 0, Verdict.FAKE: 1}


@dataclass(frozen=True)
class _Prepared:
    """A decoded picture: its width and height, its faces cut out, and how many more there are."""

    size: tuple[int, int]
    faces: tuple[PreparedFace, ...]
    left_out: int


@dataclass(frozen=True)
class Judgement:
    """What is said of a picture, and where the model looked at each of its faces (None where it did not)."""

    prediction: Prediction
    heat: tuple[HeatMap | None, ...]


class Judge:
    """Judges pictures for many clients.

    Args:
        detector: the engine, the face stage and what a face must show.
        limits: what strangers can't exceed.
        metrics: where to count.
    """

    def __init__(self, detector: Detector, limits: Limits, metrics: Metrics) -> None:
        self.detector, self._limits, self._metrics = detector, limits, metrics
        self.queue = BatchingQueue(limits.waiting, metrics.batches.observe)
        metrics.queue.set_function(lambda: self.queue.waiting)
        self._pool = ThreadPoolExecutor(min(cores(), 4), thread_name_prefix="picture")
        self._large = threading.Lock()
        self._proved = float("-inf")
        engine = detector.engine
        self.heat = HeatNetwork(engine)

    def close(self) -> None:
        """End the threads; what waits is cancelled."""
        self.queue.close()
        self._pool.shutdown(cancel_futures=True)

    async def judge(self, data: bytes, *, heat: bool = False) -> Judgement:
        """Return what is said of a picture, its faces from left to right, and with `heat` where the model looked.

        Raises:
            ProblemError: the picture can't be read, the queue is full, or the detector failed or is too slow.
        """
        began = time.monotonic()
        try:
            judgement = await asyncio.wait_for(self._judge(data, heat, began), self._limits.answer_s)
        except asyncio.TimeoutError:
            raise ProblemError("too-slow", f"{self._limits.answer_s:g} s is the limit; try again later") from None
        self._count(judgement.prediction, time.monotonic() - began)
        return judgement

    async def preview(self, data: bytes, pixels: int) -> Image.Image:
        """Return a picture that was judged already, of at most `pixels` a side, by the few threads that decode."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._preview, data, pixels)

    def _preview(self, data: bytes, pixels: int) -> Image.Image:
        picture = self._read(data)
        picture.thumbnail((pixels, pixels), Image.Resampling.BILINEAR)
        return picture

    async def check(self) -> None:
        """Let the detector judge a grey square, unless it has answered a moment ago.

        Raises:
            ProblemError: it failed or was too slow.
        """
        if time.monotonic() - self._proved < PROOF_S:
            return
        size = self.detector.engine.contract.input_size
        grey = np.full((1, size, size, 3), 127, np.uint8)
        try:
            await asyncio.wait_for(self._answer(grey, heat=False), self._limits.answer_s)
        except asyncio.TimeoutError:
            raise ProblemError("not-ready", "the detector did not answer in time") from None

    async def _judge(self, data: bytes, heat: bool, began: float) -> Judgement:
        prepared = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, data)
        crops = all_crops(prepared.faces)
        answer = self.detector.engine.no_answer if crops is None else await self._answer(crops, heat)
        return self._judgement(prepared, answer, began)

    async def _answer(self, pixels: NDArray[np.uint8], heat: bool) -> Answer:
        """Return logits, and with `heat` the map, of each crop, and what computed them."""
        compute = self.heat.answer if heat and self.heat.there else self.detector.engine.answer
        try:
            answer = await asyncio.wrap_future(self.queue.submit(pixels, compute))
        except QueueFullError:
            raise ProblemError("queue-full", "try again soon") from None
        except (EdgeError, RuntimeError) as error:
            raise ProblemError("detector-failed", "the log of the service says more") from error
        self._proved = time.monotonic()
        return answer

    def _prepare(self, data: bytes) -> _Prepared:
        picture = self._read(data)
        found = find_faces(picture, self.detector.faces)
        chosen = sorted(found[: self._limits.faces], key=lambda face: face.box[:2] if face else ())
        contract, limits = self.detector.engine.contract, self.detector.limits
        faces = tuple(prepare_face(picture, face, contract, limits) for face in chosen)
        return _Prepared(picture.size, faces, len(found) - len(faces))

    def _read(self, data: bytes) -> Image.Image:
        pixels = pixels_of(data)
        if pixels > self._limits.pixels:
            millions = f"{pixels / 1e6:.0f} million, {self._limits.pixels / 1e6:g} million"
            raise ProblemError("too-many-pixels", f"{millions} is the limit; make it smaller")
        if too_many_scans(data):
            raise ProblemError("not-a-picture", f"it is a JPEG of over {MOST_SCANS} scans; save it anew")
        with self._large if pixels > LARGE_PIXELS else nullcontext():
            try:
                return read_picture(data, formats=FORMATS, max_pixels=self._limits.pixels)
            except PictureError as error:
                raise ProblemError("not-a-picture", str(error)) from None

    def _judgement(self, prepared: _Prepared, answer: Answer, began: float) -> Judgement:
        scored = score_faces(prepared.faces, answer.logits, prepared.size)
        results = [decide(face, answer.calibration, self.detector.limits) for face in scored]
        rows = split_rows(prepared.faces, answer.logits)
        maps = [self._looked(mine, prepared.size, face.box) for face, mine in zip(prepared.faces, rows, strict=True)]
        prediction = self._prediction(results, maps, prepared, answer.choice, 1e3 * (time.monotonic() - began))
        return Judgement(prediction, tuple(maps))

    def _looked(self, rows: NDArray[np.float32], size: tuple[int, int], box: Box | None) -> HeatMap | None:
        if rows.shape[0] == 0 or rows.shape[1] == 2:
            return None
        return heat_map(rows[:, 2:], size, box, self.detector.engine.contract, labelled=self.heat.labelled)

    def _prediction(
        self,
        results: list[FaceResult],
        maps: list[HeatMap | None],
        prepared: _Prepared,
        choice: Choice,
        latency_ms: float,
    ) -> Prediction:
        decisive = decisive_face(results)
        return Prediction(
            prediction=PREDICTIONS.get(decisive.verdict) if decisive else None,
            verdict=decisive.verdict if decisive else None,
            score=decisive.to_dict()["score"] if decisive else None,
            reason=decisive.reason if decisive else NO_FACE,
            faces=[_face(result, looked) for result, looked in zip(results, maps, strict=True)],
            unjudged=sum(result.score is None for result in results),
            left_out=prepared.left_out,
            width=prepared.size[0],
            height=prepared.size[1],
            latency_ms=round(latency_ms, 2),
            device=choice.device,
            precision=choice.precision.value,
            model=self.detector.engine.contract.version,
            notice=self.detector.notice,
        )

    def count_problem(self, problem: ProblemError) -> None:
        """Count a problem of one picture among others, which is no problem of the whole request."""
        self._metrics.problems.labels(problem.name).inc()

    def _count(self, prediction: Prediction, latency_s: float) -> None:
        self._metrics.pictures.labels(prediction.verdict.value if prediction.verdict else "no_face").inc()
        for face in prediction.faces:
            self._metrics.faces.labels(face.verdict.value).inc()
        self._metrics.latency.observe(latency_s)


def decisive_face(results: Sequence[FaceResult]) -> FaceResult | None:
    """Return the face of the highest score, the first where none could be judged, None without a face."""
    judged = [result for result in results if result.score is not None]
    if judged:
        return max(judged, key=lambda result: result.score or 0.0)
    return results[0] if results else None


def pixels_of(data: bytes) -> int:
    """Return how many pixels a picture says it has, without decoding it.

    Raises:
        ProblemError: it is no picture of a format that is read here.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.width * picture.height
    except Image.DecompressionBombError:
        raise ProblemError("too-many-pixels", "make it smaller") from None
    # Pillow's readers raise errors of many kinds on what is no picture; all mean the same to the sender.
    except Exception:
        names = "JPEG, PNG, WebP, GIF, BMP, TIFF"
        raise ProblemError("not-a-picture", f"it is none that can be read here ({names})") from None


def too_many_scans(data: bytes) -> bool:
    """Tell whether a picture is a JPEG of more than MOST_SCANS scans (ITU-T T.81, B.1); what follows it is not read."""
    if not data.startswith(b"\xff\xd8"):
        return False
    place, scans = 2, 0
    while scans <= MOST_SCANS and (found := MARKER.search(data, place)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans > MOST_SCANS


def _face(result: FaceResult, looked: HeatMap | None) -> Face:
    values = result.to_dict()
    heat = None
    if looked is not None:
        rows = [[round(float(value), 3) for value in row] for row in looked.values]
        left, top, right, bottom = (round(edge) for edge in looked.region)
        heat = Heat(region=(left, top, right, bottom), rows=rows)
    return Face(
        box=values["box"],
        detection=values["detection"],
        score=values["score"],
        verdict=result.verdict,
        reason=result.reason,
        heat=heat,
    )

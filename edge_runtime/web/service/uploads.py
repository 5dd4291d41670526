"""Judges uploaded pictures: a few threads decode and cut out faces, the crops of all clients share one queue."""

import asyncio
import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from starlette.concurrency import run_in_threadpool

from edge_runtime.detector import Detector
from edge_runtime.errors import EdgeError, LargePictureError, PictureError
from edge_runtime.inference.engine import Answer
from edge_runtime.judging.decide import decide
from edge_runtime.judging.results import FaceResult, Reason
from edge_runtime.judging.scorer import PreparedFace, all_crops, find_faces, prepare_face, score_faces, split_rows
from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.file_types import FORMATS, HEAD_BYTES, Content, file_type_of
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.provenance import Provenance, picture_provenance
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.schemas import DriftAnswer, FaceAnswer, HeatAnswer, Prediction, ProvenanceAnswer
from edge_runtime.web.service.batching import BatchingQueue, Compute, QueueFullError
from edge_runtime.web.service.heat import HeatMap, HeatNetwork, beyond_threshold, heat_map
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.settings import ServiceLimits

LABELS = {"WEBP": "WebP", "HEIF": "HEIC"}
"""Names of formats for people, if Pillow's differ."""

PROOF_S = 5.0
"""How long an answer of the detector counts as proof that it works."""

NO_FACE = "no face found"

PREDICTIONS: Mapping[Verdict, Literal[0, 1]] = {Verdict.REAL: 0, Verdict.FAKE: 1}


@dataclass(frozen=True)
class JudgedUpload:
    """The result for a picture. For each of its faces: the heat map, and why the verdict is uncertain."""

    prediction: Prediction
    heat: tuple[HeatMap | None, ...]
    reasons: tuple[Reason | None, ...]


class UploadJudge:
    """Judges pictures for many clients."""

    def __init__(self, detector: Detector, limits: ServiceLimits, metrics: Metrics) -> None:
        self.metrics, self._limits = metrics, limits
        self.switch(detector)
        self._formats = tuple(readable_formats())
        self.queue = BatchingQueue(limits.waiting, metrics.batches.observe)
        waiting = "Crops waiting for the detector"
        metrics.computed("queue_crops", waiting, lambda: iter([({}, float(self.queue.waiting))]))
        self._pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 4), thread_name_prefix="picture")
        self._proved = float("-inf")

    def switch(self, detector: Detector) -> None:
        """Judge with `detector` from the next picture on; those in work keep the one they began with. Thread-safe.

        Raises:
            BundleError: its network was changed.
        """
        self._in_use = detector, HeatNetwork(detector.engine)

    @property
    def detector(self) -> Detector:
        """The detector in use."""
        return self._in_use[0]

    @property
    def heat(self) -> HeatNetwork:
        """The heat maps of the detector in use."""
        return self._in_use[1]

    def close(self) -> None:
        """Stop the threads; waiting work is cancelled."""
        self.queue.close()
        self._pool.shutdown(cancel_futures=True)

    async def judge(self, data: bytes, *, heat: bool = False) -> JudgedUpload:
        """Return the result for a picture, faces from left to right, with heat maps if `heat`.

        Raises:
            ProblemError: the picture can't be read, the queue is full, or the detector failed or is too slow.
        """
        began = time.monotonic()
        try:
            judged = await asyncio.wait_for(self._judge(data, heat, began), self._limits.answer_s)
        except asyncio.TimeoutError:
            detail = f"the limit is {self._limits.answer_s:g} s; try again later"
            raise ProblemError(ProblemKind.TOO_SLOW, detail) from None
        self.metrics.count_prediction(judged.prediction, time.monotonic() - began)
        return judged

    async def preview(self, data: bytes, pixels: int) -> Image.Image:
        """Return a picture that was judged before, reduced to `pixels` on its longer side."""

        def reduced() -> Image.Image:
            picture = self._read(data)
            picture.thumbnail((pixels, pixels), Image.Resampling.BILINEAR)
            return picture

        return await asyncio.get_running_loop().run_in_executor(self._pool, reduced)

    async def check(self) -> None:
        """Run the detector on a grey square, unless it has answered within the last PROOF_S.

        Raises:
            ProblemError: it hangs, failed or was too slow.
        """
        if not self.queue.alive:
            raise ProblemError(ProblemKind.NOT_READY, "the detector hangs, or its thread has ended")
        if time.monotonic() - self._proved < PROOF_S:
            return
        engine = self.detector.engine
        size = engine.contract.input_size
        grey = np.full((1, size, size, 3), 127, np.uint8)
        try:
            await asyncio.wait_for(self._answer(grey, engine.answer), self._limits.answer_s)
        except asyncio.TimeoutError:
            raise ProblemError(ProblemKind.NOT_READY, "the detector did not answer in time") from None

    async def _judge(self, data: bytes, heat: bool, began: float) -> JudgedUpload:
        detector, network = self._in_use
        contract = detector.engine.contract
        deadline = began + self._limits.answer_s
        size, faces, left_out, says = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._prepare, data, detector, deadline
        )
        crops = all_crops(faces)
        # With `heat`, each crop's logits are followed by its saliency map, if the network has one.
        compute = network.answer if heat and network.available else detector.engine.answer
        answer = detector.engine.no_answer if crops is None else await self._answer(crops, compute)
        scored = score_faces(faces, answer, size)
        results = [decide(face, answer.calibration, detector.limits) for face in scored]
        maps: list[HeatMap | None] = []
        for face, rows, result in zip(faces, split_rows(faces, answer.logits), results, strict=True):
            if result.score is None or rows.shape[1] <= 2:
                maps.append(None)
                continue
            mean = beyond_threshold(result.score, result.verdict, answer.calibration)
            own = rows[: len(rows) // (1 + face.copies), 2:]
            maps.append(heat_map(own, size, face.box, contract, mean=mean, labelled=network.labelled))
        monitor = self.metrics.monitor
        drift = None
        if monitor is not None:
            # It may write to the disk.
            drift = DriftAnswer(**await run_in_threadpool(monitor.count, results, datetime.now(timezone.utc)))
        decisive = decisive_face(results)
        prediction = Prediction(
            prediction=PREDICTIONS.get(decisive.verdict) if decisive else None,
            verdict=decisive.verdict if decisive else None,
            score=decisive.to_dict()["score"] if decisive else None,
            reason=decisive.reason if decisive else NO_FACE,
            faces=[_face_answer(result, map_) for result, map_ in zip(results, maps, strict=True)],
            unjudged=sum(result.score is None for result in results),
            left_out=left_out,
            width=size[0],
            height=size[1],
            latency_ms=round(1e3 * (time.monotonic() - began), 2),
            device=answer.choice.device,
            precision=answer.choice.precision.value,
            model=contract.version,
            notice=detector.notice,
            drift=drift,
            provenance=ProvenanceAnswer(**said) if (said := says.to_dict()) else None,
        )
        return JudgedUpload(prediction, tuple(maps), tuple(result.reason_code for result in results))

    def _prepare(
        self, data: bytes, detector: Detector, deadline: float
    ) -> tuple[tuple[int, int], list[PreparedFace], int, Provenance]:
        """Return a picture's size, its faces cut out, how many more there are, and what the file says."""
        picture = self._read(data)
        check_deadline(deadline)
        found = find_faces(picture, detector.faces)
        contract, limits, careful = detector.engine.contract, detector.limits, detector.careful
        faces = []
        for face in sorted(found[: self._limits.faces], key=lambda face: face.box[:2] if face else ()):
            check_deadline(deadline)
            faces.append(prepare_face(picture, face, contract, limits, careful=careful))
        return picture.size, faces, len(found) - len(faces), picture_provenance(data)

    def _read(self, data: bytes) -> Image.Image:
        try:
            return read_picture(data, formats=self._formats, max_pixels=self._limits.pixels)
        except LargePictureError as error:
            raise ProblemError(ProblemKind.TOO_MANY_PIXELS, str(error)) from None
        except PictureError as error:
            found = file_type_of(data[:HEAD_BYTES])
            unreadable = found.content is Content.PICTURE and found.format not in self._formats
            if unreadable or found.content is Content.OTHER_PICTURE:
                raise ProblemError(ProblemKind.UNSUPPORTED_FORMAT, str(error)) from None
            raise ProblemError(ProblemKind.NOT_A_PICTURE, str(error)) from None

    async def _answer(self, pixels: NDArray[np.uint8], compute: Compute) -> Answer:
        """Return what `compute` answers to these crops, in the queue."""
        try:
            answer = await asyncio.wrap_future(self.queue.submit(pixels, compute))
        except QueueFullError:
            raise ProblemError(ProblemKind.QUEUE_FULL, "try again soon") from None
        except (EdgeError, RuntimeError) as error:
            raise ProblemError(ProblemKind.DETECTOR_FAILED, "the service's log has the details") from error
        self._proved = time.monotonic()
        return answer


def check_deadline(deadline: float) -> None:
    """Raise a ProblemError after `deadline`, in monotonic seconds."""
    if time.monotonic() > deadline:
        raise ProblemError(ProblemKind.TOO_SLOW, "try again later")


def decisive_face(results: Sequence[FaceResult]) -> FaceResult | None:
    """Return the face with the highest score, the first face if none was judged, None if there is no face."""
    judged = [result for result in results if result.score is not None]
    if judged:
        return max(judged, key=lambda result: result.score or 0.0)
    return results[0] if results else None


def readable_formats() -> dict[str, str]:
    """Return the accepted formats, as far as the installed packages read them: Pillow's names, and those for people.

    Not PNM: Pillow reads its header byte by byte in Python, which takes seconds for a long comment.
    """
    missing = {"PPM"}
    if importlib.util.find_spec("pillow_heif") is None:
        missing.add("HEIF")
    if not features.check("avif"):
        missing.add("AVIF")
    return {name: LABELS.get(name, name) for name in FORMATS if name not in missing}


def _face_answer(result: FaceResult, heat: HeatMap | None) -> FaceAnswer:
    answer = None
    if heat is not None:
        left, top, right, bottom = map(round, heat.region)
        answer = HeatAnswer(region=(left, top, right, bottom), rows=heat.values.astype(float).round(3).tolist())
    return FaceAnswer(**result.to_dict(), heat=answer)

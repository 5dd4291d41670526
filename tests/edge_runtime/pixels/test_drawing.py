from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.drawing import COLOURS, draw_result, label_of


def frame(*faces: FaceResult, size: tuple[int, int] = (640, 480)) -> FrameResult:
    return FrameResult("camera", 0, datetime.now(timezone.utc), width=size[0], height=size[1], faces=faces)


def face(box: tuple[int, int, int, int], verdict: Verdict, score: float | None = 0.98) -> FaceResult:
    return FaceResult(box, 0.9, 1, score, verdict, track_score=score)


def drawn(result: FrameResult, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    return np.asarray(draw_result(Image.new("RGB", size, (90, 90, 90)), result))


def share_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels.astype(int) - colour).max(axis=-1) < 3).mean())


@pytest.mark.parametrize("verdict", list(Verdict))
def test_boxes_have_the_colour_of_the_verdict(verdict):
    pixels = drawn(frame(face((200, 150, 400, 350), verdict)))
    edge = share_of(pixels[150:152, 204:396], COLOURS[verdict])
    assert edge > 0.9 if verdict is not Verdict.UNCERTAIN else 0.3 < edge < 0.9
    assert share_of(pixels[240:260, 280:320], (90, 90, 90)) == 1.0


def test_labels_name_verdict_and_track_score():
    assert label_of(face((0, 0, 9, 9), Verdict.FAKE, 0.987)) == "fake 0.99"
    assert label_of(face((0, 0, 9, 9), Verdict.REAL, 0.012)) == "real (no known traces) 0.01"
    assert label_of(face((0, 0, 9, 9), Verdict.UNCERTAIN, None)) == "uncertain"
    assert label_of(FaceResult((0, 0, 9, 9), 0.9, 1, 0.2, Verdict.FAKE, track_score=0.9)) == "fake 0.90"


def test_the_given_picture_is_not_changed():
    picture = Image.new("RGB", (64, 48), (90, 90, 90))
    assert np.array_equal(np.asarray(draw_result(picture, frame())), np.asarray(picture))
    draw_result(picture, frame(face((5, 5, 30, 30), Verdict.FAKE)))
    assert picture.getextrema() == ((90, 90),) * 3


@pytest.mark.parametrize("box", [(-50, -50, 30, 30), (0, 0, 640, 480), (630, 470, 700, 520), (0, 0, 1, 1)])
def test_boxes_may_leave_the_picture(box):
    for verdict in Verdict:
        assert drawn(frame(face(box, verdict))).shape == (480, 640, 3)


def test_whole_pictures_have_no_box():
    pixels = drawn(frame(FaceResult((0, 0, 640, 480), None, None, 0.9, Verdict.FAKE)))
    assert share_of(pixels[100:, :], (90, 90, 90)) == 1.0
    assert share_of(pixels[:60, :200], COLOURS[Verdict.FAKE]) > 0

import csv
import itertools
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest
from helpers.drawn_face import draw_face
from PIL import Image

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.inference import faces
from edge_runtime.inference.faces import Candidates, DetectedFace, FaceDetector
from edge_runtime.pixels.boxes import overlaps
from edge_runtime.pixels.pictures import read_picture

SKIN = (215, 165, 140)


@pytest.fixture(scope="session")
def detector(face_model) -> FaceDetector:
    return FaceDetector(face_model)


@pytest.fixture(scope="session")
def tiled(face_model) -> FaceDetector:
    return FaceDetector(face_model, tiled=True)


def wall(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), (110, 130, 150))


def overlap(one, other) -> float:
    return float(overlaps(one, [other])[0])


def matched(truth: list, found: list[DetectedFace]) -> int:
    """Count true boxes that have a found one of their own."""
    pairs = sorted(itertools.product(truth, found), key=lambda pair: -overlap(pair[0], pair[1].box))
    used: set = set()
    for true, face in pairs:
        if overlap(true, face.box) >= 0.35 and not {("true", tuple(true)), ("face", face.box)} & used:
            used |= {("true", tuple(true)), ("face", face.box)}
    return len(used) // 2


def test_a_drawn_face_is_found(detector):
    (face,) = detector.detect(draw_face(SKIN, (420, 200), 80))
    assert overlap(face.box, (355, 140, 485, 280)) > 0.6
    assert faces.THRESHOLD <= face.detection <= 1.0


def test_keypoints_are_left_and_right_as_seen(detector):
    (face,) = detector.detect(draw_face(SKIN, (320, 240), 100))
    points = dict(zip(faces.KEYPOINTS, face.keypoints, strict=True))
    assert points["left_ear"][0] < points["left_eye"][0] < points["nose"][0] < points["right_eye"][0]
    assert points["left_eye"] == pytest.approx((288, 225), abs=15)
    assert points["left_eye"][1] < points["nose"][1] < points["mouth"][1]


@pytest.mark.parametrize("size", [(1280, 720), (480, 640), (300, 1200)])
def test_pictures_of_any_shape_are_searched(detector, size):
    centre = (size[0] // 2, size[1] // 3)
    (face,) = detector.detect(draw_face(SKIN, centre, 110, wall(*size)))
    assert (face.box[0] + face.box[2]) / 2 == pytest.approx(centre[0], abs=25)


def test_several_faces_come_most_confident_first(detector):
    found = detector.detect(draw_face(SKIN, (460, 260), 90, draw_face(SKIN, (150, 200), 60)))
    assert len(found) == 2
    assert found[0].detection >= found[1].detection


@pytest.mark.parametrize("size", [(640, 480), (1, 1), (20_000, 1), (1, 3000), (2, 2)])
def test_there_may_be_no_face(detector, tiled, size):
    assert detector.detect(wall(*size)) == tiled.detect(wall(*size)) == []


def test_a_box_stays_inside_the_picture(detector):
    found = detector.detect(draw_face(SKIN, (60, 240), 110))
    assert found
    assert all(0 <= face.box[0] < face.box[2] <= 640 and 0 <= face.box[1] < face.box[3] <= 480 for face in found)


def test_tiles_find_distant_faces(detector, tiled):
    far = draw_face(SKIN, (300, 200), 36, wall(1920, 1080))
    assert detector.detect(far) == []
    (face,) = tiled.detect(far)
    assert overlap(face.box, (271, 176, 329, 234)) > 0.4


def test_a_face_in_several_tiles_is_found_once(tiled):
    assert len(tiled.detect(draw_face(SKIN, (320, 240), 70))) == 1


def test_threads_may_share_a_detector(detector):
    pictures = [draw_face(SKIN, (150 + 40 * index, 240), 80) for index in range(8)]
    expected = [detector.detect(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detector.detect, pictures * 3)) == expected * 3


def test_other_files_are_refused(tmp_path, face_model):
    with pytest.raises(BundleError, match=r"none\.tflite: face model not found"):
        FaceDetector(tmp_path / "none.tflite")
    (tmp_path / "face.tflite").write_bytes(b"no model at all")
    with pytest.raises(BundleError, match=r"face\.tflite: not a model"):
        FaceDetector(tmp_path / "face.tflite")
    given = ov.opset8.parameter([1, 4], np.float32)
    ov.save_model(ov.Model([ov.opset8.relu(given)], [given]), tmp_path / "other.xml")
    for other in (tmp_path / "other.xml", face_model.with_name("face_detection_short_range.tflite")):
        with pytest.raises(BundleError, match="not BlazeFace full range"):
            FaceDetector(other)


def test_a_missing_device_is_named(face_model):
    with pytest.raises(DeviceError, match="NPU: can't run"):
        FaceDetector(face_model, device="NPU")


def test_letterboxing_centres_the_picture():
    pixels, scale, offset = faces.letterbox(Image.new("RGB", (384, 192), "white"), (0.0, 0.0, 384.0, 192.0), 192)
    assert (scale, offset) == (0.5, (0, 48))
    assert pixels[48:144].min() == 255
    assert pixels[:48].max() == pixels[144:].max() == 0


def candidates(boxes, scores) -> Candidates:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Candidates(boxes, np.zeros((len(boxes), 6, 2), np.float32), np.array(scores, np.float32))


def test_boxes_of_one_face_are_merged():
    kept = faces.suppress(candidates([[0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10]], [0.5, 0.7, 0.9]))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert kept.boxes[0].tolist() == pytest.approx([0.9 * 2 / 1.4, 0, (0.5 * 10 + 0.9 * 12) / 1.4, 10])
    assert len(faces.suppress(candidates([[0, 0, 100, 100], [10, 10, 40, 40]], [0.9, 0.8])).scores) == 1
    assert len(faces.suppress(candidates([], [])).scores) == 0


def test_faces_cut_by_an_inner_edge_are_dropped():
    found = candidates([[10, 10, 30, 30], [80, 10, 110, 40], [-5, 40, 15, 60]], [0.9, 0.9, 0.9])
    kept = faces.drop_cut(found, (0.0, 0.0, 100.0, 100.0), (0.0, 0.0, 150.0, 150.0))
    assert kept.boxes[:, 0].tolist() == [10, -5]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("detector", 105), ("tiled", 107)])
def test_real_scenes_reach_their_bounds(shared, request, kind, least):
    detector = request.getfixturevalue(kind)
    truth = defaultdict(list)
    with (shared / "scenes" / "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            truth[row["file"]].append(tuple(float(row[key]) for key in ("x0", "y0", "x1", "y1")))
    hits = false = 0
    for path in sorted((shared / "scenes").glob("*/*.*")):
        found = detector.detect(read_picture(path))
        hits += matched(truth[f"{path.parent.name}/{path.name}"], found)
        false += len(found) if path.parent.name == "nobody" else 0
    assert hits >= least
    assert false <= 2

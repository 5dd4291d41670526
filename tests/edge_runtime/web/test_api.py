"""The HTTP API."""

import io
import json
import logging
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from helpers.jpegs import file_of
from PIL import Image, ImageFile, PngImagePlugin
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.detector import Detector
from edge_runtime.errors import DeviceError
from edge_runtime.judging.results import FaceResult
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.web.http.problems import ProblemKind
from edge_runtime.web.service.uploads import decisive_face
from edge_runtime.web.settings import ServiceLimits, Settings

REAL, UNCERTAIN = (-110, 70), (-20, 18)


def judged(client, data: bytes, **query: object) -> dict:
    answer = client.post("/predict", files={"image": ("face.jpg", data)}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer) -> tuple[int, str]:
    """Return status and kind of a problem, after checking its form."""
    assert answer.headers["content-type"] == "application/problem+json"
    details = answer.json()
    kind = next(kind for kind in ProblemKind if kind.type == details["type"])
    assert details["status"] == kind.status == answer.status_code
    assert details["title"] == kind.title
    assert details["detail"]
    return kind.status, kind.value


@pytest.fixture
def pictures(face, three_faces, no_face) -> dict[str, bytes]:
    """Pictures by what is expected of them."""
    small = Image.open(io.BytesIO(three_faces)).resize((180, 120))
    uncertain = face(UNCERTAIN, seed=4)
    return {
        "fake": face(),
        "real": face(REAL),
        "uncertain": uncertain,
        "three": three_faces,
        "none": no_face,
        "small": file_of(small, "PNG"),
    }


@pytest.mark.parametrize(
    ("name", "prediction", "verdict", "scores", "unjudged"),
    [
        ("fake", 1, "fake", (0.9, 1.0), 0),
        ("real", 0, "real", (0.0, 0.3), 0),
        ("uncertain", None, "uncertain", (0.3, 0.7), 0),
        ("three", 1, "fake", (0.9, 1.0), 0),
        ("none", None, None, None, 0),
        ("small", None, "uncertain", None, 3),
    ],
)
def test_pictures_get_their_verdict(client, pictures, name, prediction, verdict, scores, unjudged):
    result = judged(client, pictures[name])
    assert (result["prediction"], result["verdict"], result["unjudged"]) == (prediction, verdict, unjudged)
    assert (result["reason"] is None) == (verdict in ("real", "fake"))
    assert scores[0] < result["score"] <= scores[1] if scores else result["score"] is None
    assert (result["device"], result["precision"], result["model"], result["notice"]) == ("CPU", "fp32", "1.4.0", None)


def test_highest_score_decides(client, detector, three_faces):
    result = judged(client, three_faces)
    expected = sorted(detector.detect(three_faces).faces, key=lambda face: face.box[0])
    assert (result["width"], result["height"]) == (960, 640)
    assert [face["verdict"] for face in result["faces"]] == ["fake", "real", "uncertain"]
    assert [face["box"] for face in result["faces"]] == [list(face.box) for face in expected]
    assert [face["score"] for face in result["faces"]] == pytest.approx([face.score for face in expected], abs=2e-6)
    assert result["score"] == max(face["score"] for face in result["faces"])


def test_unjudged_faces_do_not_decide():
    small, real, fake = (
        FaceResult(box=(0, 0, 9, 9), detection=0.9, track=None, score=score, verdict=verdict)
        for score, verdict in ((None, Verdict.UNCERTAIN), (0.1, Verdict.REAL), (0.9, Verdict.FAKE))
    )
    assert decisive_face([small, real, fake]) is fake
    assert decisive_face([small, real]) is real
    assert decisive_face([small]) is small


def test_careful_judges_copies_too_and_draws_the_map_of_the_face_itself(opened, client, colour_bundle, face):
    with opened(Detector(Bundle.open(colour_bundle), careful=True)) as careful:
        found, usual = judged(careful, face(), heat=True), judged(client, face(), heat=True)
        text = careful.get("/metrics").text
    assert "deepfake_edge_batch_crops_sum 4" in text
    assert found["verdict"] == "fake"
    assert found["faces"][0]["heat"] == usual["faces"][0]["heat"]


def test_a_slow_disk_of_the_monitor_delays_no_other_request(served, whole_detector, face, tmp_path, monkeypatch):
    began, released, count = threading.Event(), threading.Event(), Monitor.count

    def slow(*arguments):
        began.set()
        assert released.wait(10)
        return count(*arguments)

    monkeypatch.setattr(Monitor, "count", slow)
    with served(whole_detector, Settings(monitor=tmp_path)) as (host, port), ThreadPoolExecutor() as pool:
        base = f"http://{host}:{port}"
        answer = pool.submit(httpx2.post, f"{base}/predict", files={"image": face()}, timeout=20)
        assert began.wait(10)
        assert httpx2.get(f"{base}/model", timeout=5).status_code == 200
        released.set()
        assert answer.result().json()["drift"]["state"] == "unknown"


def test_heat_map_on_request(client, face):
    without, result = judged(client, face()), judged(client, face(), heat=True)
    assert without["faces"][0]["heat"] is None
    heat = result["faces"][0]["heat"]
    assert np.abs(heat["rows"]).max() == 1.0
    left, top, right, bottom = heat["region"]
    assert 0 <= left < right <= 384
    assert 0 <= top < bottom <= 384
    assert result["faces"][0]["score"] == pytest.approx(without["faces"][0]["score"], abs=1e-6)


def test_claims_of_the_file_stay_beside_the_score(client, face):
    """Also with EXIF of the wrong types, which must not break the answer."""
    picture, odd = Image.open(io.BytesIO(face())), Image.Exif()
    odd[0x0131], odd[0x8769] = 7, {0x9286: 5}
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "<b>a face\nSteps: 20")
    plain = judged(client, file_of(picture, "PNG"))
    claimed = judged(client, file_of(picture, "PNG", pnginfo=info))
    assert plain["provenance"] is None
    assert claimed["provenance"] == {"kind": "PNG text", "text": "parameters: <b>a face Steps: 20", "c2pa": None}
    assert claimed["score"] == plain["score"]
    assert judged(client, file_of(picture, "PNG", exif=odd))["provenance"] is None
    card = client.post("/card?lang=zh-Hans", files={"image": file_of(picture, "PNG", pnginfo=info)}).text
    assert "parameters: &lt;b&gt;a face" in card


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_other_formats_are_read(plain, face, format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif").register_heif_opener()
    assert judged(plain, file_of(Image.open(io.BytesIO(face())), format))["prediction"] == 1


def test_unsupported_formats_are_named(opened, whole_detector, face, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    pillow_heif.register_heif_opener()
    picture = Image.open(io.BytesIO(face()))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with opened(whole_detector) as client:
        for format in ("HEIF", "JPEG2000", "PPM"):
            answer = client.post("/predict", files={"image": file_of(picture, format)})
            assert problem(answer) == (422, "unsupported-format")


def test_demonstration_model_has_a_notice(opened, demo_detector, face, no_face):
    with opened(demo_detector) as client:
        assert all(judged(client, data)["notice"] for data in (face(), no_face))


def test_batch_keeps_its_order(client, face, no_face):
    sent = {"a.jpg": face(), "b.txt": b"not a picture", "<c>.jpg": face(REAL), "d.jpg": no_face}
    answer = client.post("/predict/batch", files=[("images", item) for item in sent.items()])
    results = answer.json()["results"]
    assert [item["name"] for item in results] == list(sent)
    assert [item["result"] and item["result"]["prediction"] for item in results] == [1, None, 0, None]
    problems = [item["problem"] and item["problem"]["type"] for item in results]
    assert problems == [None, "/problems/not-a-picture", None, None]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"files": {"image": b"not a picture"}}, (422, "not-a-picture")),
        ({"files": {"image": b""}}, (422, "not-a-picture")),
        ({"files": {"picture": b"\xff\xd8"}}, (422, "no-picture")),
        ({"content": b"\xff\xd8", "headers": {"Content-Type": "image/jpeg"}}, (415, "not-a-form")),
        ({"data": {"image": "text"}}, (415, "not-a-form")),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, (400, "bad-request")),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, (400, "bad-request")),
        ({"files": [("image", b"a"), ("image", b"b")]}, (413, "too-many-files")),
        ({"files": {"image": b"x"}, "params": {"heat": "warm"}}, (422, "bad-value")),
    ],
)
def test_bad_requests_are_problems(plain, request_, expected):
    assert problem(plain.post("/predict", **request_)) == expected


def test_unknown_paths_and_methods_are_problems(plain):
    assert problem(plain.get("/nothing")) == (404, "not-found")
    refused = plain.get("/predict")
    assert problem(refused) == (405, "method-not-allowed")
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ProblemKind)
def test_every_problem_has_a_page(plain, kind):
    assert plain.get(kind.type).json()["status"] == kind.status
    assert kind.value in plain.get(kind.type, headers={"Accept": "text/html"}).text


def test_huge_pictures_are_refused_before_decoding(opened, whole_detector, monkeypatch):
    data = file_of(Image.new("1", (20_000, 20_000)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with opened(whole_detector) as client:
        assert problem(client.post("/predict", files={"image": data})) == (413, "too-many-pixels")


def test_faces_beyond_the_limit_are_counted(opened, detector, three_faces):
    with opened(detector, Settings(limits=ServiceLimits(faces=2))) as client:
        result = judged(client, three_faces)
    assert (len(result["faces"]), result["left_out"]) == (2, 1)


def test_failed_device_is_a_problem(opened, whole_detector, face, monkeypatch, caplog):
    def fail(pixels: np.ndarray) -> np.ndarray:
        raise DeviceError("the device failed")

    with opened(whole_detector) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        monkeypatch.setattr(whole_detector.engine, "answer", fail)
        monkeypatch.setattr("edge_runtime.web.service.uploads.PROOF_S", 0.0)
        for answer in (client.post("/predict", files={"image": face()}), client.get("/readyz")):
            assert problem(answer) == (503, "detector-failed")
            assert answer.headers["retry-after"]
        assert client.get("/healthz").status_code == 200
        monkeypatch.undo()
        assert client.get("/readyz").status_code == 200
    assert "the device failed" in caplog.text


def test_slow_detector_is_a_problem(opened, whole_detector, face, held):
    with opened(whole_detector, Settings(limits=ServiceLimits(answer_s=0.2))) as client:
        answer = client.post("/predict", files={"image": face()})
        held[1].set()
    assert problem(answer) == (503, "too-slow")


def test_abandoned_pictures_are_not_finished(opened, whole_detector, face, monkeypatch):
    def slow(data: bytes, **_: object) -> Image.Image:
        time.sleep(0.3)
        return Image.open(io.BytesIO(data))

    searched = []
    monkeypatch.setattr("edge_runtime.web.service.uploads.read_picture", slow)
    monkeypatch.setattr("edge_runtime.web.service.uploads.find_faces", lambda *arguments: searched.append(arguments))
    with opened(whole_detector, Settings(limits=ServiceLimits(answer_s=0.1))) as client:
        assert problem(client.post("/predict", files={"image": face()})) == (503, "too-slow")
    assert searched == []


def test_model_has_contract_hashes_and_metrics(client, detector):
    model = client.get("/model").json()
    assert model["contract"]["architecture"] == "colour"
    assert model["contract"]["metrics"]["fp32"]["auc"]["value"] == 0.99
    assert model["files"] == dict(detector.bundle.manifest.files)
    assert (model["device"], model["precision"], model["faces"]) == ("CPU", "fp32", True)


def metrics(client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {sample.name + json.dumps(sample.labels, sort_keys=True): sample.value for sample in samples}


def test_metrics_count_pictures_faces_and_problems(opened, detector, face, three_faces, no_face):
    with opened(detector) as client:
        for data in (face(), three_faces, no_face):
            judged(client, data)
        client.post("/predict", files={"image": b"not a picture"})
        counted = metrics(client)
    expected = {
        'pictures_total{"verdict": "fake"}': 2,
        'pictures_total{"verdict": "no_face"}': 1,
        'faces_total{"verdict": "real"}': 1,
        'problems_total{"type": "not-a-picture"}': 1,
        "latency_seconds_count{}": 3,
        "batch_crops_sum{}": 4,
        "queue_crops{}": 0,
    }
    assert {name: counted[f"deepfake_edge_{name}"] for name in expected} == expected
    assert counted["process_resident_memory_bytes{}"] > 0


def test_metrics_count_failures(opened, whole_detector, face, monkeypatch):
    with opened(whole_detector) as client:
        for path in ("/predict/batch", "/"):
            client.post(path, files=[("images", b"not a picture"), ("images", face())])
        monkeypatch.setattr("edge_runtime.web.service.uploads.prepare_face", None)
        client.post("/predict", files={"image": face()})
        counted = metrics(client)
    assert counted['deepfake_edge_problems_total{"type": "not-a-picture"}'] == 2
    assert counted['deepfake_edge_problems_total{"type": "internal"}'] == 1


def test_head_is_answered_without_a_body(served, whole_detector):
    with served(whole_detector) as (host, port):
        for path in ("/healthz", "/readyz", "/", "/model"):
            answer = httpx2.head(f"http://{host}:{port}{path}", timeout=20)
            assert (answer.status_code, answer.content) == (200, b"")
            assert int(answer.headers["content-length"]) > 0
        assert httpx2.head(f"http://{host}:{port}/predict", timeout=20).status_code == 405


def test_pictures_stay_off_disk_and_out_of_logs(opened, whole_detector, monkeypatch, caplog):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture would go to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    data = file_of(Image.fromarray(noise), "PNG", compress_level=0)
    assert len(data) > 4_000_000
    with caplog.at_level(logging.DEBUG), opened(whole_detector) as client:
        answer = client.post("/predict", files={"image": ("private-name.png", data)})
    assert answer.status_code == 200
    assert "private-name" not in caplog.text

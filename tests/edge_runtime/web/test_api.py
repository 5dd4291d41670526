"""The programs' side of the service."""

import io
import json
import logging

import httpx2
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.errors import DeviceError
from edge_runtime.judging.results import FaceResult
from edge_runtime.web.http.problems import ProblemKind
from edge_runtime.web.service.uploads import decisive_face
from edge_runtime.web.settings import ServiceLimits, Settings

REAL, UNCERTAIN = (-110, 70), (-20, 18)


def judged(client, data: bytes, **query: object) -> dict:
    answer = client.post("/predict", files={"image": ("face.jpg", data)}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert said["title"] in [kind.title for kind in ProblemKind if kind.type == said["type"]]
    assert said["detail"]
    return said["status"], said["type"].removeprefix("/problems/")


def test_a_fake_face_is_told_as_the_article_has_it(client, face):
    said = judged(client, face())
    assert said["prediction"] == 1
    assert said["verdict"] == "fake"
    assert said["score"] > 0.9
    assert said["reason"] is None
    assert len(said["faces"]) == 1
    assert said["faces"][0]["detection"] > 0.5
    assert (said["width"], said["height"]) == (384, 384)
    assert (said["device"], said["precision"], said["model"]) == ("CPU", "fp32", "1.4.0")
    assert said["notice"] is None


def test_a_real_face_is_a_zero(client, face):
    assert judged(client, face(REAL))["prediction"] == 0


def test_where_the_model_is_uncertain_there_is_no_prediction_but_a_reason(client, face):
    said = judged(client, face(UNCERTAIN, seed=4))
    assert (said["prediction"], said["verdict"]) == (None, "uncertain")
    assert said["reason"] == "between the thresholds"
    assert 0.3 < said["score"] < 0.7


def test_without_a_face_there_is_no_verdict(client, no_face):
    said = judged(client, no_face)
    assert (said["prediction"], said["verdict"], said["score"], said["faces"]) == (None, None, None, [])
    assert said["reason"] == "no face found"


def test_of_several_faces_the_highest_score_decides(client, three_faces):
    said = judged(client, three_faces)
    assert [face["verdict"] for face in said["faces"]] == ["fake", "real", "uncertain"]
    assert [face["box"][0] for face in said["faces"]] == sorted(face["box"][0] for face in said["faces"])
    assert said["prediction"] == 1
    assert said["score"] == max(face["score"] for face in said["faces"])


def test_a_face_that_cannot_be_judged_does_not_decide(client, face):
    small = Image.open(io.BytesIO(face(size=192))).resize((72, 72))
    pixels = np.full((384, 768, 3), 140, np.uint8)
    pixels[:, 384:] = np.asarray(Image.open(io.BytesIO(face(REAL))))
    pixels[150:222, 150:222] = np.asarray(small)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    said = judged(client, file.getvalue())
    if len(said["faces"]) == 2:
        assert said["faces"][0]["score"] is None
        assert said["unjudged"] == 1
    assert said["prediction"] == 0


def result(score: float | None, verdict: str) -> FaceResult:
    from edge_runtime.model.contract import Verdict

    return FaceResult((0, 0, 9, 9), 0.9, None, score, Verdict(verdict))


def test_the_decisive_face_is_the_one_with_the_highest_score_of_those_that_have_one():
    small, real, fake = result(None, "uncertain"), result(0.1, "real"), result(0.9, "fake")
    assert decisive_face([small, real, fake]) is fake
    assert decisive_face([small, real]) is real
    assert decisive_face([small]) is small
    assert decisive_face([]) is None


def test_the_service_says_what_the_detector_says(client, detector, three_faces):
    faces = sorted(detector.detect(three_faces).faces, key=lambda face: face.box[0])
    said = judged(client, three_faces)["faces"]
    assert [face["score"] for face in said] == pytest.approx([face.score for face in faces], abs=2e-6)
    assert [face["box"] for face in said] == [list(face.box) for face in faces]


def test_asked_for_the_heat_map_it_says_where_the_model_looked(client, face):
    plain, with_heat = judged(client, face()), judged(client, face(), heat=True)
    assert plain["faces"][0]["heat"] is None
    heat = with_heat["faces"][0].pop("heat")
    assert np.abs(heat["rows"]).max() == 1.0
    left, top, right, bottom = heat["region"]
    assert 0 <= left < right <= 384
    assert 0 <= top < bottom <= 384
    assert with_heat["faces"][0]["score"] == pytest.approx(plain["faces"][0]["score"], abs=1e-6)


def test_a_turned_photograph_is_judged_upright(client, face):
    picture = Image.open(io.BytesIO(face())).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, quality=95)
    said = judged(client, file.getvalue())
    assert said["prediction"] == 1


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_are_read(plain, face, format):
    file = io.BytesIO()
    Image.open(io.BytesIO(face())).save(file, format)
    assert judged(plain, file.getvalue())["prediction"] == 1


def test_a_demonstration_model_says_so_with_every_verdict(opened, demo_detector, face, no_face):
    with opened(demo_detector) as client:
        for data in (face(), no_face):
            assert "demonstration" in judged(client, data)["notice"]


def test_a_batch_keeps_its_order_and_one_bad_picture_does_not_spoil_the_others(client, face, no_face):
    sent = {"a.jpg": face(), "b.txt": b"no picture", "<c>.jpg": face(REAL), "d.jpg": no_face}
    answer = client.post("/predict/batch", files=[("images", item) for item in sent.items()])
    results = answer.json()["results"]
    assert [item["name"] for item in results] == list(sent)
    assert [item["result"] and item["result"]["prediction"] for item in results] == [1, None, 0, None]
    assert results[1]["problem"]["type"] == "/problems/not-a-picture"
    assert [item["problem"] is None for item in results] == [True, False, True, True]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"files": {"image": b"no picture"}}, (422, "not-a-picture")),
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
def test_what_cannot_be_used_is_told_as_a_problem(plain, request_, told):
    assert problem(plain.post("/predict", **request_)) == told


def test_what_is_not_there_is_told_as_a_problem(plain):
    assert problem(plain.get("/nothing")) == (404, "not-found")
    refused = plain.get("/predict")
    assert problem(refused) == (405, "method-not-allowed")
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ProblemKind)
def test_every_problem_has_a_page(plain, kind):
    assert plain.get(kind.type).json()["status"] == kind.status
    assert kind.value in plain.get(kind.type, headers={"Accept": "text/html"}).text


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(opened, whole_detector, side, monkeypatch):
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    monkeypatch.setattr("edge_runtime.web.service.uploads.read_picture", None)
    with opened(whole_detector) as client:
        answer = client.post("/predict", files={"image": file.getvalue()})
    assert len(file.getvalue()) < 100_000
    assert problem(answer) == (413, "too-many-pixels")


def test_more_faces_than_the_limit_are_left_out_and_counted(opened, detector, three_faces):
    with opened(detector, Settings(limits=ServiceLimits(faces=2))) as client:
        said = judged(client, three_faces)
    assert (len(said["faces"]), said["left_out"]) == (2, 1)


def test_a_device_that_fails_is_told_and_readiness_says_so(opened, whole_detector, face, monkeypatch, caplog):
    def fail(pixels: np.ndarray) -> np.ndarray:
        raise DeviceError("the device failed")

    with opened(whole_detector) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        monkeypatch.setattr(whole_detector.engine, "answer", fail)
        monkeypatch.setattr("edge_runtime.web.service.uploads.PROOF_S", 0.0)
        answer = client.post("/predict", files={"image": face()})
        assert problem(answer) == (503, "detector-failed")
        assert answer.headers["retry-after"]
        unready = client.get("/readyz")
        assert problem(unready) == (503, "detector-failed")
        assert unready.headers["retry-after"]
        assert client.get("/healthz").status_code == 200
        monkeypatch.undo()
        assert client.get("/readyz").status_code == 200
    assert "the device failed" in caplog.text


def test_a_detector_that_does_not_answer_in_time_is_told(opened, whole_detector, face, monkeypatch):
    import threading

    held = threading.Event()
    original = whole_detector.engine.answer
    monkeypatch.setattr(whole_detector.engine, "answer", lambda pixels: (held.wait(20), original(pixels))[1])
    with opened(whole_detector, Settings(limits=ServiceLimits(answer_s=0.2))) as client:
        answer = client.post("/predict", files={"image": face()})
        held.set()
    assert problem(answer) == (503, "too-slow")


def test_the_model_tells_its_contract_hashes_and_metrics(client, detector):
    said = client.get("/model").json()
    assert said["contract"]["architecture"] == "colour"
    assert said["contract"]["metrics"]["fp32"]["auc"]["value"] == 0.99
    assert said["files"] == dict(detector.bundle.manifest.files)
    assert (said["device"], said["precision"], said["faces"]) == ("CPU", "fp32", True)


def figures(client) -> dict[str, float]:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_happens_is_counted_for_prometheus(opened, detector, face, three_faces, no_face):
    with opened(detector) as client:
        for data in (face(), three_faces, no_face):
            judged(client, data)
        client.post("/predict", files={"image": b"no picture"})
        counted = figures(client)
    assert counted['deepfake_edge_pictures_total{"verdict": "fake"}'] == 2
    assert counted['deepfake_edge_pictures_total{"verdict": "no_face"}'] == 1
    assert counted['deepfake_edge_faces_total{"verdict": "real"}'] == 1
    assert counted['deepfake_edge_problems_total{"type": "not-a-picture"}'] == 1
    assert counted["deepfake_edge_latency_seconds_count{}"] == 3
    assert counted["deepfake_edge_batch_crops_sum{}"] == 4
    assert counted["deepfake_edge_queue_crops{}"] == 0
    assert counted["process_resident_memory_bytes{}"] > 0


def test_a_failure_and_one_bad_picture_of_many_are_counted_too(opened, whole_detector, face, monkeypatch):
    with opened(whole_detector) as client:
        for path in ("/predict/batch", "/"):
            client.post(path, files=[("images", b"no picture"), ("images", face())])
        monkeypatch.setattr("edge_runtime.web.service.uploads.prepare_face", None)
        assert client.post("/predict", files={"image": face()}).status_code == 500
        counted = figures(client)
    assert counted['deepfake_edge_problems_total{"type": "not-a-picture"}'] == 2
    assert counted['deepfake_edge_problems_total{"type": "internal"}'] == 1


def test_a_monitor_may_ask_for_the_head_alone(served, whole_detector):
    with served(whole_detector) as (host, port):
        for path in ("/healthz", "/readyz", "/", "/model"):
            answer = httpx2.head(f"http://{host}:{port}{path}", timeout=20)
            assert (answer.status_code, answer.content) == (200, b"")
            assert int(answer.headers["content-length"]) > 0
        assert httpx2.head(f"http://{host}:{port}/predict", timeout=20).status_code == 405


def test_neither_pictures_nor_their_names_reach_the_disk_or_the_log(opened, whole_detector, face, monkeypatch, caplog):
    import tempfile

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture would go to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 4_000_000
    with caplog.at_level(logging.DEBUG), opened(whole_detector) as client:
        answer = client.post("/predict", files={"image": ("private-name.png", file.getvalue())})
    assert answer.status_code == 200
    assert "private-name" not in caplog.text

"""The people's side, as a browser without script sees it."""

import html
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from edge_runtime.model.contract import Calibration, ModelContract
from edge_runtime.web.service.uploads import FORMATS

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>.jpg'


def test_the_page_speaks_the_browsers_language(plain):
    english = plain.get("/")
    assert '<html lang="en">' in english.text
    assert "Choose pictures" in english.text
    chinese = plain.get("/", headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"})
    assert '<html lang="zh-Hans">' in chinese.text
    assert "选择图片" in chinese.text
    assert chinese.headers["content-language"] == "zh-Hans"
    assert chinese.headers["vary"] == "Accept-Language"
    assert "选择图片" in plain.get("/?lang=zh-Hans").text


def test_the_page_needs_nothing_from_elsewhere_and_holds_no_inline_script_or_style(plain):
    text = plain.get("/").text
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', text):
        assert address.startswith(("/", "?", "#")), address
        assert not address.startswith("//")
    assert not re.search(r"<script(?![^>]*(?:src=|application/json))", text)
    assert "style=" not in text
    assert not re.search(r"\son\w+=", text)
    for name in re.findall(r'(?:src|href)="(/static/[^"]*)"', text):
        body = plain.get(name)
        assert body.status_code == 200
        assert "http" not in body.text.replace("http://www.w3.org/2000/svg", "")


def test_a_browser_is_told_the_formats_so_that_it_turns_its_own_into_one_of_them(plain):
    accepted = re.search(r'id="choose" accept="([^"]*)"', plain.get("/").text)[1].split(",")
    assert accepted[0] == "image/jpeg"
    assert [name.removeprefix("image/").upper() for name in accepted] == list(FORMATS)


def test_a_verdict_comes_with_what_it_does_and_does_not_prove(plain):
    text = html.unescape(plain.get("/").text)
    assert "It proves nothing" in text
    assert "Demonstration" not in text


def test_a_model_that_takes_the_whole_picture_for_the_face_says_so(plain, client):
    assert "cut to a single face" in plain.get("/").text
    assert "cut to a single face" not in client.get("/").text


def test_a_demonstration_model_has_a_banner_and_a_note_on_every_card(opened, demo_detector, face):
    with opened(demo_detector) as client:
        assert 'class="banner"' in client.get("/").text
        assert "Demonstration" in client.post("/card", files={"image": face()}).text


def test_a_browser_without_script_sends_many_and_sees_all(client, face, three_faces, no_face):
    sent = [("a.jpg", face()), ("b.jpg", three_faces), ("c.jpg", no_face), ("d.jpg", b"broken")]
    answer = client.post("/", files=[("images", item) for item in sent])
    assert answer.status_code == 200
    assert re.findall(r'<li class="card (\w+)" data-result', answer.text) == ["fake", "fake", "no_face", "failed"]
    assert answer.text.count('src="data:image/jpeg;base64,') == 3
    assert "This can&#39;t be read as a picture" in answer.text
    assert answer.text.count('class="box ') == 4


@pytest.mark.parametrize("finds_faces", [True, False])
def test_pictures_of_every_kind_have_a_card_and_those_that_can_not_be_read_one_that_says_so(
    client, plain, face, finds_faces
):
    whole = Image.open(io.BytesIO(face()))
    deep = Image.fromarray(np.asarray(whole.convert("L"), np.uint16) << 8)
    moving = {"save_all": True, "append_images": [whole.rotate(90)]}
    sent = [
        to_bytes(whole.convert("CMYK"), "JPEG"),
        to_bytes(whole.convert("L"), "JPEG"),
        to_bytes(deep, "PNG"),
        to_bytes(whole, "GIF", **moving),
        to_bytes(Image.new("RGB", (1, 1)), "PNG"),
        to_bytes(whole.resize((20_000, 10)), "PNG"),
        face()[:2000],
        b"text",
        to_bytes(Image.new("F", (64, 64)), "TIFF"),
    ]
    files = [("images", (f"{number}.jpg", data)) for number, data in enumerate(sent)]
    answer = (client if finds_faces else plain).post("/", files=files, params={"lang": "en"})
    assert answer.status_code == 200
    kinds = re.findall(r'<li class="card (\w+)" data-result', answer.text)
    assert [kind == "failed" for kind in kinds] == [False] * 6 + [True] * 3


def to_bytes(picture: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def test_a_form_without_a_picture_shows_the_page_again(plain):
    part = 'Content-Disposition: form-data; name="images"; filename=""\r\nContent-Type: application/octet-stream'
    body = f"--b\r\n{part}\r\n\r\n\r\n--b--\r\n"
    answer = plain.post("/", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200
    assert "data-result" not in answer.text


def test_a_card_shows_box_verdict_probability_band_and_heat(client, face):
    text = client.post("/card", files={"image": ("me.jpg", face())}).text
    assert 'class="card fake"' in text
    assert "AI-generated" in text
    assert "Probability of AI-generated" in text
    assert "uncertain between 30 % and 70 %" in text
    assert 'class="heat" href="data:image/png;base64,' in text
    assert 'class="box fake"' in text


def test_a_model_that_is_never_uncertain_says_from_where_on_it_says_fake(opened, whole_detector, face, monkeypatch):
    one_threshold = Calibration(temperature=1.0, low=0.709, high=0.709, fitted=True)
    monkeypatch.setattr(type(whole_detector.engine), "calibration", one_threshold)
    monkeypatch.setattr(ModelContract, "calibration", lambda contract, precision: one_threshold)
    with opened(whole_detector) as client:
        assert "AI-generated from 70.9 % on, real below" in client.post("/card", files={"image": face()}).text


def test_a_card_in_chinese(client, face):
    text = client.post("/card?lang=zh-Hans", files={"image": face((-20, 18), seed=4)}).text
    assert "无法确定" in text
    assert "概率介于两个阈值之间" in text


@pytest.mark.parametrize("path", ["/", "/card"])
def test_names_of_files_are_shown_escaped(client, face, path):
    field = "images" if path == "/" else "image"
    text = client.post(path, files={field: (HOSTILE, face())}).text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_a_picture_that_browsers_do_not_show_comes_back_as_one_that_they_do(plain, face):
    file = io.BytesIO()
    Image.open(io.BytesIO(face())).save(file, "TIFF")
    text = plain.post("/card", files={"image": file.getvalue()}).text
    assert 'src="data:image/jpeg;base64,' in text
    assert 'src=""' in plain.post("/card", files={"image": face()}).text


def test_previews_are_made_by_the_few_threads_that_decode(opened, whole_detector, face, monkeypatch):
    threads = []
    thumbnail = Image.Image.thumbnail

    def watched(*arguments, **options):
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return thumbnail(*arguments, **options)

    monkeypatch.setattr(Image.Image, "thumbnail", watched)
    with opened(whole_detector) as client:
        answer = client.post("/", files={"images": face()})
    assert 'src="data:image/jpeg;base64,' in answer.text
    assert threads == ["picture"]


def test_without_a_camera_the_live_page_says_so(plain):
    answer = plain.get("/live")
    assert answer.status_code == 404
    assert "--camera" in answer.text
    assert plain.get("/live/stream").status_code == 404
    assert 'href="/live"' not in plain.get("/").text


def test_an_uncalibrated_model_says_that_its_scores_are_no_probabilities(opened, whole_detector, monkeypatch):
    monkeypatch.setattr(type(whole_detector.engine), "calibration", Calibration())
    with opened(whole_detector) as client:
        assert "not calibrated" in client.get("/").text

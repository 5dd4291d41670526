"""The pages as a browser without script sees them."""

import base64
import html
import io
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers.jpegs import file_of
from PIL import Image

from edge_runtime.model.contract import Calibration, ModelContract
from edge_runtime.web.service.uploads import readable_formats
from edge_runtime.web.texts import TEXTS, problem_texts

ENGLISH, CHINESE = TEXTS["en"], TEXTS["zh-Hans"]
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>.jpg'


def outcomes(text: str) -> list[str]:
    """Return the outcome of every card in a page."""
    return re.findall(r'<li class="card (\w+)[^"]*" data-result', text)


def test_page_is_in_the_browsers_language(plain):
    assert '<html lang="en">' in plain.get("/").text
    chinese = plain.get("/", headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"})
    assert '<html lang="zh-Hans">' in chinese.text
    assert CHINESE["choose"] in chinese.text
    assert chinese.headers["content-language"] == "zh-Hans"
    assert chinese.headers["vary"] == "Accept-Language"
    assert CHINESE["choose"] in plain.get("/?lang=zh-Hans").text


def test_page_loads_nothing_from_elsewhere(plain):
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


def test_file_chooser_lists_the_accepted_formats(plain):
    accepted = re.search(r'id="choose" accept="([^"]*)"', plain.get("/").text)[1].split(",")
    # Phones convert their own format to the first one if it is missing.
    assert accepted[0] == "image/jpeg"
    assert {"image/png", "image/webp", "image/tiff"} < set(accepted)
    assert ENGLISH["whole"] in plain.get("/").text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, ENGLISH["trained_unknown"]),
        ({"sources": ["ffhq", "<b>"], "generators": ["stylegan"]}, "ffhq, &lt;b&gt;; faces made by stylegan"),
    ],
)
def test_page_names_the_detector_and_its_training(opened, whole_detector, monkeypatch, names, said):
    bundle = whole_detector.bundle
    manifest = replace(bundle.manifest, trained_on=names)
    monkeypatch.setattr(whole_detector, "bundle", replace(bundle, manifest=manifest))
    with opened(whole_detector) as client:
        text = re.search(
            rf'<p class="small detector">\s*{ENGLISH["detector"]}: (.*?)</p>', client.get("/").text, re.DOTALL
        )[1]
    assert text.startswith(f"detector ({ENGLISH['own']}), colour 1.4.0.")
    assert said in text


def test_demonstration_model_is_marked_everywhere(opened, demo_detector, face):
    with opened(demo_detector) as client:
        assert 'class="banner"' in client.get("/").text
        assert ENGLISH["demo"] in client.post("/card", files={"image": face()}).text


def test_several_pictures_are_judged_without_script(client, face, three_faces, no_face):
    sent = [("a.jpg", face()), ("b.jpg", three_faces), ("c.jpg", no_face), ("d.jpg", b"broken")]
    answer = client.post("/", files=[("images", item) for item in sent])
    assert answer.status_code == 200
    assert outcomes(answer.text) == ["fake", "fake", "no_face", "failed"]
    assert answer.text.count('src="data:image/jpeg;base64,') == 3
    assert problem_texts(ENGLISH, files=32, formats=readable_formats().values())["not-a-picture"] in html.unescape(
        answer.text
    )
    assert answer.text.count('class="box ') == 4


@pytest.mark.parametrize("finds_faces", [True, False])
def test_odd_pictures_are_judged_or_refused(client, plain, face, finds_faces):
    whole = Image.open(io.BytesIO(face()))
    deep = Image.fromarray(np.asarray(whole.convert("L"), np.uint16) << 8)
    sent = [
        file_of(whole.convert("CMYK"), "JPEG"),
        file_of(whole.convert("L"), "JPEG"),
        file_of(deep, "PNG"),
        file_of(whole, "GIF", save_all=True, append_images=[whole.rotate(90)]),
        file_of(Image.new("RGB", (1, 1)), "PNG"),
        file_of(whole.resize((20_000, 10)), "PNG"),
        face()[:2000],
        b"text",
        file_of(Image.new("F", (64, 64)), "TIFF"),
    ]
    files = [("images", (f"{number}.jpg", data)) for number, data in enumerate(sent)]
    answer = (client if finds_faces else plain).post("/", files=files)
    assert answer.status_code == 200
    assert [outcome == "failed" for outcome in outcomes(answer.text)] == [False] * 6 + [True] * 3


def test_form_without_a_picture_shows_the_page(plain):
    part = 'Content-Disposition: form-data; name="images"; filename=""\r\nContent-Type: application/octet-stream'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = plain.post("/", content=f"--b\r\n{part}\r\n\r\n\r\n--b--\r\n", headers=headers)
    assert answer.status_code == 200
    assert outcomes(answer.text) == []


def test_thresholds_are_shown(client, opened, whole_detector, face, monkeypatch):
    assert ENGLISH["band"].format(low="0.3", high="0.7") in client.post("/card", files={"image": face()}).text
    single = Calibration(temperature=1.0, low=0.709, high=0.709, fitted=True)
    monkeypatch.setattr(type(whole_detector.engine), "calibration", single)
    monkeypatch.setattr(ModelContract, "calibration", lambda contract, precision: single)
    with opened(whole_detector) as client:
        text = client.post("/card", files={"image": face()}).text
    assert ENGLISH["threshold"].format(high="0.709") in text


@pytest.mark.parametrize(
    ("tint", "verdict", "said"),
    [
        ((60, -90), "fake", "means_fake"),
        ((-110, 70), "real", "means_real"),
        ((-20, 18), "uncertain", "reason_between_thresholds"),
    ],
)
def test_card_says_what_the_verdict_means(client, face, tint, verdict, said):
    data = face(tint, seed=4)
    for query, texts in (("", ENGLISH), ("?lang=zh-Hans", CHINESE)):
        text = html.unescape(client.post(f"/card{query}", files={"image": data}).text)
        assert f'<p class="verdict">{texts[verdict]}</p>' in text
        assert f"<p>{texts[said]}</p>" in text
    drawn = base64.b64decode(re.search(r'class="heat" href="data:image/png;base64,([^"]*)"', text)[1])
    pixels = np.asarray(Image.open(io.BytesIO(drawn))).astype(int)
    shown = pixels[pixels[..., 3] > 60]
    if verdict != "uncertain":
        assert ((shown[:, 0] > shown[:, 2]) == (verdict == "fake")).all()


@pytest.mark.parametrize("path", ["/", "/card"])
def test_file_names_are_escaped(client, face, path):
    field = "images" if path == "/" else "image"
    text = client.post(path, files={field: (HOSTILE, face())}).text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_formats_unknown_to_browsers_get_a_preview(plain, face):
    tiff = file_of(Image.open(io.BytesIO(face())), "TIFF")
    assert 'src="data:image/jpeg;base64,' in plain.post("/card", files={"image": tiff}).text
    assert 'src=""' in plain.post("/card", files={"image": face()}).text


def test_previews_are_made_in_the_decoding_threads(opened, whole_detector, face, monkeypatch):
    threads = []
    thumbnail = Image.Image.thumbnail

    def watched(*arguments, **options):
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return thumbnail(*arguments, **options)

    monkeypatch.setattr(Image.Image, "thumbnail", watched)
    with opened(whole_detector) as client:
        assert 'src="data:image/jpeg;base64,' in client.post("/", files={"images": face()}).text
    assert threads == ["picture"]


def test_live_page_without_a_camera(plain):
    answer = plain.get("/live")
    assert answer.status_code == 404
    assert ENGLISH["live_none"] in answer.text
    assert plain.get("/live/stream").status_code == 404
    assert 'href="/live"' not in plain.get("/").text


def test_uncalibrated_model_is_marked(opened, whole_detector, monkeypatch):
    monkeypatch.setattr(type(whole_detector.engine), "calibration", Calibration())
    with opened(whole_detector) as client:
        assert html.escape(ENGLISH["uncalibrated"], quote=False).replace("'", "&#39;") in client.get("/").text

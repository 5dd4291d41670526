"""The page in a real browser: Chromium, driven as a person would use it."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge_runtime.web.settings import ServiceLimits, Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
REAL, UNCERTAIN = (-110, 70), (-20, 18)
DESKTOP, PHONE = (1280, 900), (390, 844)
SERIOUS = {"serious", "critical"}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def base(served, detector) -> Iterator[str]:
    """A service that finds faces."""
    with served(detector) as (host, port):
        yield f"http://{host}:{port}"


class Told(list):
    """What went wrong in a page: errors of its script, refusals of its policy, requests to elsewhere."""

    def watch(self, page: Page, base: str) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda message: self.append(message.text) if "Security Policy" in message.text else None)
        page.on("request", lambda sent: None if _own(sent.url, base) else self.append(sent.url))


def _own(url: str, base: str) -> bool:
    return url.startswith((base, "blob:", "data:"))


@pytest.fixture
def page(browser, base) -> Iterator[Page]:
    """The page, which must stay without errors and without a request to any other host."""
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]}, locale="en-GB")
    page, told = context.new_page(), Told()
    told.watch(page, base)
    page.goto(base)
    yield page
    context.close()
    assert told == []


@pytest.fixture(scope="module")
def files(face, three_faces, no_face, tmp_path_factory) -> dict[str, Path]:
    """Pictures of every kind, by what is to be said of them."""
    folder = tmp_path_factory.mktemp("pictures")
    contents = {
        "fake": face(),
        "real": face(REAL),
        "uncertain": face(UNCERTAIN, seed=4),
        "three": three_faces,
        "no_face": no_face,
        "broken": three_faces[:3000],
        "text": b"no picture",
    }
    for name, data in contents.items():
        (folder / f"{name}.jpg").write_bytes(data)
    return {name: folder / f"{name}.jpg" for name in contents}


def give(page: Page, *paths: Path) -> None:
    """Choose pictures and wait until all are judged."""
    before = page.locator(".card").count()
    page.set_input_files("#choose", [str(path) for path in paths])
    expect(page.locator(".card:not(.waiting)")).to_have_count(before + len(paths), timeout=20_000)


def verdicts(page: Page) -> list[str]:
    return page.locator(".card .verdict").all_inner_texts()


def test_one_picture_gets_its_verdict_box_and_probability(page, files):
    give(page, files["fake"])
    assert verdicts(page) == ["AI-generated"]
    assert page.locator(".card svg .box").count() == 1
    assert "%" in page.locator(".card .score strong").inner_text()
    shown = page.locator(".card .shown img")
    assert shown.get_attribute("src").startswith("blob:")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 384
    expect(page.locator("#status")).to_have_text("1 of 1 judged")


def test_many_pictures_of_every_kind_are_judged_with_progress(page, files):
    give(page, *files.values())
    assert verdicts(page) == [
        "AI-generated", "Real", "Uncertain", "AI-generated", "No face found", "Not judged", "Not judged",
    ]  # fmt: skip
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [7, 7]
    expect(page.locator("#status")).to_have_text("7 of 7 judged")


def test_three_faces_have_three_numbered_boxes_and_the_highest_decides(page, files):
    give(page, files["three"])
    card = page.locator(".card")
    assert card.locator("svg .box text").all_text_contents() == ["1", "2", "3"]
    assert [text.split()[-1] for text in card.locator(".one").all_inner_texts()] == [
        "AI-generated",
        "Real",
        "Uncertain",
    ]
    assert "highest probability decides" in card.inner_text()


def test_a_picture_without_a_face_says_so_and_a_broken_one_too(page, files):
    give(page, files["no_face"], files["broken"])
    first, second = page.locator(".card").all()
    assert "Without a face there is no verdict" in first.inner_text()
    assert "can't be read as a picture" in second.inner_text()
    assert first.locator(".box").count() == 0


def test_the_boxes_lie_on_the_faces(page, files, detector):
    give(page, files["fake"])
    (found,) = detector.detect(files["fake"].read_bytes()).faces
    image = page.locator(".shown img").bounding_box()
    box = page.locator(".box .line").bounding_box()
    scale = image["height"] / 384
    left = image["x"] + (image["width"] - 384 * scale) / 2
    assert box["x"] == pytest.approx(left + found.box[0] * scale, abs=3)
    assert box["y"] == pytest.approx(image["y"] + found.box[1] * scale, abs=3)
    assert box["width"] == pytest.approx((found.box[2] - found.box[0]) * scale, abs=6)


def test_the_heat_map_goes_on_and_off(page, files):
    give(page, files["fake"])
    heat = page.locator(".heat")
    expect(heat).to_be_hidden()
    page.check("#heat")
    expect(heat).to_be_visible()
    expect(page.get_by_text("speaks for AI-generated")).to_be_visible()
    page.uncheck("#heat")
    expect(heat).to_be_hidden()


def test_everything_is_reached_and_used_by_keyboard_alone(page, files):
    # Asked for before the first key: a browser that is told a moment before Space may open a dialogue of its own.
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "choose"
        page.keyboard.press("Space")
    chooser.value.set_files([str(files["fake"]), str(files["real"])])
    expect(page.locator(".card:not(.waiting)")).to_have_count(2, timeout=20_000)
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id"))
    assert [name for name in reached if name][:4] == ["save-json", "save-csv", "clear", "heat"]
    page.focus("#heat")
    page.keyboard.press("Space")
    expect(page.locator(".heat").first).to_be_visible()
    page.focus("#clear")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(0)
    assert page.evaluate("() => document.activeElement.id") == "choose"


def test_results_are_saved_as_json_and_csv(page, files):
    give(page, files["three"], files["text"])
    with page.expect_download() as saved:
        page.click("#save-json")
    results = json.loads(saved.value.path().read_text(encoding="utf-8"))
    assert [entry["name"] for entry in results] == ["three.jpg", "text.jpg"]
    assert [face["verdict"] for face in results[0]["result"]["faces"]] == ["fake", "real", "uncertain"]
    assert results[1]["problem"] == "not-a-picture"
    with page.expect_download() as saved:
        page.click("#save-csv")
    rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text(encoding="utf-8-sig"))))
    assert [row["verdict"] for row in rows] == ["fake", "real", "uncertain", ""]
    assert float(rows[0]["score"]) == results[0]["result"]["faces"][0]["score"]
    assert rows[3]["problem"] == "not-a-picture"


def test_a_name_that_a_spreadsheet_would_compute_or_a_page_would_run_does_neither(page, files, tmp_path):
    hostile = tmp_path / '=HYPERLINK("x"),<img src=x onerror=alert(1)>.jpg'
    hostile.write_bytes(files["fake"].read_bytes())
    give(page, hostile)
    assert page.locator(".card .name").inner_text() == hostile.name
    with page.expect_download() as saved:
        page.click("#save-csv")
    (row,) = csv.DictReader(io.StringIO(saved.value.path().read_text(encoding="utf-8-sig")))
    assert row["name"] == "'" + hostile.name


@pytest.mark.parametrize("name", ["+1.jpg", "-1.jpg", "@SUM(A1).jpg", "＝1.jpg"])
def test_a_name_that_begins_as_a_formula_is_a_text_in_every_spreadsheet(page, files, tmp_path, name):
    hostile = tmp_path / name
    hostile.write_bytes(files["text"].read_bytes())
    give(page, hostile)
    with page.expect_download() as saved:
        page.click("#save-csv")
    (row,) = csv.DictReader(io.StringIO(saved.value.path().read_text(encoding="utf-8-sig")))
    assert row["name"] == "'" + name


def test_a_spreadsheet_that_splits_at_semicolons_finds_no_formula_behind_one(page, files, tmp_path):
    hostile = tmp_path / "a;=1+1;b.jpg"
    hostile.write_bytes(files["text"].read_bytes())
    give(page, hostile)
    with page.expect_download() as saved:
        page.click("#save-csv")
    lines = saved.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert next(csv.reader(lines[1:], delimiter=";"))[0].startswith(hostile.name)


TRANSFER = """async ([kind, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "given.jpg", { type: "image/jpeg" }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste" ? new ClipboardEvent(kind, { ...options, clipboardData: transfer })
        : new DragEvent(kind, { ...options, dataTransfer: transfer });
    document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page, files, kind):
    page.evaluate(TRANSFER, [kind, list(files["real"].read_bytes())])
    expect(page.locator(".card.real")).to_have_count(1, timeout=20_000)
    assert page.locator(".card .name").inner_text() == "given.jpg"


def test_a_service_that_is_gone_is_told(browser, served, detector, files):
    context = browser.new_context()
    page = context.new_page()
    with served(detector) as (host, port):
        page.goto(f"http://{host}:{port}")
    page.set_input_files("#choose", str(files["fake"]))
    expect(page.locator(".card.failed .why")).to_have_text("The service can't be reached.", timeout=20_000)
    context.close()


def test_an_answer_that_is_no_card_is_told_and_the_next_pictures_are_judged(page, files):
    page.route("**/card", lambda route: route.fulfill(status=200, content_type="text/html", body="<p>Sign in</p>"))
    give(page, files["fake"], files["real"], files["three"])
    assert verdicts(page) == ["Not judged"] * 3
    page.unroute("**/card")
    give(page, files["real"])
    assert verdicts(page)[-1] == "Real"


def test_a_picture_that_is_too_large_is_told(browser, served, detector, files):
    context = browser.new_context()
    page = context.new_page()
    with served(detector, Settings(limits=ServiceLimits(body_bytes=5000))) as (host, port):
        page.goto(f"http://{host}:{port}")
        page.set_input_files("#choose", str(files["fake"]))
        expect(page.locator(".card.failed .why")).to_have_text(
            "The file is too large. Make it smaller.", timeout=20_000
        )
    context.close()


def test_without_script_the_form_does_the_same(browser, base, files):
    context = browser.new_context(java_script_enabled=False, locale="en-GB")
    page = context.new_page()
    page.goto(base)
    page.set_input_files("#choose", [str(files["fake"]), str(files["no_face"])])
    page.click("form.drop button")
    expect(page.locator("#cards .verdict")).to_have_text(["AI-generated", "No face found"])
    page.check("#heat")
    expect(page.locator(".heat")).to_be_visible()
    context.close()


def test_a_browser_signs_in_uses_the_page_and_signs_out(browser, served, detector, files):
    token = "0123456789abcdef0123"
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    with served(detector, Settings(token=token)) as (host, port):
        page.goto(f"http://{host}:{port}/")
        page.fill("#token", "wrong-wrong-wrong-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        page.fill("#token", token)
        with page.expect_navigation(wait_until="load"):
            page.keyboard.press("Enter")
        page.set_input_files("#choose", str(files["fake"]))
        expect(page.locator(".card.fake")).to_have_count(1, timeout=20_000)
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#token")).to_be_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("size", "locale"), [(DESKTOP, "en-GB"), (PHONE, "zh-CN")], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(browser, base, files, size, locale, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    options = {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": scheme, "locale": locale}
    # The test's own script is put into the page, which the page's policy forbids to strangers.
    context = browser.new_context(**options, bypass_csp=True)
    page = context.new_page()
    for address in (base, f"{base}/login"):
        page.goto(address)
        if address == base:
            give(page, *files.values())
            page.check("#heat")
        found = axe.Axe().run(page).response["violations"]
        told = {one["id"]: one["impact"] for one in found}
        assert not SERIOUS & set(told.values()), told
        assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    context.close()


@pytest.fixture
def watched(served, detector, camera, monkeypatch) -> Iterator[str]:
    """A service with a camera."""
    monkeypatch.setattr("edge_runtime.web.app.camera_opener", lambda name: camera.open)
    with served(detector, Settings(camera="0")) as (host, port):
        yield f"http://{host}:{port}"


@pytest.mark.parametrize(("size", "locale"), [(DESKTOP, "en-GB"), (PHONE, "zh-CN")], ids=["desktop", "phone"])
def test_the_live_page_shows_faces_tells_of_a_lost_camera_and_passes_axe(browser, watched, camera, size, locale):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, locale=locale, bypass_csp=True)
    page = context.new_page()
    page.goto(f"{watched}/live", wait_until="commit")
    words = {"en-GB": ("on", "lost, looking for it"), "zh-CN": ("正常", "已断开，正在寻找")}[locale]
    expect(page.locator("#state")).to_have_text(words[0], timeout=20_000)
    expect(page.locator("#faces")).not_to_have_text("–")
    assert page.locator(".watch img").evaluate("image => image.naturalWidth") == 960
    found = {one["id"]: one["impact"] for one in axe.Axe().run(page).response["violations"]}
    assert not SERIOUS & set(found.values()), found
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    camera.lost = True
    expect(page.locator("#state")).to_have_text(words[1], timeout=20_000)
    expect(page.get_by_role("status").filter(has_text="no frame for 5 s")).to_be_visible()
    expect(page.locator("#faces")).to_have_text("–")
    context.close()


def test_the_live_page_comes_back_when_a_service_behind_a_proxy_was_started_again(browser, watched):
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.route("**/live/events", lambda route: route.fulfill(status=502, body="Bad Gateway"))
    page.goto(f"{watched}/live", wait_until="commit")
    expect(page.locator("#state")).to_have_text("The service can't be reached.", timeout=20_000)
    page.unroute("**/live/events")
    expect(page.locator("#state")).to_have_text("on", timeout=20_000)
    expect(page.locator(".watch img")).to_have_attribute("src", re.compile(r"/live/stream\?\d+"))
    context.close()


def test_a_phone_offers_its_camera_and_a_desktop_does_not(browser, base):
    for touch in (True, False):
        context = browser.new_context(has_touch=touch, is_mobile=touch, viewport={"width": 390, "height": 844})
        page = context.new_page()
        page.goto(base)
        assert page.get_by_text("Take a photograph").is_visible() is touch
        assert page.locator("#photograph").get_attribute("capture") == "environment"
        context.close()

"""The pages in a real browser, driven as a person would use them."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from helpers.reviews import keep
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge_runtime.review.database import ReviewDatabase
from edge_runtime.review.desk import ReviewPlaces
from edge_runtime.review.sealing import write_key_pair
from edge_runtime.web.settings import ServiceLimits, Settings
from edge_runtime.web.texts import TEXTS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
REAL, UNCERTAIN = (-110, 70), (-20, 18)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ENGLISH = TEXTS["en"]
SIZES = pytest.mark.parametrize(
    ("viewport", "locale"),
    [pytest.param(DESKTOP, "en-GB", id="desktop"), pytest.param(PHONE, "zh-CN", id="phone")],
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def base(served, detector) -> Iterator[str]:
    """The address of a service that finds faces."""
    with served(detector) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def opened_page(browser) -> Callable[..., AbstractContextManager[Page]]:
    """`with opened_page(**options) as page`: an empty page in a browser of its own."""

    @contextmanager
    def open_page(**options: object) -> Iterator[Page]:
        context = browser.new_context(**{"locale": "en-GB", **options})
        yield context.new_page()
        context.close()

    return open_page


@pytest.fixture
def page(opened_page, base) -> Iterator[Page]:
    """The page, which must cause no script errors, no policy violations and no requests to other hosts."""
    faults = []
    with opened_page(viewport=DESKTOP) as page:
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Security Policy" in message.text else None)
        page.on("request", lambda sent: None if sent.url.startswith((base, "blob:", "data:")) else faults.append(sent))
        page.goto(base)
        yield page
    assert faults == []


@pytest.fixture(scope="module")
def files(face, three_faces, no_face, tmp_path_factory) -> dict[str, Path]:
    """Pictures by expected result."""
    folder = tmp_path_factory.mktemp("pictures")
    contents = {
        "fake": face(),
        "real": face(REAL),
        "uncertain": face(UNCERTAIN, seed=4),
        "three": three_faces,
        "no_face": no_face,
        "broken": three_faces[:3000],
        "text": b"not a picture",
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


def saved_csv(page: Page) -> str:
    with page.expect_download() as saved:
        page.click("#save-csv")
    return saved.value.path().read_text(encoding="utf-8-sig")


def check_accessibility(page: Page) -> None:
    """Run axe, and check that nothing is wider than the screen. The page needs `bypass_csp=True`."""
    page.wait_for_load_state()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    impacts = {one["id"]: one["impact"] for one in axe.Axe().run(page).response["violations"]}
    assert not {"serious", "critical"} & set(impacts.values()), impacts
    assert page.evaluate("() => document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_picture_has_verdict_box_and_probability(page, files, detector):
    give(page, files["fake"])
    assert verdicts(page) == [ENGLISH["fake"]]
    assert page.locator(".card .score strong").inner_text().endswith("0.999")
    expect(page.get_by_text(ENGLISH["means_fake"])).to_be_visible()
    shown = page.locator(".card .shown img")
    assert shown.get_attribute("src").startswith("blob:")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 384
    expect(page.locator("#status")).to_have_text("1 of 1 judged")
    (found,) = detector.detect(files["fake"].read_bytes()).faces
    image, box = shown.bounding_box(), page.locator(".box .line").bounding_box()
    scale = image["height"] / 384
    left = image["x"] + (image["width"] - 384 * scale) / 2
    assert box["x"] == pytest.approx(left + found.box[0] * scale, abs=3)
    assert box["y"] == pytest.approx(image["y"] + found.box[1] * scale, abs=3)
    assert box["width"] == pytest.approx((found.box[2] - found.box[0]) * scale, abs=6)
    heat = page.locator(".heat")
    expect(heat).to_be_hidden()
    page.check("#heat")
    expect(heat).to_be_visible()
    expect(page.get_by_text(ENGLISH["heat_fake"])).to_be_visible()


def test_many_pictures_are_judged_with_progress(page, files):
    give(page, *files.values())
    expected = ("fake", "real", "uncertain", "fake", "no_face", "failed", "failed")
    assert verdicts(page) == [ENGLISH[key] for key in expected]
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [7, 7]
    expect(page.locator("#status")).to_have_text("7 of 7 judged")
    assert ENGLISH["no_face_hint"] in page.locator(".card.no_face").inner_text()
    assert "JPEG" in page.locator(".card.failed .why").first.inner_text()


def test_three_faces_are_numbered(page, files):
    give(page, files["three"])
    card = page.locator(".card")
    assert card.locator("svg .box text").all_text_contents() == ["1", "2", "3"]
    words = [text.split()[-1] for text in card.locator(".one").all_inner_texts()]
    assert words == [ENGLISH[key] for key in ("fake", "real", "uncertain")]
    assert ENGLISH["highest"] in card.inner_text()


def test_page_is_usable_by_keyboard(page, files):
    # Expected before the first key: Space may otherwise open a dialogue of the browser's own.
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


def test_results_are_saved(page, files):
    give(page, files["three"], files["text"])
    with page.expect_download() as saved:
        page.click("#save-json")
    results = json.loads(saved.value.path().read_text(encoding="utf-8"))
    assert [entry["name"] for entry in results] == ["three.jpg", "text.jpg"]
    assert [face["verdict"] for face in results[0]["result"]["faces"]] == ["fake", "real", "uncertain"]
    assert results[1]["problem"] == "not-a-picture"
    rows = list(csv.DictReader(io.StringIO(saved_csv(page))))
    assert [row["verdict"] for row in rows] == ["fake", "real", "uncertain", ""]
    assert float(rows[0]["score"]) == results[0]["result"]["faces"][0]["score"]
    assert rows[3]["problem"] == "not-a-picture"


def test_names_are_neither_formulas_nor_markup(page, tmp_path):
    formulas = ['=HYPERLINK("x"),<img src=x onerror=alert(1)>.jpg', "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "＝1.jpg"]
    names = [*formulas, "a;=1+1;b.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"not a picture")
    give(page, *(tmp_path / name for name in names))
    assert page.locator(".card .name").all_inner_texts() == names
    saved = saved_csv(page)
    assert [row["name"] for row in csv.DictReader(io.StringIO(saved))] == [f"'{name}" for name in formulas] + names[-1:]
    assert list(csv.reader(saved.splitlines(), delimiter=";"))[-1][0].startswith(names[-1])


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


def test_stopped_service_is_reported(opened_page, served, detector, files):
    with opened_page() as page:
        with served(detector) as (host, port):
            page.goto(f"http://{host}:{port}")
        page.set_input_files("#choose", str(files["fake"]))
        expect(page.locator(".card.failed .why")).to_have_text(ENGLISH["problem_offline"], timeout=20_000)


def test_foreign_answer_is_reported(page, files):
    page.route("**/card", lambda route: route.fulfill(status=200, content_type="text/html", body="<p>Sign in</p>"))
    give(page, files["fake"], files["real"], files["three"])
    assert verdicts(page) == [ENGLISH["failed"]] * 3
    page.unroute("**/card")
    give(page, files["real"])
    assert verdicts(page)[-1] == ENGLISH["real"]


def test_form_works_without_script(opened_page, base, files):
    with opened_page(java_script_enabled=False) as page:
        page.goto(base)
        page.set_input_files("#choose", [str(files["fake"]), str(files["no_face"])])
        page.click("form.drop button")
        expect(page.locator("#cards .verdict")).to_have_text([ENGLISH["fake"], ENGLISH["no_face"]])
        page.check("#heat")
        expect(page.locator(".heat")).to_be_visible()


def test_browser_signs_in_and_out(opened_page, served, detector, files):
    token = "0123456789abcdef0123"
    with opened_page() as page, served(detector, Settings(token=token)) as (host, port):
        page.goto(f"http://{host}:{port}/")
        page.fill("#token", "wrong-wrong-wrong-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        page.fill("#token", token)
        with page.expect_navigation(wait_until="load"):
            page.keyboard.press("Enter")
        page.set_input_files("#choose", str(files["fake"]))
        expect(page.locator(".card.fake")).to_have_count(1, timeout=20_000)
        page.get_by_role("button", name=ENGLISH["sign_out"]).click()
        expect(page.locator("#token")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@SIZES
def test_pages_are_accessible(opened_page, base, files, viewport, locale, scheme):
    with opened_page(viewport=viewport, locale=locale, color_scheme=scheme, bypass_csp=True) as page:
        page.goto(base)
        give(page, *files.values())
        page.check("#heat")
        check_accessibility(page)
        page.goto(f"{base}/login")
        check_accessibility(page)


@pytest.fixture
def watched(served, detector, camera, monkeypatch) -> Iterator[str]:
    """The address of a service with a camera."""
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
    with served(detector, Settings(camera="0")) as (host, port):
        yield f"http://{host}:{port}"


@SIZES
def test_live_page_shows_faces_and_losses(opened_page, watched, camera, viewport, locale):
    texts = TEXTS["en" if locale == "en-GB" else "zh-Hans"]
    with opened_page(viewport=viewport, locale=locale, bypass_csp=True) as page:
        page.goto(f"{watched}/live", wait_until="commit")
        expect(page.locator("#state")).to_have_text(texts["state_ok"], timeout=20_000)
        expect(page.locator("#faces")).not_to_have_text("–")
        assert page.locator("#picture").evaluate("image => image.naturalWidth") == 960
        check_accessibility(page)
        camera.lost = True
        expect(page.locator("#state")).to_have_text(texts["state_lost"], timeout=20_000)
        expect(page.get_by_role("status").filter(has_text="no frame for 5 s")).to_be_visible()
        expect(page.locator("#faces")).to_have_text("–")
        expect(page.locator("#picture")).to_be_hidden()


def test_live_page_reconnects_after_a_proxy_error(opened_page, watched):
    with opened_page() as page:
        page.route("**/live/events*", lambda route: route.fulfill(status=502, body="Bad Gateway"))
        page.goto(f"{watched}/live", wait_until="commit")
        expect(page.locator("#state")).to_have_text(ENGLISH["problem_offline"], timeout=20_000)
        page.unroute("**/live/events*")
        expect(page.locator("#state")).to_have_text(ENGLISH["state_ok"], timeout=20_000)
        expect(page.locator("#picture")).to_be_visible()


def test_live_page_says_that_too_many_watch(opened_page, served, detector, camera, monkeypatch):
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
    settings = Settings(camera="0", limits=ServiceLimits(viewers=1))
    with opened_page() as one, opened_page() as two, served(detector, settings) as (host, port):
        one.goto(f"http://{host}:{port}/live", wait_until="commit")
        expect(one.locator("#state")).to_have_text(ENGLISH["state_ok"], timeout=20_000)
        two.goto(f"http://{host}:{port}/live", wait_until="commit")
        expect(two.locator("#state")).to_have_text(ENGLISH["problem_too-many-requests"], timeout=20_000)


@pytest.mark.parametrize("touch", [True, False])
def test_only_phones_offer_their_camera(opened_page, base, touch):
    with opened_page(has_touch=touch, is_mobile=touch, viewport=PHONE) as page:
        page.goto(base)
        assert page.get_by_text(ENGLISH["photograph"]).is_visible() is touch
        assert page.locator("#photograph").get_attribute("capture") == "environment"


@pytest.fixture
def review(served, whole_detector, tmp_path) -> Iterator[tuple[str, ReviewPlaces]]:
    """The address of a review page with five encrypted faces, and where it keeps the reviews."""
    keep(tmp_path / "kept", [write_key_pair(tmp_path / "key")], range(5))
    places = ReviewPlaces(tmp_path / "kept", tmp_path / "key")
    with served(whole_detector, Settings(review=places)) as (host, port):
        yield f"http://{host}:{port}/review", places


def test_faces_are_reviewed_by_keys(opened_page, review):
    address, places = review
    with opened_page() as page:
        page.goto(address)
        page.keyboard.type("Ann fruz")
        page.keyboard.press("Enter")
        done = page.locator("#progress")
        for key, before in zip("rfuszf", (0, 1, 2, 3, 4, 3), strict=True):
            expect(done).to_have_text(ENGLISH["review_progress"].format(done=before, all=5))
            page.wait_for_load_state()
            page.keyboard.press(key)
        expect(done).to_have_text(ENGLISH["review_progress"].format(done=4, all=5))
    reviews = ReviewDatabase(places.folder / "reviews.sqlite").reviews()
    assert [one.label.value for one in reviews] == ["real", "fake", "unusable", "fake"]
    assert {one.reviewer for one in reviews} == {"Ann fruz"}


@SIZES
def test_review_page_fits_and_is_accessible(opened_page, review, viewport, locale):
    texts, scheme = (TEXTS["zh-Hans"], "dark") if locale == "zh-CN" else (ENGLISH, "light")
    with opened_page(viewport=viewport, locale=locale, color_scheme=scheme, bypass_csp=True) as page:
        page.goto(review[0])
        check_accessibility(page)
        page.fill("#name", "Ann")
        page.get_by_role("button", name=texts["review_start"]).click()
        check_accessibility(page)
        face, box = page.locator("#face").bounding_box(), page.locator(".box .line").bounding_box()
        # Half as wide as the picture, since as much is kept around a face.
        assert box["width"] == pytest.approx(face["height"] / 2, rel=0.03)
        assert box["x"] + box["width"] / 2 == pytest.approx(face["x"] + face["width"] / 2, abs=3)
        for label in ("real", "fake", "unusable", "skip"):
            expect(page.locator(f".answers [value={label}]")).to_be_in_viewport(ratio=1)
        page.locator(".answers [value=fake]").click()
        expect(page.locator("#progress")).to_have_text(texts["review_progress"].format(done=1, all=5))

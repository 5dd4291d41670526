import shutil

import pytest
from playwright.sync_api import sync_playwright

from train.report.html import Section, Table, write_report
from train.report.plots import training_curves

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

MEASURE = """() => ({
    page: document.documentElement.scrollWidth,
    plots: [...document.querySelectorAll("img.plot")].map(image => image.getBoundingClientRect().width),
    filter: getComputedStyle(document.querySelector("img.plot")).filter,
    tables: [...document.querySelectorAll(".table")].map(table => [table.clientWidth, table.scrollWidth]),
})"""


def test_reports_fit_a_phone_in_dark_mode(tmp_path):
    history = [{"epoch": epoch, "train_loss": 1 / epoch, "auc": 0.9} for epoch in (1, 2, 3)]
    wide = Table([f"figure {index}" for index in range(12)], [["0.812 (0.790–0.834)"] * 12])
    write_report(tmp_path / "report.html", "A run", [Section("Training", [training_curves(history), wide])])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.goto((tmp_path / "report.html").as_uri())
        found = page.evaluate(MEASURE)
        browser.close()
    assert found["page"] == 390
    assert len(found["plots"]) == 3
    assert min(found["plots"]) > 340
    assert "invert" in found["filter"]
    ((shown, whole),) = found["tables"]
    assert shown < 390 < whole

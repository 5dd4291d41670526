from html.parser import HTMLParser

import pytest

from train.report.html import Gallery, Picture, Section, Table, figure_text, write_report

PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture
def report(tmp_path):
    table = Table(("file", "score"), [("<script>alert(1)</script>.jpg", 0.5), ("a|b", "1")], "Scores & more")
    write_report(
        tmp_path / "out" / "report.html",
        "A <b> title",
        [
            Section("First", ["Text < more", table]),
            Section("Second", [Picture(PNG, "a face", photo=True), Gallery([Picture(PNG, "a curve")])]),
        ],
    )
    return (tmp_path / "out" / "report.html").read_text(), (tmp_path / "out" / "report.md").read_text()


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_text_is_escaped(report):
    assert "<script>" not in report[0]
    assert "<script>" not in report[1]
    assert "&lt;script&gt;" in report[0]


def test_nothing_is_loaded_from_outside(report):
    for tag, attributes in Tags(report[0]).seen:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_only_plots_are_inverted_in_dark_mode(report):
    pictures = [a for tag, a in Tags(report[0]).seen if tag == "img"]
    assert [(a["alt"], a.get("class")) for a in pictures] == [("a face", None), ("a curve", "plot")]
    assert "a face" in report[1]
    assert "a curve" in report[1]


def test_the_markdown_twin_has_the_same_tables(report):
    assert "| file | score |" in report[1]
    assert "a\\|b" in report[1]
    assert "## First" in report[1]


def test_a_figure_shows_its_interval():
    assert figure_text({"value": 0.98, "low": 0.97, "high": 0.99}, 2) == "0.98 (0.97–0.99)"
    assert figure_text(dict.fromkeys(("value", "low", "high"), float("nan"))) == "none"
    assert figure_text({"value": 1.0, "low": 1.0, "high": 1.0}) == "1.000"

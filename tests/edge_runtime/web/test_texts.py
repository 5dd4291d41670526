"""The page's texts in two languages."""

import re

import pytest

from edge_runtime.judging.results import Reason
from edge_runtime.model.contract import Verdict
from edge_runtime.web.http.problems import ProblemKind
from edge_runtime.web.texts import TEXTS, choose_language, score_text, threshold_text

PLACEHOLDERS = re.compile(r"\{\w+\}")
NEEDED = [f"problem_{kind.value}" for kind in ProblemKind if kind is not ProblemKind.INTERNAL]
NEEDED += [*(f"reason_{reason.value}" for reason in Reason), *(verdict.value for verdict in Verdict)]


def test_languages_have_the_same_texts():
    english, chinese = TEXTS["en"], TEXTS["zh-Hans"]
    assert english.keys() == chinese.keys()
    assert english.keys() >= set(NEEDED)
    for key, text in english.items():
        assert sorted(PLACEHOLDERS.findall(text)) == sorted(PLACEHOLDERS.findall(chinese[key])), key


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "en"),
        ("zh", "zh-Hans"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("de,en;q=0.3,zh-TW;q=0.5", "zh-Hans"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=x,,;q=1", "en"),
        ("*", "en"),
    ],
)
def test_browser_language_is_chosen(accepted, language):
    assert choose_language(accepted) == language


def test_requested_language_wins_if_known():
    assert choose_language("en", "zh-Hans") == "zh-Hans"
    assert choose_language("zh", "en") == "en"
    assert choose_language("zh", "../../etc") == "zh-Hans"


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0.0, "< 0.001"), (0.0004, "< 0.001"), (0.1234, "0.123"), (0.9995, "> 0.999"), (1.0, "> 0.999")],
)
def test_no_score_is_shown_as_certain(score, shown):
    assert score_text(score) == shown


def test_thresholds_near_the_ends_stay_exact():
    assert [threshold_text(value) for value in (0.3, 0.0023, 0.9995, 1.0)] == ["0.3", "0.0023", "0.9995", "1"]

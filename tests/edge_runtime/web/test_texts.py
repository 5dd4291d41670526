"""The page's words in two languages."""

import re

import pytest

from edge_runtime.judging import decide
from edge_runtime.judging.results import Reason
from edge_runtime.web.http.problems import KINDS
from edge_runtime.web.texts import TEXTS, choose_language, percent, problem_text, reason_text, threshold_percent

PLACES = re.compile(r"\{\w+\}")


def test_both_languages_say_the_same_things():
    english, chinese = TEXTS["en"], TEXTS["zh-Hans"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert sorted(PLACES.findall(text)) == sorted(PLACES.findall(chinese[key])), key
        assert text
        assert chinese[key]


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
def test_the_browsers_language_is_spoken(accepted, language):
    assert choose_language(accepted) == language


def test_a_language_that_was_asked_for_wins_and_an_unknown_one_does_not():
    assert choose_language("en", "zh-Hans") == "zh-Hans"
    assert choose_language("zh", "en") == "en"
    assert choose_language("zh", "../../etc") == "zh-Hans"


def test_no_score_is_shown_as_certainty():
    assert [percent(score) for score in (0.0, 0.0004, 0.1234, 0.9995, 1.0)] == [
        "< 0.1 %",
        "< 0.1 %",
        "12.3 %",
        "> 99.9 %",
        "> 99.9 %",
    ]
    assert threshold_percent(0.3) == "30 %"
    assert threshold_percent(0.0023) == "0.23 %"


def test_the_runtimes_reasons_have_words_of_their_own():
    chinese = TEXTS["zh-Hans"]
    for reason in Reason:
        english = decide.reason_text(reason)
        assert reason_text(chinese, english) != chinese["reason_other"].format(reason=english)
    assert "sideways" in reason_text(chinese, "sideways")


def test_every_problem_has_words_of_its_own_but_a_failure_which_the_log_explains():
    texts = TEXTS["en"]
    unexplained = [name for name in KINDS if problem_text(texts, name) == texts["problem_other"]]
    assert unexplained == ["internal"]

import numpy as np
import pytest
from sklearn import metrics as sk

from edge_runtime.errors import DataError
from train.evaluation.metrics import auc, auc_figure, measure, measure_decided, paired_bootstrap
from train.report.html import figure_text


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + random.normal(0, 1.5, 400))))
    return labels, scores


def test_figures_match_scikit_learn(data):
    labels, scores = data
    figures = {name: figure["value"] for name, figure in measure(labels, scores, threshold=0.6, bootstrap=0).items()}
    called = scores >= 0.6
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "precision": sk.precision_score(labels, called),
        "recall": sk.recall_score(labels, called),
        "f1": sk.f1_score(labels, called),
        "auc": sk.roc_auc_score(labels, scores),
        "average_precision": sk.average_precision_score(labels, scores),
        "brier": sk.brier_score_loss(labels, scores),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert [figures[name] for name in ("tn", "fp", "fn", "tp")] == list(sk.confusion_matrix(labels, called).ravel())


def test_rates_keep_their_limit(data):
    labels, scores = data
    figures = measure(labels, scores, bootstrap=0)
    for name, limit in (("tpr_at_1_fpr", 0.01), ("tpr_at_5_fpr", 0.05)):
        fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
        assert figures[name]["value"] == pytest.approx(tpr[fpr <= limit].max())


def test_the_equal_error_rate_balances_errors():
    scores = np.linspace(0, 1, 1000)
    labels = (np.arange(1000) % 2).astype(int)
    assert measure(labels, scores, bootstrap=0)["eer"]["value"] == pytest.approx(0.5, abs=0.01)
    assert measure([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], bootstrap=0)["eer"]["value"] == 0.0


def test_a_perfect_ranking_has_a_bound():
    few = measure([0] * 20 + [1] * 90, np.linspace(0, 1, 110), bootstrap=20)["auc"]
    assert (few["value"], few["high"]) == (1.0, 1.0)
    assert few["low"] == pytest.approx(0.05 ** (1 / 20))
    assert auc_figure([0] * 20 + [1] * 90, np.linspace(0, 1, 110), bootstrap=20) == few
    wrong = measure([0] * 20 + [1] * 90, np.linspace(1, 0, 110), bootstrap=20)["auc"]
    assert (wrong["low"], wrong["high"]) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))


def test_no_figure_of_perfect_faces_is_exact():
    found = measure([0] * 20 + [1] * 20, [0.1] * 20 + [0.9] * 20, bootstrap=20)
    for name in ("balanced_accuracy", "f1", "average_precision", "auc", "recall"):
        assert (found[name]["low"], found[name]["high"]) == (pytest.approx(0.05 ** (1 / 20)), 1.0), name
    every = measure([0] * 20 + [1] * 20, [0.9] * 40, bootstrap=20)["balanced_accuracy"]
    assert every["value"] == 0.5
    assert every["low"] == pytest.approx(0.05 ** (1 / 20) - 0.5)


def frames(people: int, each: int = 50) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, scores and groups of frames of `people` of each class."""
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], people * each)
    scores = np.clip(0.35 + 0.3 * labels + random.normal(0, 0.2, len(labels)), 0, 1)
    return labels, scores, [str(index // each) for index in range(len(labels))]


def test_one_person_of_a_class_bounds_nothing():
    labels, scores, groups = frames(1)
    found = measure(labels, scores, bootstrap=50, groups=groups)
    found |= measure_decided(labels, scores, low=0.3, high=0.7, bootstrap=50, groups=groups)
    for name in ("auc", "accuracy", "brier", "coverage", "fpr"):
        assert (found[name]["low"], found[name]["high"], found[name]["groups"]) == (0.0, 1.0, 1.0), name
        assert figure_text(found[name]) == f"{found[name]['value']:.3f} (bounds unknown: only 1 group)"
    assert "groups" not in found["fp"]
    enough = auc_figure(*frames(5)[:2], groups=frames(5)[2], bootstrap=50)
    assert enough["low"] > 0.5
    assert "groups" not in enough


def test_bounds_count_people_instead_of_frames():
    labels, _, groups = frames(10)
    found = measure(labels, labels * 0.8, bootstrap=20, groups=groups)
    found |= measure_decided(labels, labels * 0.8, low=0.1, high=0.7, bootstrap=20, groups=groups)
    assert found["recall"]["low"] == found["auc"]["low"] == pytest.approx(0.05 ** (1 / 10))
    assert found["fpr"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.05 ** (1 / 10)), "of": 500.0}


def test_calibrated_scores_have_no_calibration_error():
    random = np.random.default_rng(1)
    scores = random.random(20_000)
    labels = (random.random(20_000) < scores).astype(int)
    assert measure(labels, scores, bootstrap=0)["ece"]["value"] < 0.02
    assert measure(labels, np.where(scores > 0.5, 1.0, 0.0), bootstrap=0)["ece"]["value"] > 0.2


def test_auc_shows_what_accuracy_hides():
    labels = np.repeat([0, 1], 100)
    scores = np.where(labels == 1, 0.2, 0.1)
    figures = measure(labels, scores, bootstrap=0)
    assert figures["accuracy"]["value"] == 0.5
    assert figures["auc"]["value"] == 1.0


def test_intervals_hold_the_value_and_narrow(data):
    labels, scores = data
    once, again = measure(labels, scores, bootstrap=60), measure(labels, scores, bootstrap=60)
    assert once == again
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in once.values())
    fewer = measure(labels[:60], scores[:60], bootstrap=60)
    assert fewer["auc"]["high"] - fewer["auc"]["low"] > once["auc"]["high"] - once["auc"]["low"]


def test_intervals_widen_with_groups(data):
    labels, scores = data
    alone = measure(np.tile(labels, 5), np.tile(scores, 5), bootstrap=60)["auc"]
    people = [str(index) for index in np.tile(np.arange(len(labels)), 5)]
    together = measure(np.tile(labels, 5), np.tile(scores, 5), bootstrap=60, groups=people)["auc"]
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_one_class_alone_has_no_auc():
    figures = measure([1, 1, 1], [0.9, 0.8, 0.2], bootstrap=10)
    assert np.isnan(figures["auc"]["value"])
    assert figures["tp"]["value"] == 2
    assert np.isnan(auc([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize(("labels", "scores"), [([], []), ([0, 1], [0.5]), ([0, 1], [0.5, float("nan")])])
def test_unmeasurable_scores_are_refused(labels, scores):
    with pytest.raises(DataError):
        measure(labels, scores)


def test_two_detectors_are_compared_on_the_same_faces(data):
    labels, scores = data
    noisy = scores + np.random.default_rng(5).normal(0, 0.5, len(scores))
    worse = paired_bootstrap(labels, scores, noisy, bootstrap=60)
    assert worse["high"] < 0
    assert paired_bootstrap(labels, scores, scores, bootstrap=50) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_decisions_at_two_thresholds_are_counted():
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    scores = [0.1, 0.2, 0.5, 0.9, 0.1, 0.6, 0.8, 0.95]
    figures = measure_decided(labels, scores, low=0.2, high=0.8, bootstrap=0)
    values = {name: figure["value"] for name, figure in figures.items()}
    assert values == pytest.approx({"fpr": 0.25, "fnr": 0.25, "coverage": 0.75, "error": 1 / 3, "accuracy": 2 / 3})

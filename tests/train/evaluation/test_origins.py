import csv
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Calibration
from train.data.catalog import FaceRecord
from train.evaluation.evaluation import JudgedFaces
from train.evaluation.metrics import measure_decided
from train.evaluation.origins import origin_figures, parse_kinds, parse_pairs
from train.report.evaluation import origin_tables, write_scores
from train.report.html import figure_text

MARGINS = {(0, "ffhq"): -4, (0, "dfdc"): 0, (1, "sdxl"): 4, (1, "swap"): 1}
"""Mean logit of fake − logit of real for a label and a source."""


@pytest.fixture(scope="module")
def judged():
    random, faces, logits = np.random.default_rng(0), [], []
    for (label, name), margin in MARGINS.items():
        for index in range(20):
            path, mark = Path(f"/{name}/{index}.jpg"), f"{random.integers(2**62):016x}"
            faces.append(FaceRecord(path, label, "test", name, name * label, "", None, mark, mark, 64, 64, 1.0))
            logits.append((0.0, margin + random.normal()))
    return JudgedFaces(tuple(faces), np.float32(logits), Calibration(low=0.3, high=0.7, fitted=True))


def test_origins_are_measured_against_their_pairs(judged):
    found = origin_figures(judged, ("source", "generator"), parse_pairs(["swap:dfdc", "sdxl:ffhq"]), 20)
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["against"] for name, row in rows.items()} == {
        "dfdc": ["swap"],
        "ffhq": ["sdxl"],
        "sdxl": ["ffhq"],
        "swap": ["dfdc"],
    }
    assert all((row["real"], row["fake"]) == (20, 20) for row in rows.values())
    swaps = [index for index, face in enumerate(judged.faces) if face.source in ("swap", "dfdc")]
    expected = measure_decided(judged.labels[swaps], judged.scores[swaps], low=0.3, high=0.7, bootstrap=0)
    assert rows["swap"]["error"]["value"] == expected["error"]["value"] > 0.1
    assert rows["sdxl"]["auc"]["value"] == 1.0 > rows["swap"]["auc"]["value"]
    assert rows["swap"]["auc"]["low"] < rows["swap"]["auc"]["value"] < rows["swap"]["auc"]["high"]
    for figure, values in (("auc", min), ("error", max)):
        both = [rows[name][figure]["value"] for name in ("sdxl", "swap")]
        assert found["worst"]["generator"][figure]["value"] == values(both)
        assert found["mean"]["generator"][figure]["value"] == pytest.approx(sum(both) / 2)
    sources, generators = origin_tables(found)
    assert [row[0] for row in sources.rows] == ["dfdc", "ffhq", "mean", "worst"]
    assert [row[0] for row in generators.rows] == ["sdxl", "swap", "mean", "worst"]


def test_without_pairs_all_of_the_other_class_count(judged):
    (row,) = (row for row in origin_figures(judged, ("source",), {}, 0)["rows"] if row["name"] == "ffhq")
    assert (row["against"], row["real"], row["fake"]) == ([], 20, 40)
    assert figure_text(row["fpr"]) == "0 of 20 (at most 14 %)"


def test_no_error_has_the_bound_of_clopper_and_pearson():
    figures = measure_decided([0] * 20 + [1] * 300, [0.1] * 20 + [0.9] * 300, low=0.3, high=0.7, bootstrap=10)
    assert figures["fpr"]["high"] == pytest.approx(1 - 0.05 ** (1 / 20))
    assert figures["accuracy"]["low"] == pytest.approx(0.05 ** (1 / 320))
    assert figure_text(figures["fnr"]) == "0 of 300 (at most 0.99 %)"


def test_unusable_kinds_and_pairs_are_named(judged):
    with pytest.raises(UsageError, match="--by source,age"):
        parse_kinds("source,age")
    for text in ("swap", "swap:", "a:b:c"):
        with pytest.raises(UsageError, match=f"--pairs {text}"):
            parse_pairs([text])
    for text, message in (("dalle:dfdc", "dalle is not a generator .* sdxl, swap"), ("swap:celeba", "celeba is not")):
        with pytest.raises(UsageError, match=message):
            origin_figures(judged, ("generator",), parse_pairs([text]), 0)


def test_scores_are_written_face_by_face(judged, tmp_path):
    write_scores(tmp_path / "new" / "scores.csv", judged, splits=True)
    with (tmp_path / "new" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "source", "split", "group", "logits", "score", "verdict"]
    assert [(row["file"], row["label"], row["source"]) for row in rows[::20]] == [
        (f"/{name}/0.jpg", ("real", "fake")[label], name) for label, name in MARGINS
    ]
    logits = [[float(logit) for logit in row["logits"].split()] for row in rows]
    assert np.array_equal(np.float32(logits), judged.logits)
    assert [float(row["score"]) for row in rows] == list(judged.scores)
    verdicts = [judged.calibration.verdict(score).value for score in judged.scores]
    assert [row["verdict"] for row in rows] == verdicts
    assert set(verdicts) == {"real", "uncertain", "fake"}

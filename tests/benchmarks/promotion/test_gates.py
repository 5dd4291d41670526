import numpy as np
import pytest

from benchmarks.promotion.gates import ALL, ALLOWED, accuracy_gates, machine_gate, parse_allowed
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Calibration
from train.data.catalog import FaceRecord
from train.evaluation.evaluation import JudgedFaces

CALIBRATION = Calibration(low=0.3, high=0.7, fitted=True)


def record(number, label, source="studio", identity=""):
    return FaceRecord(
        path=f"{number}.png",
        label=label,
        split="test",
        source=source,
        generator="",
        identity=identity,
        box=None,
        sha256=f"{number:064x}",
        phash="",
        width=64,
        height=64,
        sharpness=100.0,
    )


def judged(faces, margins):
    margins = np.asarray(margins, dtype=np.float32)
    return JudgedFaces(tuple(faces), np.column_stack([-margins / 2, margins / 2]), CALIBRATION)


@pytest.fixture
def faces():
    """600 faces: two studios of both classes, and a door that saw real faces alone."""
    kinds = [("studio", 0), ("studio", 1), ("street", 0), ("street", 1), ("door", 0)]
    return [record(number, label, source) for number, (source, label) in enumerate(kinds * 120)]


def margins_of(faces, seed=0):
    noise = np.random.default_rng(seed).normal(0.0, 0.4, len(faces))
    return np.array([4.0 if face.label else -4.0 for face in faces]) + noise


def failing(found):
    return {(gate.figure, gate.where) for gate in found[0] if not gate.passed}


def test_equal_detectors_pass(faces):
    same = judged(faces, margins_of(faces))
    gates, small = accuracy_gates(same, same, ALLOWED, 100)
    assert not small
    assert all(gate.passed and gate.loss["value"] == 0.0 for gate in gates)
    assert {gate.where for gate in gates} == {ALL, "studio", "street", "door"}
    # The door has no fakes of its own: its AUC is against all fakes, and it has no ECE.
    assert {gate.figure for gate in gates if gate.where == "door"} == {"auc", "error", "coverage"}


def test_source_that_got_worse_is_named(faces):
    """One real face in twelve at the door becomes fake: 10 of 600 faces are too few to fail the error over all."""
    old = margins_of(faces)
    new = old.copy()
    door = [index for index, face in enumerate(faces) if face.source == "door"][::12]
    new[door] = 4.0
    found = accuracy_gates(judged(faces, old), judged(faces, new), {**ALLOWED, "error": 0.03, "auc": 0.05}, 300)
    assert ("error", "door") in failing(found)
    assert ("error", "street") not in failing(found)
    gate = next(gate for gate in found[0] if (gate.figure, gate.where) == ("error", "door"))
    assert gate.loss["value"] == pytest.approx(10 / 120)
    assert (gate.old, gate.new) == (0.0, pytest.approx(10 / 120))


def test_less_coverage_fails_and_more_passes(faces):
    old = margins_of(faces)
    new = np.where(np.arange(len(faces)) % 5 == 0, 0.0, old)
    assert ("coverage", ALL) in failing(accuracy_gates(judged(faces, old), judged(faces, new), ALLOWED, 100))
    better = accuracy_gates(judged(faces, new), judged(faces, old), {**ALLOWED, "auc": 0.013}, 100)
    assert not failing(better)
    losses = {gate.figure: gate.loss for gate in better[0] if gate.where == ALL}
    assert losses["coverage"]["value"] == pytest.approx(-0.2)
    # What 600 faces, and 240 fakes, prove without a loss.
    assert losses["coverage"]["high"] == losses["error"]["high"] == pytest.approx(1 - 0.05 ** (1 / 600))
    assert losses["auc"]["high"] == pytest.approx(1 - 0.05 ** (1 / 240))


def test_worse_calibration_fails(faces):
    old = judged(faces, margins_of(faces) / 4)
    new = judged(faces, margins_of(faces) * 0.22)
    assert failing(accuracy_gates(old, new, {**ALLOWED, "coverage": 1.0}, 100)) >= {("ece", ALL)}


def test_few_faces_prove_nothing():
    faces = [record(number, number % 2) for number in range(40)]
    found = accuracy_gates(judged(faces, margins_of(faces)), judged(faces, margins_of(faces, 1)), ALLOWED, 100)
    gate = next(gate for gate in found[0] if gate.figure == "error")
    assert not gate.passed
    # Clopper and Pearson's bound for no error among 40.
    assert gate.loss["high"] == pytest.approx(1 - 0.05 ** (1 / 40))


@pytest.mark.parametrize("count", [4, 24, 280])
def test_few_faces_prove_nothing_where_all_that_changes_gets_better(count):
    """The new detector finds a fake that the old one missed."""
    faces = [record(number, number % 2) for number in range(count)]
    new = margins_of(faces)
    old = np.where(np.arange(count) == 1, -4.0, new)
    gates, _ = accuracy_gates(judged(faces, old), judged(faces, new), ALLOWED, 200)
    assert [gate.passed for gate in gates if gate.figure in ("auc", "error")] == [False, False]
    enough = [record(number, number % 2) for number in range(600)]
    new = margins_of(enough)
    old = np.where(np.arange(600) == 1, -4.0, new)
    assert not failing(accuracy_gates(judged(enough, old), judged(enough, new), ALLOWED, 200))


def test_undecided_faces_and_frames_of_one_person_prove_nothing():
    """Of 600 faces the new detector decides 40; or they are of six people."""
    alone = [record(number, number % 2) for number in range(600)]
    people = [record(number, number % 2, identity=f"person {number % 6}") for number in range(600)]
    for faces, decided, proven in ((alone, 40, 40), (people, 600, 6)):
        new = np.where(np.arange(600) < decided, margins_of(faces), 0.0)
        old = np.where(np.arange(600) == 1, -4.0, new)
        gates, _ = accuracy_gates(judged(faces, old), judged(faces, new), ALLOWED, 100)
        gate = next(gate for gate in gates if gate.figure == "error")
        assert gate.loss["high"] == pytest.approx(1 - 0.05 ** (1 / proven))
        assert not gate.passed


def test_faces_of_a_person_are_drawn_together():
    """Ten pictures of each person share their error, so the interval is wider than for 400 people."""
    alone = [record(number, number % 2) for number in range(400)]
    together = [record(n, n % 2, identity=f"person {n % 2} {n // 20}") for n in range(400)]
    wrong = np.isin(np.arange(400) // 20, [3, 11]) & (np.arange(400) % 2 == 0)
    widths = []
    for faces in (alone, together):
        old, new = margins_of(faces), np.where(wrong, 4.0, margins_of(faces))
        gates, _ = accuracy_gates(judged(faces, old), judged(faces, new), ALLOWED, 500)
        loss = next(gate.loss for gate in gates if gate.figure == "error")
        widths.append(loss["high"] - loss["low"])
    assert widths[1] > 2 * widths[0]


def test_small_source_has_no_gates(faces):
    more = [*faces, *(record(1000 + number, number % 2, "hall") for number in range(8))]
    gates, small = accuracy_gates(judged(more, margins_of(more)), judged(more, margins_of(more)), ALLOWED, 100)
    assert small == ["hall"]
    assert "hall" not in {gate.where for gate in gates}


def test_machine_is_compared_round_by_round():
    """The machine halves its pace in the third round: the ratio stays."""
    gate = machine_gate("rate", [100.0, 100.0, 50.0], [98.0, 98.0, 49.0], 0.05)
    assert gate.passed
    assert gate.loss["value"] == pytest.approx(0.02)
    assert not machine_gate("rate", [100.0, 100.0, 50.0], [90.0, 90.0, 45.0], 0.05).passed
    assert not machine_gate("memory", [100.0], [120.0], 0.10).passed


def test_allowed_losses_are_read():
    assert parse_allowed(["error=0.05", "rate=1"]) == {**ALLOWED, "error": 0.05, "rate": 1.0}
    for text in ("error", "speed=1", "error=-1", "error=nan", "error=2"):
        with pytest.raises(UsageError, match=text):
            parse_allowed([text])

"""The reference statistics: the distance, its honest limit, and what a bundle holds."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from edge_runtime.detector import Detector
from edge_runtime.judging.results import Reason
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, ModelContract
from edge_runtime.model.reference import REFERENCE, Reference
from edge_runtime.monitoring.baseline import Baseline
from export.context import Context, Steps
from export.faces import ExportFaces, choose_faces, drawn_record
from export.int8.measure import measure_quality
from export.options import ExportOptions
from export.proof.reference import distances, fit, write_reference
from train.data.build import load_data
from train.evaluation.training_faces import among, face_mark

WIDTH = 2048


def features(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Features [N, 1, WIDTH] of real and fake faces in turn; most of their variance lies along 60 directions."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    strong = rng.normal(size=(count, 60)) * np.geomspace(5, 1, 60)
    strong[:, 0] += 10 * labels
    spread = np.random.default_rng(99).normal(size=(60, WIDTH)) / np.sqrt(WIDTH)
    return (strong @ spread + rng.normal(size=(count, WIDTH)) * 0.02 + shift).astype(np.float32)[:, None]


def write(folder: Path, rows: dict[str, np.ndarray], faces: tuple) -> str:
    """Write the statistics for faces for which the networks answer `rows`."""
    quality = np.tile(np.float32([0.6, 1.0, 256.0, 110.0]), (len(faces), 1))
    workers = SimpleNamespace(run=lambda job, *given, **options: quality if job is measure_quality else rows)
    context = Context(
        contract=ModelContract("any"),
        faces=ExportFaces(faces, faces, faces),
        options=ExportOptions(),
        workers=workers,
        steps=Steps(),
        work=folder,
    )
    reading = Calibration(low=0.3, high=0.7)
    return write_reference(folder, {}, context.contract.replace(calibrations={"int8": reading}), context)


def faces_named(count: int) -> tuple:
    """Return records of faces, real and fake in turn, none of which looks like another."""
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(8).hex() for _ in range(count)]
    return tuple(replace(drawn_record(Path(f"{i}.png"), i % 2), phash=hashes[i]) for i in range(count))


def test_the_distance_is_mahalanobis_to_the_nearest_class() -> None:
    known, others = features(300, 1), features(20, 2, shift=0.05)
    labels = np.arange(300) % 2
    reference = fit(known, labels, ["fp32"])

    def places(values: np.ndarray) -> np.ndarray:
        centred = values[:, 0].astype(np.float64) - reference.mean
        along = centred @ reference.axes
        return np.column_stack([along, np.sqrt((centred**2).sum(1) - (along**2).sum(1))])

    at = places(known)
    centres = [at[labels == label].mean(0) for label in (0, 1)]
    inverse = np.linalg.inv(np.cov(at - np.array(centres)[labels], rowvar=False, ddof=2))
    expected = [min(mahalanobis(place, centre, inverse) for centre in centres) for place in places(others)]
    np.testing.assert_allclose(distances(reference, others, "fp32"), expected, rtol=2e-3)


def test_one_of_a_hundred_new_faces_is_unlike(tmp_path: Path) -> None:
    known = features(300, 1)
    logits = np.stack([-known[..., :4].sum(2), known[..., :4].sum(2)], axis=2)
    rows = np.concatenate([logits, known], axis=2)
    noisy = rows + np.random.default_rng(0).normal(0, 0.03, rows.shape).astype(np.float32)
    words = write(tmp_path, {"fp32": rows, "int8": noisy}, faces_named(300))
    assert "300 faces" in words
    file = np.load(tmp_path / REFERENCE)
    assert (tmp_path / REFERENCE).stat().st_size < 100_000
    limits = dict(zip(file["precisions"].tolist(), file["limits"], strict=True))
    assert limits["fp16"] == limits["fp32"] < limits["int8"]
    arrays = {name: file[name].astype(np.float32) for name in ("mean", "axes", "whitening", "centres")}
    reference = Reference(**arrays, limits=limits)
    # A limit from the fitted faces themselves would let 0.03 through.
    assert 0.002 < (distances(reference, features(3000, 2), "fp32") > 1).mean() < 0.02
    assert (distances(reference, features(100, 3, shift=0.5), "fp32") > 1).all()
    assert str(file["described"]) == "int8"
    baseline = Baseline.from_arrays(file)
    assert baseline.summary.faces == 300
    assert baseline.labelled.tolist() == [150, 150]
    assert baseline.summary.width == len(reference.whitening)


def test_the_baseline_is_where_faces_lie_that_nobody_fitted(tmp_path: Path) -> None:
    known, new = features(400, 1), features(2000, 2)
    logits = np.stack([-known[..., :4].sum(2), known[..., :4].sum(2)], axis=2)
    write(tmp_path, {"fp32": np.concatenate([logits, known], axis=2)}, faces_named(400))
    file = np.load(tmp_path / REFERENCE)
    baseline, whole = Baseline.from_arrays(file), fit(known, np.arange(400) % 2, [])
    total, outer = baseline.summary.sums.sum((0, 1)), baseline.summary.outers.sum((0, 1))
    expected = outer / 400 - np.outer(total, total) / 400**2
    found = np.cov(whole.whitened(new[:, 0]), rowvar=False)
    # The distance outside the axes is what fitted faces have less of, and its covariance what they hide.
    assert abs(np.trace(found) / np.trace(expected) - 1) < 0.15
    assert total[-1] / 400 == pytest.approx(whole.whitened(new[:, 0])[:, -1].mean(), rel=0.02)
    assert whole.whitened(known[:, 0])[:, -1].mean() < 0.97 * whole.whitened(new[:, 0])[:, -1].mean()


@pytest.mark.parametrize("count", [99, 8])
def test_too_few_faces_write_nothing_and_say_so(tmp_path: Path, count: int) -> None:
    assert f"Only {count} faces" in write(tmp_path, {}, faces_named(count))
    assert not (tmp_path / REFERENCE).exists()


def test_faces_of_one_person_are_not_enough(tmp_path: Path) -> None:
    faces = tuple(replace(face, identity="she") if face.label else face for face in faces_named(200))
    assert "persons" in write(tmp_path, {}, faces)
    assert not (tmp_path / REFERENCE).exists()


def test_the_bundle_recognizes_a_picture_unlike_all(tiny_bundle: Bundle, tiny_data: Path) -> None:
    reference = Reference.of(tiny_bundle)
    assert set(reference.limits) == {"fp32", "fp16", "int8"}
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::4] = stripes[1::4] = (0, 255, 255)
    for precision in tiny_bundle.precisions:
        detector = Detector(tiny_bundle, precision=precision.value, faces="off")
        assert detector.detect(stripes).faces[0].reason_code is Reason.UNLIKE
        found = [detector.detect(path).faces[0] for path in sorted((tiny_data / "fake").iterdir())[:20]]
        assert sum(face.reason_code is Reason.UNLIKE for face in found) <= 2


def test_familiar_faces_are_those_that_nobody_trained_on(tiny_data: Path, tmp_path: Path) -> None:
    catalog = load_data(tiny_data)
    trained = {face_mark(face) for face in catalog.split("train")}
    faces = choose_faces(tiny_data, calibration=1000, measured=10, trained=trained)
    assert not among(trained, faces.familiar)
    assert len(faces.familiar) == 120 - len(trained)
    catalog.write(tmp_path / "catalog.csv")
    familiar = choose_faces(tmp_path, calibration=1000, measured=10).familiar
    assert {face.path for face in familiar} == {face.path for face in catalog.split("valid")}

from datetime import datetime, timezone

import pytest
from sklearn.metrics import cohen_kappa_score

from edge_runtime.review.agreement import agreements, cohens_kappa
from edge_runtime.review.database import Review, ReviewLabel

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def said(reviewer: str, *labels: str) -> list[Review]:
    return [Review(face, face, reviewer, ReviewLabel(label), NOW) for face, label in enumerate(labels)]


def test_kappa_is_cohens():
    pairs = [("real", "real")] * 20 + [("real", "fake")] * 5 + [("fake", "real")] * 10 + [("fake", "fake")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    pairs += [("unusable", "fake"), ("unusable", "unusable")]
    assert cohens_kappa(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))


def test_kappa_of_one_label_or_no_face_is_undefined():
    assert cohens_kappa([("real", "real")] * 5) is None
    assert cohens_kappa([]) is None


def test_skipped_faces_and_strangers_do_not_count():
    reviews = [*said("Ben", "real", "fake", "skip", "fake"), *said("Ann", "real", "real", "fake"), *said("Cem", "skip")]
    (found,) = agreements(reviews)
    assert (found.reviewers, found.faces, found.share) == (("Ann", "Ben"), 2, 0.5)

"""How far reviewers agree."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.review.database import Review, ReviewLabel


@dataclass(frozen=True)
class Agreement:
    """How far two reviewers agree about the faces that both labelled.

    Attributes:
        reviewers: their names.
        faces: how many both labelled; `skip` is no label.
        share: of these with the same label, in [0, 1].
        kappa: Cohen's kappa: 1 if they always agree, 0 if as often as by chance; None if both gave one label only.
    """

    reviewers: tuple[str, str]
    faces: int
    share: float
    kappa: float | None


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa of pairs of labels; None if chance alone would always agree, or there are none.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    if not pairs:
        return None
    observed = sum(one == other for one, other in pairs) / len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    expected = sum(first[label] * second[label] for label in first) / len(pairs) ** 2
    return None if expected == 1.0 else (observed - expected) / (1.0 - expected)


def agreements(reviews: Iterable[Review]) -> list[Agreement]:
    """Return the agreement of each two reviewers with faces in common; `reviews` are those that stand."""
    labels: dict[str, dict[int, str]] = {}
    for review in reviews:
        if review.label is not ReviewLabel.SKIP:
            labels.setdefault(review.reviewer, {})[review.face_id] = review.label.value
    found = []
    for one, other in itertools.combinations(sorted(labels), 2):
        both = sorted(labels[one].keys() & labels[other].keys())
        pairs = [(labels[one][face], labels[other][face]) for face in both]
        if pairs:
            share = sum(first == second for first, second in pairs) / len(pairs)
            found.append(Agreement((one, other), len(pairs), share, cohens_kappa(pairs)))
    return found

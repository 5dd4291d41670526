"""Which faces each epoch draws, in which order."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import LABELS
from train.choices import Balance
from train.data.catalog import Catalog, FaceRecord, box_text
from train.learning.dataset import MOST_EPOCHS
from train.learning.recipes import Recipe

MOST_TURNS = 3
"""A balanced epoch shows a face at most this often: a source of a few dozen faces would otherwise be memorized."""


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """Which faces each epoch shows, in which order: a function of the seed and the epoch alone.

    An epoch draws as many faces as there are. If balanced, each class gets half of the draws and each of its sources an
    equal part, but no face is drawn more than MOST_TURNS times while a larger source can fill the gap. So small sources
    repeat their faces within an epoch, and large ones take several epochs to show all.

    Attributes:
        groups: indices of the faces by label and origin.
        draws: faces that an epoch draws of each group; all of them where it is not `balanced`.
        batch: faces per step, of all processes together.
    """

    groups: Mapping[tuple[int, str], NDArray[np.int64]]
    draws: Mapping[tuple[int, str], int]
    balanced: bool
    batch: int
    seed: int

    @classmethod
    def plan(cls, faces: Sequence[FaceRecord], recipe: Recipe) -> "EpochOrder":
        """Return the order in which `recipe` shows `faces`, of which both classes have some."""
        found: dict[tuple[int, str], list[int]] = {}
        for index, face in enumerate(faces):
            found.setdefault((face.label, face.origin), []).append(index)
        groups = {key: np.array(found[key]) for key in sorted(found)}
        parts = Counter(label for label, _ in groups)
        draws = dict.fromkeys(groups, 0)
        for label in range(len(LABELS)):
            count = (len(faces) + 1 - label) // len(LABELS)
            by_size = sorted((key for key in groups if key[0] == label), key=lambda key: len(groups[key]))
            for position, key in enumerate(by_size):
                draws[key] = count // (parts[label] - position)
                if position + 1 < parts[label]:
                    draws[key] = min(draws[key], MOST_TURNS * len(groups[key]))
                count -= draws[key]
        batch = min(recipe.batch, len(faces))
        if recipe.balance == Balance.NONE or (recipe.balance == Balance.AUTO and max(parts.values()) == 1):
            draws = {key: len(members) for key, members in groups.items()}
            return cls(groups, draws, False, batch, recipe.seed)
        return cls(groups, draws, True, batch, recipe.seed)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many faces of each class an epoch draws."""
        return tuple(sum(drawn for (of, _), drawn in self.draws.items() if of == label) for label in range(len(LABELS)))

    def batches(self, epoch: int, *, first: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
        """Return the batches of `FaceDataset` keys of an epoch, from batch `first` on: the share of process `rank`.

        All processes together see what one alone would see. Draws that do not fill a batch are left out of the epoch.
        """
        drawn = np.sort(np.concatenate([self._drawn(number, epoch) for number in range(len(self.groups))]))
        turns = np.arange(len(drawn)) - np.searchsorted(drawn, drawn)
        keys = drawn + (epoch + turns * MOST_EPOCHS) * len(drawn)
        keys = np.random.default_rng((self.seed, epoch)).permutation(keys)
        batches: list[list[int]] = (
            keys[: len(keys) // self.batch * self.batch].reshape(-1, self.batch)[first:, rank::world].tolist()
        )
        return batches

    def _drawn(self, number: int, epoch: int) -> NDArray[np.int64]:
        """Return the faces that `epoch` draws of a group: the next ones in an endless series of shuffles of the
        group.
        """
        key, members = [*self.groups.items()][number]
        start, end = epoch * self.draws[key], (epoch + 1) * self.draws[key]
        rounds = range(start // len(members), -(-end // len(members)))
        orders = [np.random.default_rng((self.seed, number, turn)).permutation(members) for turn in rounds]
        skipped = start - rounds.start * len(members)
        return np.concatenate([members[:0], *orders])[skipped : skipped + end - start]


def drawing_hashes(catalog: Catalog, recipe: Recipe) -> dict[str, str]:
    """Return SHA-256 hashes, by name, of what decides how `recipe` shows the faces besides contents, labels and splits.

    `order` is that of the training faces, `boxes` those of training and validation, and `sources` the groups that an
    epoch is balanced over, if it is. A catalog that was written and read again has the same.
    """
    train = catalog.split("train")
    plan = EpochOrder.plan(train, recipe)
    parts = {
        "order": [face.sha256 for face in train],
        "boxes": sorted((face.sha256, box_text(face.box)) for face in (*train, *catalog.split("valid"))),
        "sources": [members.tolist() for members in plan.groups.values()] if plan.balanced else [],
    }
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}

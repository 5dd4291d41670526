"""Faces for training, one at a time: read, changed, cut to the model's pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import face_region, square_pixels
from train.data.build import FaceRecord
from train.data.catalog import SEED
from train.evaluation.logits import read_again
from train.learning.augment import Chances, change_picture, choose_part, ramped

Sample = tuple[torch.Tensor, int]
"""Pixels uint8 [H, W, 3] and the label."""


class FaceDataset(Dataset[Sample]):
    """Training faces. A key is `epoch * len + index`, so that every epoch draws other changes, the same in each run.

    Args:
        records: the faces.
        contract: how they become pixels.
        chances: how often each change is applied.
        sizes: the pixels a side by epoch; the last holds for all further ones.
        ramp: epochs over which the changes grow to their chances.
        spared: share of the faces of an epoch whose traces are left as they are.
        seed: of the draws.
    """

    def __init__(
        self,
        records: Sequence[FaceRecord],
        contract: ModelContract,
        chances: Chances,
        *,
        sizes: Sequence[int] = (),
        ramp: int = 0,
        spared: float = 0.0,
        seed: int = SEED,
    ) -> None:
        self.records = tuple(records)
        self.contract = contract
        self.chances = dict(chances)
        self.sizes = tuple(sizes) or (contract.input_size,)
        self.ramp, self.spared = ramp, spared
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int) -> Sample:
        epoch, index = divmod(key, len(self.records))
        random = np.random.default_rng((self.seed, epoch, index))
        record = self.records[index]
        face = self._face(record)
        size = self.sizes[min(epoch, len(self.sizes) - 1)]
        share = min(epoch / self.ramp, 1.0) if self.ramp else 1.0
        if self.spared and random.random() < self.spared:
            share = 0.0
        chances = ramped(self.chances, share)
        region = choose_part(face.size, size, self.contract.pixels, chances, random)
        changed = change_picture(face, chances, random)
        native = self.contract.pixels.resize_to is None
        recipe = replace(self.contract.pixels, crops=1, resize_to=None if native else size)
        pixels = square_pixels(changed, region, size, recipe)[0]
        return torch.from_numpy(np.ascontiguousarray(pixels)), record.label

    def _face(self, record: FaceRecord) -> Image.Image:
        picture = read_again(record)
        left, top, right, bottom = face_region(picture.size, record.box, self.contract)
        return picture.crop((int(left), int(top), int(right), int(bottom)))


class EpochBatches(Sampler[list[int]]):
    """Batches of keys of one epoch: shuffled by seed and epoch, this process's share of each, from step `first` on.

    All processes together see what one alone would see; what does not fill a batch is left for another epoch.
    """

    def __init__(
        self, count: int, batch: int, *, seed: int, epoch: int, first: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        order = np.random.default_rng((seed, epoch)).permutation(count) + epoch * count
        batch = min(batch, count)
        self._batches = order[: count // batch * batch].reshape(-1, batch)[first:, rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches.tolist())


class BatchesToCome(Sampler[list[int]]):
    """The batches that `batches` returns whenever an epoch begins, so that one loader serves all epochs."""

    def __init__(self, batches: Callable[[], EpochBatches]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

"""Training faces: read, augmented and cut to the model's pixels."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import face_region, square_pixels
from train.data.catalog import SEED, FaceRecord
from train.evaluation.logits import PictureGoneError, read_again
from train.learning.augment import Chances, change_picture, choose_part, ramped

Sample = tuple[torch.Tensor, int]
"""Pixels uint8 [H, W, 3] and the label."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Pixels uint8 [N, H, W, 3] and the labels [N]."""

MOST_EPOCHS = 2**20
"""More epochs than any run has."""


@dataclass(frozen=True, eq=False)
class FaceDataset(Dataset[Sample]):
    """Training faces.

    A key is `(epoch + turn * MOST_EPOCHS) * len + index`, where `turn` counts the draws of a face in the epoch. Each
    key gets augmentations of its own, the same in every run.

    Attributes:
        chances: how often each augmentation is applied.
        sizes: pixels a side by epoch; the last one holds for all later epochs, the contract's if there is none.
        ramp: epochs over which the augmentations grow to their chances.
        clean_share: share of an epoch's faces that keep their traces: only placement is augmented.
    """

    records: Sequence[FaceRecord]
    contract: ModelContract
    chances: Chances
    _: KW_ONLY
    sizes: Sequence[int] = ()
    ramp: int = 0
    clean_share: float = 0.0
    seed: int = SEED

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int) -> Sample:
        draw, index = divmod(key, len(self.records))
        epoch, random = draw % MOST_EPOCHS, np.random.default_rng((self.seed, draw, index))
        record = self.records[index]
        picture = read_again(record)
        left, top, right, bottom = face_region(picture.size, record.box, self.contract)
        face = picture.crop((int(left), int(top), int(right), int(bottom)))
        sizes = self.sizes or (self.contract.input_size,)
        size = sizes[min(epoch, len(sizes) - 1)]
        share = min(epoch / self.ramp, 1.0) if self.ramp else 1.0
        if self.clean_share and random.random() < self.clean_share:
            share = 0.0
        chances = ramped(self.chances, share)
        region = choose_part(face.size, size, self.contract.pixels, chances, random)
        changed = change_picture(face, chances, random)
        native = self.contract.pixels.resize_to is None
        recipe = replace(self.contract.pixels, crops=1, resize_to=None if native else size)
        pixels = square_pixels(changed, region, size, recipe)[0]
        return torch.from_numpy(np.ascontiguousarray(pixels)), record.label

    def __getitems__(self, keys: list[int]) -> list[Sample] | PictureGoneError:
        """Return a batch. The error is returned, not raised: a loader process would turn it into a traceback."""
        try:
            return [self[key] for key in keys]
        except PictureGoneError as error:
            return error


def collate(samples: list[Sample] | PictureGoneError) -> Batch | PictureGoneError:
    """Return the samples as one batch; an error stays what it is."""
    if isinstance(samples, PictureGoneError):
        return samples
    batch: Batch = default_collate(samples)
    return batch

"""Recipes of training, by the name that `--preset` takes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing
from train.choices import Balance, FrontEnd, InputPreset, Keep, Preset
from train.data.catalog import SEED
from train.learning.augment import FULL, GENTLE, Chances


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        weights: `imagenet`, `none` or a file.
        input_size: pixels a side of the network's input; None takes the backbone's own.
        front_end: a fixed filter before the backbone, within the network.
        optimizer: `adam` or `adamw`.
        learning_rate: the highest of the schedule.
        schedule: `constant`, or `cosine` after a linear warm-up over a share `warm_up` of all steps.
        batch: faces per step, of all processes together.
        balance: whether an epoch draws each class, and each source within it, equally often.
        framing: what the runtime shows the network; None: detected faces if the catalog has boxes, else whole pictures.
        smoothing: of the labels.
        ema: decay of the running average of the weights, which is then judged and kept; 0 keeps the weights themselves.
        statistics: training faces from which batch statistics are renewed, undamaged, before the network is judged and
            kept; 0 keeps those of training.
        patience: epochs without a better AUC after which training stops; 0 never stops early.
        keep: which epoch's network is kept. The last epoch of a schedule that ends at 0 is not picked by a few
            validation faces, and judges damaged faces better.
        progressive: pairs of a share of the epochs and the pixels a side of their crops; the remaining epochs see the
            input size. Small crops cost less and show a network local traces first.
        distilled: weight of the teacher's scores in the loss, the labels having the rest.
        teacher_temperature: divides the logits of teacher and student in the loss.
        hinted: weight of the difference to the teacher's feature maps, added to the loss.
        staged: share of the epochs in which a student learns its teacher's maps alone, one after another from the
            bottom up, each with a warm-up and its own schedule.
        ramp: share of the epochs over which the augmentations that damage a face's traces grow from 0 to their chances,
            so that a network finds the traces first.
        clean_share: share of an epoch's faces whose traces no augmentation damages, so that they are not unlearned.
    """

    weights: str = "imagenet"
    pixels: InputPreset = InputPreset.NATIVE
    input_size: int | None = None
    front_end: FrontEnd = FrontEnd.NONE
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warm_up: float = 0.1
    epochs: int = 12
    batch: int = 32
    balance: Balance = Balance.AUTO
    framing: Framing | None = None
    smoothing: float = 0.05
    ema: float = 0.998
    statistics: int = 256
    patience: int = 0
    keep: Keep = Keep.BEST
    progressive: tuple[tuple[float, int], ...] = ()
    distilled: float = 0.9
    teacher_temperature: float = 2.0
    hinted: float = 1.0
    staged: float = 0.0
    chances: Chances = field(default_factory=lambda: dict(FULL))
    ramp: float = 0.3
    clean_share: float = 0.0
    seed: int = SEED

    def replace(self, **changes: Any) -> "Recipe":
        """Return the recipe with those of `changes` that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    @property
    def chosen(self) -> str:
        """What is chosen on the validation split, in words."""
        return "the checkpoint and its thresholds" if self.keep == Keep.BEST else "its thresholds"

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, as a checkpoint keeps it."""
        return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(self).items()}

    def sizes(self, input_size: int) -> tuple[int, ...]:
        """Return the pixels a side by epoch; the last one is the input size, unless the shares add up to 1."""
        early = [
            min(pixels, input_size) for share, pixels in self.progressive for _ in range(round(share * self.epochs))
        ]
        if not math.isclose(sum(share for share, _ in self.progressive), 1, abs_tol=0.001):
            early = early[: self.epochs - 1]
        return (*early[: self.epochs], *(input_size,) * (self.epochs - len(early)))


def parse_progressive(text: str) -> tuple[tuple[float, int], ...]:
    """Read `0.5:64,0.35:128`: half of the epochs at 64 pixels a side, 35 % at 128, the rest at the input size.

    Networks halve the side five times, so it must be a multiple of 32: otherwise the maps of two networks do not match.

    Raises:
        UsageError: the text is not of this form.
    """
    try:
        pairs = tuple((float(share), int(pixels)) for share, pixels in (part.split(":") for part in text.split(",")))
    except ValueError:
        pairs = ()
    if not pairs or sum(share for share, _ in pairs) > 1 or any(pixels < 32 or pixels % 32 for _, pixels in pairs):
        raise UsageError(
            f"--progressive {text}: give shares of the epochs and pixels a side, multiples of 32, like 0.5:64,0.35:128"
        )
    return pairs


SMALL_FIRST = ((0.5, 64), (0.35, 128))

ARTICLE = Recipe(
    pixels=InputPreset.ARTICLE,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=0.0,
    schedule="constant",
    epochs=100,
    balance=Balance.NONE,
    smoothing=0.0,
    ema=0.0,
    statistics=0,
    chances={},
    ramp=0.0,
)

PRESETS: Mapping[Preset, Recipe] = {
    Preset.DEFAULT: Recipe(patience=10, clean_share=0.4),
    Preset.SCRATCH: Recipe(
        weights="none", epochs=60, progressive=SMALL_FIRST, statistics=0, chances={**FULL, "recapture": 0.02}
    ),
    Preset.TAUGHT: Recipe(
        weights="none",
        learning_rate=2e-3,
        epochs=38,
        batch=8,
        keep=Keep.LAST,
        progressive=((0.2105, 64), (0.2105, 96), (0.2105, 128), (0.3421, 160)),
        staged=0.8421,
        statistics=0,
        chances=dict(GENTLE),
    ),
    Preset.ARTICLE: ARTICLE,
    Preset.ARTICLE_VIT: ARTICLE.replace(learning_rate=1e-5, epochs=10),
    Preset.DEMO: Recipe(
        weights="none",
        input_size=96,
        learning_rate=1e-3,
        epochs=18,
        smoothing=0.0,
        ema=0.0,
        statistics=0,
        chances=dict(GENTLE),
    ),
    Preset.QUICK: Recipe(
        weights="none", epochs=6, progressive=SMALL_FIRST, ema=0.98, statistics=0, chances=dict(GENTLE)
    ),
}
"""`taught` is for a network without pretrained weights that has a teacher: eight epochs for each of four maps, on crops
that grow with the stride, five of all layers on 160 pixels, one on the input size. Every place of a map teaches, so
batches are small. `quick` is for trying the commands, `demo` learns the sample faces from scratch in minutes, `article`
and `article-vit` are the two articles' recipes. A network from scratch keeps the batch statistics of its training: on
the demo's faces, those of centre crops lowered its AUC on validation from 0.995 to 0.94.
"""

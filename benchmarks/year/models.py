"""The workstation's side: the first model, the next one from reviewed faces, and whether it may replace the last."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.promotion.gates import ALLOWED
from benchmarks.promotion.promotion import Comparison, compare_detectors
from benchmarks.year.own import own_folder
from edge_runtime.atomic import write_atomic
from edge_runtime.model.contract import LABELS, Framing
from export.export import export_bundle
from export.options import ExportOptions
from train.choices import Preset
from train.commands.prepare import PrepareOptions, prepare_faces
from train.commands.reviewed import prepare_reviewed
from train.commands.train import TrainingOptions, train_detector
from train.data.build import load_data
from train.data.catalog import CATALOG, Catalog

FACES, RUN, BUNDLE, REFERENCE, MADE_OF = "faces", "run", "bundle", "reference", "made-of.txt"
"""Folders of a model, and what the first one was made of."""


@dataclass(frozen=True)
class Making:
    """How models are made and gated.

    Attributes:
        training: options of every training.
        first, later: changes to the preset's recipe, of the first model and of those that begin at the last one.
        export: options of every export.
        split: shares of training, validation and test, of the first faces and of the reviewed ones.
        allowed: how much worse each figure may get, see `benchmarks.promotion.gates`.
        rounds, seconds: how often and how long rate and memory are measured.
    """

    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            arch="efficientnet_lite0", preset=Preset.QUICK, workers=0, pictures=False, bootstrap=100
        )
    )
    first: Mapping[str, Any] = field(default_factory=dict)
    later: Mapping[str, Any] = field(default_factory=dict)
    export: ExportOptions = field(default_factory=lambda: ExportOptions(parts=("fp32",), parity_faces=20))
    split: str = "60/25/15"
    allowed: Mapping[str, float] = field(default_factory=lambda: dict(ALLOWED))
    rounds: int = 3
    seconds: float = 0.5


class Models:
    """The models of a year, each in a folder named by its number; the last one that was accepted is in use.

    Args:
        folder: of all models; the first one is not made again, and its training is resumed.
        making: how they are made.
    """

    def __init__(self, folder: Path, making: Making) -> None:
        self._folder, self._making = own_folder(folder, empty=False), making
        self.made = self.used = 0

    def bundle(self, number: int) -> Path:
        """Return the folder of a model's bundle."""
        return self._folder / str(number) / BUNDLE

    def make_first(self, base: Path) -> None:
        """Make model 1 from a folder with real/ and fake/; it is kept if it was made from the same faces before."""
        self.made = self.used = 1
        home = self._folder / "1"
        prepared = prepare_faces([base], home / FACES, PrepareOptions(split=self._making.split))
        making = self._making
        made_of = f"{prepared.catalog.fingerprint} {making.training} {making.first} {making.export}"
        if not (home / MADE_OF).exists() or (home / MADE_OF).read_text(encoding="utf-8") != made_of:
            self._train(home, home / FACES, self._making.first)
            write_atomic(home / MADE_OF, made_of)

    def make_next(self, reviews: Path, private_key: Path) -> None:
        """Make a model from the last one's weights, its faces, and all faces that were reviewed."""
        old = self._folder / str(self.used)
        self.made += 1
        home, split = self._folder / str(self.made), self._making.split
        shutil.rmtree(home, ignore_errors=True)
        prepared = prepare_reviewed(reviews, old / FACES, home / FACES, split=split, private_key=private_key)
        seen_here(prepared.catalog, load_data(old / FACES)).write(home / REFERENCE / CATALOG)
        weights = str(old / RUN / "best.pth")
        self._train(home, home / REFERENCE, {**self._making.later, "weights": weights})

    def _train(self, home: Path, reference: Path, changes: Mapping[str, Any]) -> None:
        changes = {"framing": Framing.WHOLE, **changes}
        trained = train_detector([home / FACES], home / RUN, self._making.training, changes)
        options = replace(self._making.export, version=f"{self.made}.0.0", replace=True)
        export_bundle(trained.best, reference, home / BUNDLE, options=options)

    def gate(self) -> Comparison:
        """Compare the newest model with the one in use, on the frozen test faces of the newest catalog."""
        return compare_detectors(
            self.bundle(self.used),
            self.bundle(self.made),
            [self._folder / str(self.made) / FACES / CATALOG],
            allowed=self._making.allowed,
            rounds=self._making.rounds,
            seconds=self._making.seconds,
        )

    def accept(self) -> None:
        """Use the newest model from now on."""
        self.used = self.made


def seen_here(catalog: Catalog, before: Catalog) -> Catalog:
    """Return a catalog without the fakes that an earlier version of it had.

    The rest are what the door shows now: reals, and the fakes of the latest review. With fakes that no longer come, the
    reference statistics would describe another door, and the monitor would say so at once.
    """
    old = {face.sha256 for face in before.records if LABELS[face.label] == "fake"}
    return replace(catalog, records=tuple(face for face in catalog.records if face.sha256 not in old))

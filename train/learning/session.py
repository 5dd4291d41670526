"""The folder of a run: what it saves, whether it may be resumed with what was asked for, and how it is resumed."""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import CheckpointError, DataError, UsageError
from edge_runtime.model.contract import LABELS, Framing, ModelContract
from train.data.catalog import CATALOG, Catalog
from train.distributed import from_main
from train.learning.epoch_order import drawing_hashes
from train.learning.objectives import Labels
from train.learning.recipes import Recipe
from train.models.backbones import build_backbone, find_backbone, rebuild_backbone, with_front_end
from train.models.checkpoint import Checkpoint, load_checkpoint, pixel_recipe, save_checkpoint
from train.models.state_dict import first_line

BEST, LAST, METRICS, LOCK = "best.pth", "last.pth", "metrics.jsonl", ".lock"


@dataclass
class Progress:
    """Progress of a run."""

    step: int = 0
    epoch: int = 0
    best_auc: float = -1.0
    best_epoch: int = -1
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def add_epoch(self, row: dict[str, Any]) -> bool:
        """Count an epoch with these figures and return whether it is the best so far."""
        self.history.append(row)
        self.epoch += 1
        better: bool = row.get("auc", -1.0) > self.best_auc
        if better:
            self.best_auc, self.best_epoch = row["auc"], row["epoch"]
        return better


@dataclass
class Tally:
    """Sums over the steps of an epoch so far."""

    loss: float = 0.0
    right: int = 0
    faces: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0


@dataclass
class RunState:
    """Everything that changes during a run, and that resuming it needs.

    `model` is the network before `Accelerator.prepare`, `scaler` that of the losses in fp16; the optimizer is over the
    network and the objective's hints.
    """

    model: nn.Module
    average: AveragedModel | None
    objective: Labels
    optimizer: AcceleratedOptimizer
    scaler: torch.amp.GradScaler | None
    progress: Progress = field(default_factory=Progress)
    tally: Tally = field(default_factory=Tally)

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and kept: the running average where there is one."""
        module: nn.Module = self.average.module if self.average else self.model
        return module


class Session:
    """One run in one folder, which it locks until `close`. The folder is not made before `begin`.

    `saved_at` is when the state was saved last, or the session began (monotonic); `drawn` has its `drawing_hashes`.

    Raises:
        CheckpointError: the folder's last checkpoint is damaged.
        DataError: the folder holds a run on other data, or that shows the same faces in another way.
        UsageError: the folder holds a run with another backbone or recipe, or another training runs there.
    """

    def __init__(self, out: Path, catalog: Catalog, contract: ModelContract, recipe: Recipe) -> None:
        self.out, self.catalog, self.contract, self.recipe = out, catalog, contract, recipe
        self.drawn = drawing_hashes(catalog, recipe)
        self.saved_at = time.monotonic()
        self._lock: IO[str] | None = None
        self._writer: SummaryWriter | None = None
        # Other machines may not have the folder.
        self._found = from_main(self._read_last)

    def _read_last(self) -> Checkpoint | None:
        """Lock the folder and return its last checkpoint, if it has one and that may be resumed."""
        out, last, contract = self.out, self.out / LAST, self.contract
        if out.is_dir():
            self._take_lock()
        with self._damage_reported():
            found = load_checkpoint(last) if last.exists() else None
            if found is None:
                return None
            old, drawn = (dict(found.extra.get(name, {})) for name in ("recipe", "drawn"))
            if "spared" in old:
                old["clean_share"] = old.pop("spared")  # Its former name.
        arch, new = found.contract.architecture, self.recipe.to_dict()
        if arch != contract.architecture:
            raise UsageError(f"{out}: holds a run of {arch}, not {contract.architecture}; give another --out")
        if found.contract.data != contract.data:
            raise DataError(f"{out}: holds a run on other data; give its {CATALOG}, or another --out")
        for name in new:
            # A field that an older version did not have does not count. When to stop and what to keep may change.
            if name not in ("patience", "keep") and old.get(name, new[name]) != new[name]:
                raise UsageError(
                    f"{out}: holds a run with {name} {old[name]}, not {new[name]}; "
                    "repeat its options to resume it, or give another --out"
                )
        before, now = found.contract.to_dict() | drawn, contract.to_dict() | self.drawn
        for name in now:
            if name not in ("version", "demo") and before.get(name, now[name]) != now[name]:
                raise DataError(
                    f"{out}: holds a run on the same pictures, but not with the same {name}; "
                    f"give its {CATALOG} to resume it, or another --out"
                )
        return found

    def build_network(self) -> nn.Module:
        """Return the network with its first weights; of a run to be resumed, without.

        Raises:
            UsageError: its weights are not available, or it does not take the contract's input size.
        """
        arch, size = self.contract.architecture, self.contract.input_size
        if self._found:
            with self._damage_reported():
                return rebuild_backbone(arch, self._found.options)
        model = with_front_end(build_backbone(arch, weights=self.recipe.weights), self.recipe.front_end)
        if find_backbone(arch).one_size and self.recipe.input_size:
            try:
                model.eval()(torch.zeros(1, 3, size, size))
            except (AssertionError, ValueError) as error:
                reason = first_line(error)
                raise UsageError(f"--input-size {size}: {arch} does not take it ({reason}); leave it out") from None
        return model

    def restore(self, state: RunState, steps: int) -> None:
        """Set `state` to what was saved last, if anything was; `steps` is the number of an epoch's.

        Raises:
            CheckpointError: what was saved is damaged.
            UsageError: the saved run had a teacher and this one has none, or the reverse, or another teacher.
        """
        if self._found is None:
            return
        saved = self._found.extra
        before, now, teacher = saved.get("hints"), state.objective.state(), state.objective.teacher_sha256
        if (before is None) != (now is None):
            had = "without" if before is None else "with"
            raise UsageError(
                f"{self.out}: holds a run {had} a teacher; repeat its options to resume it, or give another --out"
            )
        held, given = ({name: hint.shape for name, hint in (hints or {}).items()} for hints in (before, now))
        if held != given or saved.get("teacher", teacher) != teacher:
            raise UsageError(
                f"{self.out}: holds a run with another teacher, or of an older version; "
                "give the same --teacher, or another --out"
            )
        with self._damage_reported():
            state.model.load_state_dict(self._found.state_dict, strict=True)
            state.objective.load_state(before)
            if state.average:
                state.average.load_state_dict(saved["average"])
            state.optimizer.load_state_dict(saved["optimizer"])
            if state.scaler and saved.get("scaler"):
                state.scaler.load_state_dict(saved["scaler"])
            progress = Progress(**{name.name: saved["progress"][name.name] for name in fields(Progress)})
            tally = Tally(**{name.name: saved["tally"][name.name] for name in fields(Tally)})
            done = progress.step - progress.epoch * steps
            if not (0 <= done <= steps and len(progress.history) == progress.epoch):
                raise ValueError(f"step {progress.step} is not in epoch {progress.epoch}")
            json.dumps(progress.history)
        state.progress, state.tally = progress, tally
        self._found = None  # Free its memory.

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        try:
            yield
        except (CheckpointError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.out / LAST}: damaged ({first_line(error)}); "
                "delete it to train from the start, or choose another --out"
            ) from None

    def _take_lock(self) -> None:
        """Keep other trainings out of the folder."""
        self._lock = (self.out / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"--out {self.out}: another training runs there; wait until it ends, or choose another --out"
            ) from None

    def close(self) -> None:
        """Release the lock, of which loader processes may still hold a copy."""
        if self._writer:
            self._writer.close()
        if self._lock:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None

    def begin(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Make the folder, and write the catalog and the figures so far."""
        self.out.mkdir(parents=True, exist_ok=True)
        if not self._lock:
            self._take_lock()
        self.catalog.write(self.out / CATALOG)
        self._write_history(history)

    def finish_epoch(self, state: RunState) -> None:
        """Save the state after an epoch, and its figures for people and for TensorBoard."""
        self.save(state)
        self._write_history(state.progress.history)
        self._writer = self._writer or SummaryWriter(str(self.out / "tensorboard"))
        row = state.progress.history[-1]
        for name in row.keys() - {"epoch", "step"}:
            self._writer.add_scalar(name, row[name], row["epoch"])

    def _write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        write_atomic(self.out / METRICS, "".join(json.dumps(row) + "\n" for row in history))

    def keep(self, model: nn.Module) -> None:
        """Write `model` as the run's best checkpoint."""
        catalog, left_out = str((self.out / CATALOG).resolve()), list(self.catalog.left_out)
        save_checkpoint(self.out / BEST, model, self.contract, catalog=catalog, left_out=left_out)

    def save(self, state: RunState) -> None:
        """Write what `restore` needs."""
        save_checkpoint(
            self.out / LAST,
            state.model,
            self.contract,
            catalog=str((self.out / CATALOG).resolve()),
            average=state.average.state_dict() if state.average else None,
            hints=state.objective.state(),
            teacher=state.objective.teacher_sha256,
            drawn=self.drawn,
            optimizer=state.optimizer.state_dict(),
            scaler=state.scaler.state_dict() if state.scaler else None,
            recipe=self.recipe.to_dict(),
            progress=asdict(state.progress),
            tally=asdict(state.tally),
        )
        self.saved_at = time.monotonic()


def training_contract(catalog: Catalog, arch: str, recipe: Recipe, *, demo: bool = False) -> ModelContract:
    """Return the contract of the model that `recipe` makes from `catalog`.

    Raises:
        DataError: train or valid lacks a class.
        UsageError: there is no such backbone, or the recipe does not fit it.
    """
    for split in ("train", "valid"):
        present = {face.label for face in catalog.split(split)}
        for label, name in enumerate(LABELS):
            if label not in present:
                raise DataError(f"the {split} split holds no {name} faces; give more pictures or another --split")
    backbone = find_backbone(arch)
    if recipe.staged and backbone.one_size:
        raise UsageError(f"--staged {recipe.staged}: {arch} has no maps to learn one by one; give --staged 0")
    size = recipe.input_size or backbone.input_size
    if size % 32:
        raise UsageError(f"--input-size {size}: give a multiple of 32, by which networks shrink their maps")
    return ModelContract(
        arch,
        input_size=size,
        mean=backbone.mean,
        scale=backbone.scale,
        pixels=pixel_recipe(recipe.pixels, size),
        framing=recipe.framing or (Framing.DETECTED if any(f.box for f in catalog.records) else Framing.WHOLE),
        data=catalog.fingerprint,
        demo=demo,
    )

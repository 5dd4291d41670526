"""Training: from a catalog and a recipe to the checkpoint that was best on the validation split.

Every draw is a function of the seed and the step, so a run that was stopped goes on as if it had not been.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edge_runtime.errors import DataError, UsageError
from edge_runtime.model.contract import CHECKPOINT, LABELS, Framing, ModelContract
from train.data.build import CATALOG, Catalog
from train.data.splits import group_faces
from train.evaluation.calibrate import fit_calibration
from train.evaluation.logits import Logits, PictureGoneError, fake_scores, judge, require_logits
from train.evaluation.metrics import auc, measure
from train.learning.dataset import BatchesToCome, EpochBatches, FaceDataset
from train.learning.distillation import Stage, Teacher
from train.learning.memory import keep_memory
from train.learning.recipes import Recipe
from train.learning.schedule import Schedule
from train.models.backbones import CLASSES, build_backbone, find_backbone
from train.models.checkpoint import Checkpoint, load_checkpoint, load_model, pixel_recipe, save_checkpoint
from train.models.network import normalize, torch_logits
from train.parallel import progress_bar

BEST, LAST, METRICS = "best.pth", "last.pth", "metrics.jsonl"
SAVE_EVERY_S = 300.0
"""Seconds between two saves inside an epoch."""
MEASURED = 256
"""Training faces on which the scales of a teacher's maps are measured."""


@dataclass
class Progress:
    """Where a training stands; all of it is saved."""

    step: int = 0
    epoch: int = 0
    best_auc: float = -1.0
    best_epoch: int = -1
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Tally:
    """What an epoch added up to so far; saved with it."""

    loss: float = 0.0
    right: int = 0
    faces: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0


class Training:
    """One run in one folder.

    Args:
        catalog: with faces of both classes in train and valid.
        arch: a backbone of the registry.
        recipe: how.
        out: the folder; a run that was stopped there goes on.
        teacher: a checkpoint whose scores are learnt beside the labels.
        workers: processes that load pictures; 0 loads in this one.
        precision: `bf16`, `fp16`, `no`, or `auto`: bf16 where the device computes it.
        demo: whether the faces are made samples.
        device: `auto` or `cpu`.

    Raises:
        DataError: a split or class is empty, or the folder holds a run on other data.
        UsageError: the folder holds a run with another recipe.
    """

    def __init__(
        self,
        catalog: Catalog,
        arch: str,
        recipe: Recipe,
        out: Path,
        *,
        teacher: Path | None = None,
        workers: int | None = None,
        precision: str = "auto",
        demo: bool = False,
        device: str = "auto",
    ) -> None:
        _check_splits(catalog)
        self.catalog, self.recipe, self.out = catalog, recipe, out
        self.workers = min(4, os.cpu_count() or 1) if workers is None else workers
        last = out / LAST
        found = load_checkpoint(last) if last.exists() else None
        self.contract = _contract(catalog, arch, recipe, demo)
        torch.manual_seed(recipe.seed)
        model = _network(found, arch, recipe)
        self.accelerator = Accelerator(
            mixed_precision=training_precision(precision, device, model), cpu=device == "cpu"
        )
        if self.accelerator.device.type == "cpu":
            keep_memory()
        self.model = model.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = _average(self.model, recipe.ema) if recipe.ema else None
        self.teacher = self._load_teacher(teacher)
        hints = self.teacher.hints if self.teacher else nn.ModuleDict()
        if recipe.staged and find_backbone(arch).one_size:
            raise UsageError(f"--staged {recipe.staged}: {arch} has no maps to learn one by one; give --staged 0")
        staged = min(round(recipe.staged * recipe.epochs), recipe.epochs - 1)
        self.stages = self.teacher.stages(staged) if self.teacher else ()
        self._stage: Stage | None = None
        self.progress, self.tally = Progress(), Tally()
        optimizer = _optimizer(nn.ModuleList([self.model, hints]), recipe)
        if found:
            self._restore(found, optimizer)
        self.network, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        for name, hint in hints.items():
            hints[name] = self.accelerator.prepare(hint)
        if self.average:
            self.average.to(self.accelerator.device)
        self.weights = _class_weights(catalog).to(self.accelerator.device)
        size = self.contract.input_size
        sizes = (size,) if find_backbone(arch).one_size else recipe.sizes(size)
        train = catalog.split("train")
        self.dataset = FaceDataset(
            train,
            self.contract,
            recipe.chances,
            sizes=sizes,
            ramp=round(recipe.ramp * recipe.epochs),
            spared=recipe.spared,
            seed=recipe.seed,
        )
        self.steps = len(self._batches(0))
        self.schedule = Schedule(recipe, self.steps, self.stages)
        if self.teacher and self.teacher.strides:
            self.teacher.measure(self._undamaged())
        # Its processes are made once, while memory is small: a page that is written after a fork is copied first.
        self._loader = DataLoader(
            self.dataset,
            batch_sampler=BatchesToCome(self._batches_to_come),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=_ignore_interrupts,
        )
        self._stopping = False
        self._saved = time.monotonic()

    def run(self, report: Callable[[Mapping[str, Any]], None] | None = None) -> Path:
        """Train to the end, or from where it was stopped, and return the best checkpoint.

        Args:
            report: told of every epoch's figures.

        Raises:
            KeyboardInterrupt: it was stopped (Ctrl-C, SIGTERM); all steps so far are saved.
            PictureGoneError: a picture can't be read any more; all steps so far are saved.
        """
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            self.catalog.write(self.out / CATALOG)
            self._write_history()
        with self._stoppable():
            while not self.progress.finished:
                try:
                    self._epoch()
                except PictureGoneError as error:
                    self._keep_steps()
                    raise PictureGoneError(_own_words(error)) from None
                if report and self.accelerator.is_main_process:
                    report(self.progress.history[-1])
        if self.recipe.keep == "last" and self.accelerator.is_main_process:
            self._keep()
        return self.out / BEST

    def _keep_steps(self) -> None:
        if self.accelerator.is_main_process and self.progress.step:
            self._save()

    def _epoch(self) -> None:
        epoch = self.progress.epoch
        done = self.progress.step - epoch * self.steps
        self._enter_stage()
        (self._stage or self.network).train()
        with progress_bar(f"epoch {epoch + 1}/{self.recipe.epochs}", self.steps) as advance:
            advance(done)
            asked = time.perf_counter()
            for pixels, labels in self._loader:
                arrived = time.perf_counter()
                self._step(pixels, labels)
                advance(1)
                self.tally.waited_s += arrived - asked
                asked = time.perf_counter()
                self.tally.worked_s += asked - arrived
                self._save_if_due()
        self._finish_epoch()

    def _step(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        torch.manual_seed((self.recipe.seed << 32) + self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(self.progress.step)
        images = normalize(pixels.to(self.accelerator.device), self.contract)
        labels = labels.to(self.accelerator.device)
        if self._stage:
            loss = self._stage.loss(images)
        else:
            logits = self.network(images)
            loss = self._loss(images, logits, labels)
            self.tally.right += int((logits.argmax(1) == labels).sum())
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        if self.average and not self._stage:
            self.average.update_parameters(self.accelerator.unwrap_model(self.network))
        self.progress.step += 1
        self.tally.loss += float(loss.detach()) * len(labels)
        self.tally.faces += len(labels)

    def _loss(self, images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        recipe = self.recipe
        losses = functional.cross_entropy(
            logits.float(), labels, self.weights, label_smoothing=recipe.smoothing, reduction="none"
        )
        # A mean over faces, not over weights: halves of a batch in two processes add up to the whole.
        loss = losses.mean()
        if self.teacher is None:
            return loss
        with self.accelerator.autocast():
            soft, maps = self.teacher.losses(images, logits)
        return (1 - recipe.distilled) * loss + recipe.distilled * soft + recipe.hinted * maps

    def _enter_stage(self) -> None:
        """Let the layers learn that this epoch's stage is about, or all of them after the last stage."""
        epoch, stages = self.progress.epoch, self.stages
        if self.teacher and epoch < len(stages):
            stride = stages[epoch]
            if self._stage is None or self._stage.stride != stride:
                learnt = max((earlier for earlier in stages if earlier < stride), default=None)
                self._stage = self.teacher.stage(self.model, stride, learnt, self.accelerator)
            return
        if self._stage:
            self.model.requires_grad_(True)
            self._stage = None
        if not stages or self.progress.step != self.schedule.together:
            return
        # What a stage has measured of its gradients is no measure of those of the whole.
        self.optimizer.state.clear()
        # The hint of a map that had no stage has learnt nothing yet.
        if self.teacher and stages[-1] == self.teacher.strides[-1]:
            self.teacher.begin_head(self.model)

    def _finish_epoch(self) -> None:
        judged: list[dict[str, Any]] = [{}]
        loss, right, faces = self._sums()
        if self.accelerator.is_main_process:
            judged = [self._epoch_figures(loss / faces, int(faces))]
            if self._stage is None:
                judged[0] |= {"train_accuracy": right / faces, **self._judge_epoch()}
        if self.accelerator.num_processes > 1:
            broadcast_object_list(judged)
        row = judged[0]
        progress = self.progress
        progress.history.append(row)
        progress.epoch += 1
        better = row.get("auc", -1.0) > progress.best_auc
        if better:
            progress.best_auc, progress.best_epoch = row["auc"], row["epoch"]
        progress.finished = self._over()
        self.tally = Tally()
        if self.accelerator.is_main_process:
            if better:
                self._keep()
            self._save()
            self._write_history()
            _tensorboard(self.out, row)
        if self._stopping and not progress.finished:
            raise KeyboardInterrupt

    def _over(self) -> bool:
        stale = self.progress.epoch - max(self.progress.best_epoch, len(self.stages))
        return self.progress.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= stale

    def _sums(self) -> tuple[float, float, float]:
        """Return the loss, the right answers and the faces of this epoch, of all processes together."""
        tally = self.tally
        sums = torch.tensor([tally.loss, tally.right, tally.faces], device=self.accelerator.device)
        loss, right, faces = self.accelerator.reduce(sums, "sum").tolist()
        return loss, right, faces

    def _epoch_figures(self, loss: float, faces: int) -> dict[str, Any]:
        busy = self.tally.waited_s + self.tally.worked_s
        return {
            "epoch": self.progress.epoch + 1,
            "step": self.progress.step,
            **({"stride": self._stage.stride} if self._stage else {}),
            "learning_rate": self.schedule.learning_rate(self.progress.step - 1),
            "train_loss": loss,
            "seconds": busy,
            "images_per_second": faces / busy if busy else 0.0,
            "waiting": self.tally.waited_s / busy if busy else 0.0,
        }

    def _judge_epoch(self) -> dict[str, Any]:
        valid = self.catalog.split("valid")
        logits = self.judge(self._judged(), valid)
        require_logits(valid, logits)
        labels = np.array([face.label for face in valid])
        scores = fake_scores(logits)
        return {
            "valid_loss": float(-np.log(np.clip(np.where(labels == 1, scores, 1 - scores), 1e-12, 1)).mean()),
            "valid_accuracy": float(((scores >= 0.5) == (labels == 1)).mean()),
            "auc": auc(labels, scores),
        }

    def judge(self, model: nn.Module, faces: Any) -> Logits:
        """Return the logits [N, 2] of `model` on `faces`, by the way of every evaluation; batch statistics fixed."""
        network = torch_logits(model, self.contract, str(self.accelerator.device))
        with self.accelerator.autocast():
            return judge(network, self.contract, faces)

    def _judged(self) -> nn.Module:
        if self.average:
            module: nn.Module = self.average.module
            return module
        unwrapped: nn.Module = self.accelerator.unwrap_model(self.network)
        return unwrapped

    def _undamaged(self) -> Iterator[torch.Tensor]:
        """Yield images of training faces as they are, spread over all of them, the same in every process."""
        faces = FaceDataset(self.dataset.records, self.contract, {}, seed=self.recipe.seed)
        count = min(MEASURED, len(faces))
        for first in range(0, count, 16):
            keys = range(first, min(first + 16, count))
            pixels = torch.stack([faces[key * len(faces) // count][0] for key in keys])
            yield normalize(pixels.to(self.accelerator.device), self.contract)

    def _batches(self, epoch: int, first: int = 0) -> EpochBatches:
        return EpochBatches(
            len(self.dataset),
            self.recipe.batch,
            seed=self.recipe.seed,
            epoch=epoch,
            first=first,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def _batches_to_come(self) -> EpochBatches:
        epoch = self.progress.epoch
        return self._batches(epoch, self.progress.step - epoch * self.steps)

    def _keep(self) -> None:
        save_checkpoint(self.out / BEST, self._judged(), self.contract, catalog=self._catalog_path())

    def _save_if_due(self) -> None:
        main = self.accelerator.is_main_process
        within = self.progress.step % self.steps != 0
        if main and within and (self._stopping or time.monotonic() - self._saved > SAVE_EVERY_S):
            self._save()
        if self._stopping and within:
            raise KeyboardInterrupt

    def _save(self) -> None:
        save_checkpoint(
            self.out / LAST,
            self.accelerator.unwrap_model(self.network),
            self.contract,
            catalog=self._catalog_path(),
            average=self.average.state_dict() if self.average else None,
            hints=self._hints(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            recipe=self.recipe.to_dict(),
            progress=asdict(self.progress),
            tally=asdict(self.tally),
        )
        self._saved = time.monotonic()

    def _hints(self) -> dict[str, torch.Tensor] | None:
        """Return the state of the teacher's hints under the names that they have in one process and in several."""
        if self.teacher is None:
            return None
        bare = {name: self.accelerator.unwrap_model(hint) for name, hint in self.teacher.hints.items()}
        return nn.ModuleDict(bare).state_dict()

    def _restore(self, found: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        _check_same(found, self.contract, self.recipe, self.out)
        if (found.extra.get("hints") is not None) != (self.teacher is not None):
            before = "without" if self.teacher else "with"
            raise UsageError(f"{self.out}: holds a run {before} a teacher; do the same again, or give another --out")
        self.model.load_state_dict(found.state_dict, strict=True)
        if self.average:
            self.average.load_state_dict(found.extra["average"])
        if self.teacher:
            hints = self.teacher.hints.state_dict()
            if {key: value.shape for key, value in found.extra["hints"].items()} != {
                key: value.shape for key, value in hints.items()
            }:
                raise UsageError(
                    f"{self.out}: holds a run with another teacher or of an older version; "
                    "give the same --teacher, or another --out"
                )
            self.teacher.hints.load_state_dict(found.extra["hints"])
        optimizer.load_state_dict(found.extra["optimizer"])
        if self.accelerator.scaler and found.extra.get("scaler"):
            self.accelerator.scaler.load_state_dict(found.extra["scaler"])
        self.progress = Progress(**found.extra["progress"])
        self.progress.finished = self._over()
        self.tally = Tally(**found.extra["tally"])

    def _load_teacher(self, path: Path | None) -> Teacher | None:
        if path is None:
            return None
        network = load_model(load_checkpoint(path))
        network.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Teacher(network, self.model, self.contract.input_size, self.recipe.teacher_temperature)

    def _catalog_path(self) -> str:
        return str((self.out / CATALOG).resolve())

    def _write_history(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.progress.history)
        (self.out / METRICS).write_text(lines, encoding="utf-8")

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a stop after the step that runs; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: FrameType | None) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def finish(path: Path, catalog: Catalog, logits: Logits, *, max_fpr: float, max_fnr: float) -> ModelContract:
    """Calibrate the best checkpoint on its validation logits, write that into it, and return its contract."""
    checkpoint = load_checkpoint(path)
    valid = catalog.split("valid")
    labels = [face.label for face in valid]
    calibration = fit_calibration(logits, labels, max_fpr=max_fpr, max_fnr=max_fnr)
    scores = fake_scores(logits, calibration.temperature)
    figures = measure(labels, scores, threshold=calibration.balanced, groups=group_faces(valid), bootstrap=200)
    contract = checkpoint.contract.replace(
        calibrations={CHECKPOINT: calibration}, metrics={CHECKPOINT: {"validation": figures}}
    )
    save_checkpoint(path, load_model(checkpoint), contract, catalog=checkpoint.catalog)
    return contract


def _contract(catalog: Catalog, arch: str, recipe: Recipe, demo: bool) -> ModelContract:
    backbone = find_backbone(arch)
    size = recipe.input_size or backbone.input_size
    return ModelContract(
        arch,
        input_size=size,
        mean=backbone.mean,
        scale=backbone.scale,
        pixels=pixel_recipe(recipe.pixels, size),
        framing=Framing.DETECTED if any(face.box for face in catalog.records) else Framing.WHOLE,
        data=catalog.fingerprint,
        demo=demo,
    )


def _network(found: Checkpoint | None, arch: str, recipe: Recipe) -> nn.Module:
    """Build the network with its first weights, or, for a run that goes on, as it was built then."""
    if found and found.contract.architecture == arch:
        return find_backbone(arch).build(CLASSES, **found.options)
    return build_backbone(arch, weights=recipe.weights)


def _own_words(error: Exception) -> str:
    """Return what an error says, without the traceback that a process which loads pictures hands on with it."""
    return str(error.args[0]).splitlines()[-1].split(f"{type(error).__name__}: ", 1)[-1]


def _check_splits(catalog: Catalog) -> None:
    for split in ("train", "valid"):
        present = {face.label for face in catalog.split(split)}
        for label, name in enumerate(LABELS):
            if label not in present:
                raise DataError(f"the {split} split holds no {name} faces; give more pictures or another --split")


def _check_same(found: Checkpoint, contract: ModelContract, recipe: Recipe, out: Path) -> None:
    if found.contract.architecture != contract.architecture:
        raise UsageError(
            f"{out}: holds a run of {found.contract.architecture}, not {contract.architecture}; give another --out"
        )
    if found.contract.data != contract.data:
        raise DataError(f"{out}: holds a run on other data; give its {CATALOG}, or another --out")
    before, now = found.extra.get("recipe", {}), recipe.to_dict()
    # What an older version did not know yet is no difference; when to stop and what to keep may change.
    changed = [name for name in now if before.get(name, now[name]) != now[name] and name not in ("patience", "keep")]
    if changed:
        name = changed[0]
        raise UsageError(
            f"{out}: holds a run with {name} {before.get(name)}, not {now[name]}; "
            "repeat its options to go on, or give another --out"
        )


def training_precision(wanted: str, device: str, model: nn.Module) -> str:
    """Return what a step is computed in, `bf16`, `fp16` or `no`: what is wanted, or for `auto` the fastest."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available() and device != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # Measured: bf16 halves the time of ResNet-50 and doubles that of networks with depthwise convolutions.
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in model.modules())
    return "bf16" if native and not depthwise else "no"


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), recipe.learning_rate)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate)


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """Return a running average of weights and batch statistics; its decay warms up, for short runs."""

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Any) -> None:
        share = 1.0 - min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, values, share)
        else:
            torch._foreach_copy_(averages, values)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _class_weights(catalog: Catalog) -> torch.Tensor:
    counts = np.bincount([face.label for face in catalog.split("train")], minlength=len(LABELS))
    return torch.tensor(counts.sum() / (len(LABELS) * counts), dtype=torch.float32)


def _ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the process that saves; a terminal sends it to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tensorboard(out: Path, row: Mapping[str, Any]) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(out / "tensorboard")) as writer:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, row["epoch"])

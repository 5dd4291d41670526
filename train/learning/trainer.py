"""Training: from a catalog and a recipe to the checkpoint that was best on the validation split.

Every random draw is a function of the seed and the step, so a resumed run gives the same numbers as one that was never
stopped.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader

from edge_runtime.errors import DataError, UsageError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import LABELS, Framing, ModelContract
from edge_runtime.systemd import stopping_on_signals
from train.choices import Keep, StepPrecision, TrainingDevice
from train.data.catalog import Catalog
from train.evaluation.logits import PictureGoneError, judge, require_logits
from train.evaluation.metrics import auc
from train.learning.dataset import Batch, CurrentBatches, FaceDataset, collate, epoch_batches
from train.learning.distillation import Teacher
from train.learning.objectives import build_objective
from train.learning.optimizer import build_optimizer, running_average, training_precision
from train.learning.pace import VALIDATION_COST, images_per_second
from train.learning.recipes import Recipe
from train.learning.schedule import Schedule
from train.learning.session import BEST, RunState, Session, Tally
from train.models.backbones import find_backbone
from train.models.checkpoint import load_checkpoint, load_model, pixel_recipe
from train.models.network import keep_memory, normalize, torch_logits
from train.models.state_dict import first_line
from train.parallel import progress_bar

SAVE_EVERY_S = 300.0
"""Seconds between two saves inside an epoch."""

MEASURED_FACES = 256
"""Training faces on which the scales of a teacher's maps are measured."""


class Trainer:
    """Trains one network in one folder; a run that was stopped there is resumed.

    Args:
        catalog: with faces of both classes in train and valid.
        arch: the backbone's name.
        recipe: how to train.
        out: the folder of the run.
        teacher: a checkpoint to learn from, beside the labels.
        workers: processes that load pictures; 0 loads in this process, None takes up to 4.
        precision: of a step.
        demo: whether the faces are drawn samples.
        device: where to train.
        save_every_s: seconds between two saves inside an epoch.

    Raises:
        DataError: a split lacks a class, or the folder holds a run on other data.
        UsageError: the folder holds a run with another recipe, another training runs there, the recipe does not fit the
            backbone, or /dev/shm is too small for the workers.
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
        precision: StepPrecision = StepPrecision.AUTO,
        demo: bool = False,
        device: TrainingDevice = TrainingDevice.AUTO,
        save_every_s: float = SAVE_EVERY_S,
    ) -> None:
        check_splits(catalog)
        one_size = find_backbone(arch).one_size
        if recipe.staged and one_size:
            raise UsageError(f"--staged {recipe.staged}: {arch} has no maps to learn one by one; give --staged 0")
        self.catalog, self.recipe, self.out = catalog, recipe, out
        self.contract = training_contract(catalog, arch, recipe, demo=demo)
        self.workers = min(4, os.cpu_count() or 1) if workers is None else workers
        check_shared_memory(self.workers, recipe.batch, self.contract.input_size)
        self.session = Session(out, catalog, self.contract, recipe)
        torch.manual_seed(recipe.seed)
        model = self.session.build_network()
        self.accelerator = Accelerator(
            mixed_precision=training_precision(precision, device, model),
            cpu=device == TrainingDevice.CPU,
            log_with="tensorboard",
            project_dir=out,
        )
        if self.accelerator.device.type == "cpu":
            keep_memory()
        model.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The average is a copy: it is made before the teacher registers hooks on the model.
        average = running_average(model, recipe.ema).to(self.accelerator.device) if recipe.ema else None
        train = catalog.split("train")
        size = self.contract.input_size
        self.dataset = FaceDataset(
            train,
            self.contract,
            recipe.chances,
            sizes=(size,) if one_size else recipe.sizes(size),
            ramp=round(recipe.ramp * recipe.epochs),
            spared=recipe.spared,
            seed=recipe.seed,
        )
        labels = [face.label for face in train]
        taught = self._load_teacher(teacher, model) if teacher else None
        objective = build_objective(labels, recipe, self.accelerator, taught, model)
        optimizer = build_optimizer(nn.ModuleList([model, objective.hints]), recipe)
        self.network, optimizer = self.accelerator.prepare(model, optimizer)
        self.state = RunState(model, average, objective, optimizer, self.accelerator.scaler)
        self.steps = len(train) // min(recipe.batch, len(train))
        self.session.restore(self.state, self.steps)
        self.state.progress.finished = self._is_over()
        self.schedule = Schedule(recipe, self.steps, objective.stages)
        self._stop = threading.Event()
        self._save_every_s = save_every_s

    def run(self, report: Callable[[Mapping[str, Any]], None] | None = None) -> Path:
        """Train to the end and return the best checkpoint.

        Args:
            report: receives the figures of every epoch.

        Raises:
            KeyboardInterrupt: `stop` was called, or SIGINT or SIGTERM came. All steps so far are saved.
            OSError: something can't be written. The run resumes from the last save.
            PictureGoneError: a picture can't be read any more. All steps so far are saved.
            UsageError: a process that loads pictures died. The run resumes from the last save.
        """
        main, progress = self.accelerator.is_main_process, self.state.progress
        others = multiprocessing.active_children()
        # Local, so that its processes end with the run, however that ends.
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=CurrentBatches(self._rest_of_epoch),
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=_ignore_signals,
        )
        try:
            if main:
                self.session.begin(progress.history)
            with stopping_on_signals(self.stop):
                while not progress.finished:
                    self._train_epoch(loader)
                    self._finish_epoch()
                    if report and main:
                        report(progress.history[-1])
                    if self._stop.is_set() and not progress.finished:
                        raise KeyboardInterrupt
            if self.recipe.keep == Keep.LAST and main:
                self.session.keep(self.state.judged)
        except PictureGoneError:
            if main and progress.step:
                self.session.save(self.state)
            raise
        except (RuntimeError, OSError, EOFError) as error:
            # A process that dies resets its connections before it is gone, which torch's own handler then reports.
            with contextlib.suppress(RuntimeError):
                time.sleep(1.0 if self.workers else 0.0)
            if len(set(multiprocessing.active_children()) - set(others)) >= self.workers:
                raise
            raise UsageError(
                f"--workers {self.workers}: a process that loads pictures died ({first_line(error)}); "
                "give fewer, or 0, to resume from the last save"
            ) from None
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
            self.session.close()
        return self.out / BEST

    def minutes_left(self) -> float:
        """Estimate the minutes to the last epoch, from the last epoch's speed or from a step on random images."""
        recipe, progress, size = self.recipe, self.state.progress, self.contract.input_size
        if progress.history:
            rate = progress.history[-1]["images_per_second"]
        else:
            rate = images_per_second(self.contract.architecture, recipe, device=self.accelerator.device.type, steps=1)
            rate *= self.accelerator.num_processes
        # The time of an image grows with its area.
        areas = [(side / size) ** 2 for side in recipe.sizes(size)[progress.epoch :]]
        images = sum(areas) * len(self.dataset) + len(areas) * VALIDATION_COST * len(self.catalog.split("valid"))
        return images / rate / 60

    def stop(self) -> None:
        """Stop after the current step: save it and raise KeyboardInterrupt in `run`."""
        self._stop.set()

    def _train_epoch(self, loader: DataLoader[Any]) -> None:
        state, progress, tally = self.state, self.state.progress, self.state.tally
        epoch, done = progress.epoch, progress.step - progress.epoch * self.steps
        if state.objective.stages and progress.step == self.schedule.together:
            state.optimizer.state.clear()  # Drop Adam's moments: they belong to the stages.
        network = state.objective.begin(self.network, epoch, resumed=done > 0)
        with progress_bar(f"epoch {epoch + 1}/{self.recipe.epochs}", self.steps) as advance:
            advance(done)
            asked = time.perf_counter()
            for batch in loader:
                arrived = time.perf_counter()
                if isinstance(batch, PictureGoneError):
                    raise batch
                self._step(network, batch)
                advance(1)
                tally.waited_s += arrived - asked
                asked = time.perf_counter()
                tally.worked_s += asked - arrived
                if progress.step % self.steps == 0:
                    continue  # `_finish_epoch` saves.
                stopping = self._stop.is_set()
                due = stopping or time.monotonic() - self.session.saved_at > self._save_every_s
                if due and self.accelerator.is_main_process:
                    self.session.save(state)
                if stopping:
                    raise KeyboardInterrupt

    def _step(self, network: nn.Module, batch: Batch) -> None:
        state, device = self.state, self.accelerator.device
        step, judges = state.progress.step, state.objective.stride(state.progress.epoch) is None
        torch.manual_seed((self.recipe.seed << 32) + step)
        for group in state.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(step)
        images, labels = normalize(batch[0].to(device), self.contract), batch[1].to(device)
        output = network(images)
        loss = state.objective.loss(images, output, labels)
        if judges:
            state.tally.right += int((output.argmax(1) == labels).sum())
        state.optimizer.zero_grad()
        self.accelerator.backward(loss)
        state.optimizer.step()
        if state.average and judges:
            state.average.update_parameters(state.model)
        state.progress.step += 1
        state.tally.loss += float(loss.detach()) * len(labels)
        state.tally.faces += len(labels)

    def _finish_epoch(self) -> None:
        """Judge the epoch on the validation split, keep the network if it is the best, and save."""
        state, progress, main = self.state, self.state.progress, self.accelerator.is_main_process
        rows = [self._figures()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(rows)
        (row,) = rows
        progress.history.append(row)
        progress.epoch += 1
        better = row.get("auc", -1.0) > progress.best_auc
        if better:
            progress.best_auc, progress.best_epoch = row["auc"], row["epoch"]
        progress.finished = self._is_over()
        state.tally = Tally()
        if not main:
            return
        if better:
            self.session.keep(state.judged)
        self.session.save(state)
        self.session.write_history(progress.history)
        if not self.accelerator.trackers:
            self.accelerator.init_trackers("tensorboard")
        figures = {name: value for name, value in row.items() if name not in ("epoch", "step")}
        self.accelerator.log(figures, step=row["epoch"])

    def _figures(self) -> dict[str, Any]:
        """Return the figures of the epoch, summed over all processes; the main process alone judges."""
        tally, progress = self.state.tally, self.state.progress
        sums = torch.tensor([tally.loss, tally.right, tally.faces], device=self.accelerator.device)
        loss, right, faces = self.accelerator.reduce(sums, "sum").tolist()
        if not self.accelerator.is_main_process:
            return {}
        busy_s = tally.waited_s + tally.worked_s
        stride = self.state.objective.stride(progress.epoch)
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            **({"stride": stride} if stride else {}),
            "learning_rate": self.schedule.learning_rate(progress.step - 1),
            "train_loss": loss / faces,
            "seconds": busy_s,
            "images_per_second": int(faces) / busy_s if busy_s else 0.0,
            "waiting": tally.waited_s / busy_s if busy_s else 0.0,
        }
        if stride:
            return row
        valid = self.catalog.split("valid")
        with self.accelerator.autocast():
            network = torch_logits(self.state.judged, self.contract, str(self.accelerator.device))
            logits = judge(network, self.contract, valid)
        require_logits(valid, logits)
        labels, scores = np.array([face.label for face in valid]), fake_scores(logits)
        likelihood = np.clip(np.where(labels == 1, scores, 1 - scores), 1e-12, 1)
        return row | {
            "train_accuracy": right / faces,
            "valid_loss": float(-np.log(likelihood).mean()),
            "valid_accuracy": float(((scores >= 0.5) == (labels == 1)).mean()),
            "auc": auc(labels, scores),
        }

    def _is_over(self) -> bool:
        progress, stages = self.state.progress, len(self.state.objective.stages)
        stale = progress.epoch - max(progress.best_epoch, stages)
        return progress.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= stale

    def _load_teacher(self, path: Path, student: nn.Module) -> Teacher:
        """Load the teacher and measure its maps on faces without augmentation, the same in every process."""
        device, contract = self.accelerator.device, self.contract
        network = load_model(load_checkpoint(path))
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        teacher = Teacher(network, student, contract.input_size, self.recipe.teacher_temperature)
        faces = FaceDataset(self.dataset.records, contract, {}, seed=self.recipe.seed)
        count = min(MEASURED_FACES, len(faces))

        def batches() -> Iterator[torch.Tensor]:
            for first in range(0, count, 16):
                keys = range(first, min(first + 16, count))
                pixels = torch.stack([faces[key * len(faces) // count][0] for key in keys])
                yield normalize(pixels.to(device), contract)

        if teacher.strides:
            teacher.measure(batches())
        return teacher

    def _rest_of_epoch(self) -> list[list[int]]:
        progress = self.state.progress
        return epoch_batches(
            len(self.dataset),
            self.recipe.batch,
            seed=self.recipe.seed,
            epoch=progress.epoch,
            first=progress.step - progress.epoch * self.steps,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )


def check_splits(catalog: Catalog) -> None:
    """Check that train and valid hold faces of both classes.

    Raises:
        DataError: one does not.
    """
    for split in ("train", "valid"):
        present = {face.label for face in catalog.split(split)}
        for label, name in enumerate(LABELS):
            if label not in present:
                raise DataError(f"the {split} split holds no {name} faces; give more pictures or another --split")


def check_shared_memory(workers: int, batch: int, side: int) -> None:
    """Check that the batches which loader processes hold ready, two each, fit into /dev/shm.

    Raises:
        UsageError: they do not.
    """
    shared = Path("/dev/shm")
    if not workers or not shared.is_dir():
        return
    needed, free = (2 * workers + 1) * batch * side * side * 3, shutil.disk_usage(shared).free
    if free < needed:
        raise UsageError(
            f"--workers {workers}: /dev/shm has {free / 2**20:.0f} MB free, {needed / 2**20:.0f} MB are needed; "
            "give --workers 0"
        )


def training_contract(catalog: Catalog, arch: str, recipe: Recipe, *, demo: bool = False) -> ModelContract:
    """Return the contract of the model that `recipe` makes from `catalog`."""
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


def _ignore_signals(worker: int) -> None:
    """Leave SIGINT and SIGTERM, which often come to all processes, to the one that saves; it ends the loaders."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

"""Training: from a catalog and a recipe to the checkpoint that was best on the validation split.

Every random draw is a function of the seed and the step, so a resumed run gives the same numbers as one that was never
stopped.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader

from edge_runtime.errors import UsageError
from edge_runtime.systemd import stopping_on_signals
from train.choices import Keep, StepPrecision, TrainingDevice
from train.data.catalog import Catalog
from train.distributed import from_main, highest, share_statistics
from train.evaluation.logits import PictureGoneError
from train.learning.dataset import Batch, FaceDataset
from train.learning.epoch_order import EpochOrder
from train.learning.loading import build_loader, check_shared_memory, dead_loaders_reported
from train.learning.objectives import build_objective, load_teacher
from train.learning.optimizer import Schedule, build_optimizer, running_average, training_precision
from train.learning.pace import VALIDATION_COST, images_per_second
from train.learning.recipes import Recipe
from train.learning.session import BEST, RunState, Session, Tally, training_contract
from train.learning.validation import renew_statistics, validation_figures
from train.models.backbones import find_backbone
from train.models.network import keep_memory, normalize
from train.parallel import progress_bar


class Trainer:
    """Trains one network in one folder; a run that was stopped there is resumed.

    Args:
        teacher: a checkpoint to learn from, besides the labels.
        workers: processes that load pictures; 0 loads in this process, None takes up to 4.
        precision: of a step.
        demo: whether the faces are drawn samples.
        save_every_s: seconds between two saves inside an epoch.

    Raises:
        DataError: a split lacks a class, or the folder holds a run on other data.
        UsageError: the folder holds a run with another recipe, another training runs there, the recipe does not fit the
            backbone, /dev/shm is too small for the workers, a batch has fewer faces than there are processes, or the
            processes differ in data or options.
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
        save_every_s: float = 300.0,
    ) -> None:
        self.catalog, self.recipe = catalog, recipe
        self.contract = training_contract(catalog, arch, recipe, demo=demo)
        self.workers = min(4, os.cpu_count() or 1) if workers is None else workers
        check_shared_memory(self.workers, recipe.batch, self.contract.input_size)
        # On a machine without a GPU, Accelerate ignores the other processes unless cpu is set.
        on_cpu = device == TrainingDevice.CPU or not torch.accelerator.is_available()
        PartialState(cpu=on_cpu)
        self.session = Session(out, catalog, self.contract, recipe)
        torch.manual_seed(recipe.seed)
        model = self.session.build_network()
        self.accelerator = Accelerator(
            mixed_precision=training_precision(precision, device, model),
            cpu=on_cpu,
        )
        if self.accelerator.device.type == "cpu":
            keep_memory()
        model.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The average is a copy: it is made before the teacher registers hooks on the model.
        average = running_average(model, recipe.ema).to(self.accelerator.device) if recipe.ema else None
        share_statistics(model)
        train, size = catalog.split("train"), self.contract.input_size
        self.dataset = FaceDataset(
            train,
            self.contract,
            recipe.chances,
            sizes=(size,) if find_backbone(arch).one_size else recipe.sizes(size),
            ramp=round(recipe.ramp * recipe.epochs),
            clean_share=recipe.clean_share,
            seed=recipe.seed,
        )
        taught = load_teacher(teacher, model, self.dataset, recipe, self.accelerator.device) if teacher else None
        self.order = EpochOrder.plan(train, recipe)
        self._require_same_run(taught.sha256 if taught else "")
        objective = build_objective(self.order.counts, recipe, self.accelerator, taught, model)
        optimizer = build_optimizer(nn.ModuleList([model, objective.hints]), recipe)
        self.network, optimizer = self.accelerator.prepare(model, optimizer)
        self.state = RunState(model, average, objective, optimizer, self.accelerator.scaler)
        self.steps = len(train) // self.order.batch
        self.session.restore(self.state, self.steps)
        if not self.accelerator.is_main_process:
            self.state.tally = Tally()  # The main process has the sums over all.
        self.state.progress.finished = self._is_over()
        self.schedule = Schedule(recipe, self.steps, objective.stages)
        self._stop = threading.Event()
        self._save_every_s = save_every_s

    def run(self, report: Callable[[Mapping[str, Any]], None] | None = None) -> Path:
        """Train to the end and return the best checkpoint; `report` receives the figures of every epoch.

        Raises:
            KeyboardInterrupt: `stop` was called, or SIGINT or SIGTERM came. All steps so far are saved.
            OSError: something can't be written. The run resumes from the last save.
            PictureGoneError: a picture can't be read any more. All steps so far are saved.
            UsageError: a process that loads pictures died. The run resumes from the last save.
        """
        main, progress = self.accelerator.is_main_process, self.state.progress
        try:
            with dead_loaders_reported(self.workers), stopping_on_signals(self.stop):
                # Local, so that its processes end with the run, however that ends.
                loader = build_loader(self.dataset, self._rest_of_epoch, self.workers)
                if main:
                    self.session.begin(progress.history)
                while not progress.finished:
                    self._train_epoch(loader)
                    self._finish_epoch()
                    if report and main:
                        report(progress.history[-1])
                    if highest(self._stop.is_set()) and not progress.finished:
                        raise KeyboardInterrupt
                if self.recipe.keep == Keep.LAST and main:
                    self.session.keep(self.state.judged)
        except PictureGoneError:
            if main and progress.step:
                self.session.save(self.state)
            raise
        finally:
            self.session.close()
        return self.session.out / BEST

    def minutes_left(self) -> float:
        """Estimate the minutes to the last epoch, from the last epoch's speed or from a step on random images."""
        recipe, size, history = self.recipe, self.contract.input_size, self.state.progress.history
        if history:
            rate = history[-1]["images_per_second"]
        else:
            rate = images_per_second(self.contract.architecture, recipe, device=self.accelerator.device.type, steps=1)
            rate *= self.accelerator.num_processes
        # The time of an image grows with its area.
        areas = [(side / size) ** 2 for side in recipe.sizes(size)[len(history) :]]
        judged = len(self.catalog.split("valid")) + recipe.statistics
        images = sum(areas) * len(self.dataset) + len(areas) * VALIDATION_COST * judged
        return float(images / rate / 60)

    def stop(self) -> None:
        """Stop after the current step: save it and raise KeyboardInterrupt in `run`."""
        self._stop.set()

    def _require_same_run(self, teacher_sha256: str) -> None:
        world, batch = self.accelerator.num_processes, self.order.batch
        if batch < world:
            raise UsageError(f"--batch {batch}: fewer faces than the {world} processes; give a larger one")
        faces = hashlib.sha256("".join(face.sha256 for face in self.catalog.records).encode()).hexdigest()
        ours = (self.contract, self.recipe, faces, self.session.drawn, teacher_sha256)
        if from_main(lambda: ours) != ours:
            raise UsageError(
                f"process {self.accelerator.process_index} has other faces or options than the first one; give all "
                "processes the same shards or catalog and the same options"
            )

    def _train_epoch(self, loader: DataLoader[Any]) -> None:
        state, progress, main = self.state, self.state.progress, self.accelerator.is_main_process
        epoch, done = progress.epoch, progress.step - progress.epoch * self.steps
        if state.objective.stages and progress.step == self.schedule.together:
            state.optimizer.state.clear()  # Drop Adam's moments: they belong to the stages.
        network = state.objective.begin(self.network, epoch, resumed=done > 0)
        with progress_bar(f"epoch {epoch + 1}/{self.recipe.epochs}", self.steps) as advance:
            advance(done)
            asked = time.perf_counter()
            for batch in loader:
                arrived = time.perf_counter()
                gone = isinstance(batch, PictureGoneError)
                if highest(gone):
                    self._sum_tally()  # `run` saves it.
                    raise batch if gone else PictureGoneError("another process can't read a picture; see its message")
                self._step(network, batch)
                advance(1)
                state.tally.waited_s += arrived - asked
                asked = time.perf_counter()
                state.tally.worked_s += asked - arrived
                if progress.step % self.steps == 0:
                    continue  # `_finish_epoch` saves.
                due = main and time.monotonic() - self.session.saved_at > self._save_every_s
                # A stop asked of any process counts 2, a save that is due 1.
                asked_for = highest(2 if self._stop.is_set() else int(due))
                if asked_for:
                    self._sum_tally()
                    if main:
                        self.session.save(state)
                if asked_for == 2:
                    raise KeyboardInterrupt

    def _step(self, network: nn.Module, batch: Batch) -> None:
        state, device = self.state, self.accelerator.device
        step, judges = state.progress.step, state.objective.stride(state.progress.epoch) is None
        # Of dropout, where each process has faces of its own.
        torch.manual_seed((self.recipe.seed << 32) + (self.accelerator.process_index << 28) + step)
        for group in state.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(step)
        images, labels = normalize(batch[0].to(device), self.contract), batch[1].to(device)
        output = network(images)
        loss = state.objective.loss(images, output, labels)
        if judges:
            state.tally.right += int((output.argmax(1) == labels).sum())
        state.optimizer.zero_grad()
        # Gradients are averaged over processes; one with more faces than others weighs more.
        self.accelerator.backward(loss * (len(labels) * self.accelerator.num_processes / self.order.batch))
        state.optimizer.step()
        if state.average and judges:
            state.average.update_parameters(state.model)
        state.progress.step += 1
        state.tally.loss += float(loss.detach()) * len(labels)
        state.tally.faces += len(labels)

    def _finish_epoch(self) -> None:
        """Judge the epoch on the validation split, keep the network if it is the best, and save."""
        progress = self.state.progress
        rows = [self._figures()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(rows)
        better = progress.add_epoch(rows[0])
        progress.finished = self._is_over()
        self.state.tally = Tally()
        if self.accelerator.is_main_process:
            if better:
                self.session.keep(self.state.judged)
            self.session.finish_epoch(self.state)

    def _figures(self) -> dict[str, Any]:
        """Return the figures of the epoch over all processes.

        `seconds` and `waiting` are this one's; `images_per_second` counts the faces of all in these seconds.
        """
        state, tally, device = self.state, self._sum_tally(), self.accelerator.device
        busy_s = tally.waited_s + tally.worked_s
        stride = state.objective.stride(state.progress.epoch)
        row = {
            "epoch": state.progress.epoch + 1,
            "step": state.progress.step,
            **({"stride": stride} if stride else {}),
            "learning_rate": self.schedule.learning_rate(state.progress.step - 1),
            "train_loss": tally.loss / tally.faces,
            "seconds": busy_s,
            "images_per_second": tally.faces / busy_s if busy_s else 0.0,
            "waiting": tally.waited_s / busy_s if busy_s else 0.0,
        }
        if stride:
            return row
        model, contract = state.judged, self.contract
        with self.accelerator.autocast():
            renew_statistics(model, contract, self.dataset.records, self.recipe.statistics, device)
            judged = validation_figures(model, contract, self.catalog.split("valid"), device)
        return row | {"train_accuracy": tally.right / tally.faces} | judged

    def _sum_tally(self) -> Tally:
        """Return the tally over all processes, which the main one keeps; the others start again at 0."""
        tally, device = self.state.tally, self.accelerator.device
        if self.accelerator.num_processes > 1:
            # A single process may run on Apple's GPU, which has no doubles.
            sums = torch.tensor([tally.loss, tally.right, tally.faces], dtype=torch.float64, device=device)
            loss, right, faces = self.accelerator.reduce(sums, "sum").tolist()
            tally = replace(tally, loss=loss, right=int(right), faces=int(faces))
            self.state.tally = tally if self.accelerator.is_main_process else Tally()
        return tally

    def _is_over(self) -> bool:
        progress, stages = self.state.progress, len(self.state.objective.stages)
        stale = progress.epoch - max(progress.best_epoch, stages)
        return progress.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= stale

    def _rest_of_epoch(self) -> list[list[int]]:
        progress = self.state.progress
        return self.order.batches(
            progress.epoch,
            first=progress.step - progress.epoch * self.steps,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

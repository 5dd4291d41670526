import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import Accelerator

from edge_runtime.errors import CheckpointError, DataError, UsageError
from edge_runtime.model.contract import Calibration, Framing
from train.choices import FrontEnd, Keep
from train.commands.train import calibrate_checkpoint
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.logits import checkpoint_logits
from train.learning.epoch_order import EpochOrder
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
from train.learning.validation import renew_statistics
from train.models.backbones import with_front_end
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint

TINY = Recipe(weights="none", input_size=32, epochs=2, batch=8, chances={"flip": 0.5, "crop": 1.0}, ema=0.5)


@pytest.fixture(scope="module")
def catalog(faces, tiny_backbone):
    return load_data(faces)


def trainer(catalog, out, recipe=TINY, arch="tiny", **options):
    return Trainer(catalog, arch, recipe, out, **{"workers": 0, "precision": "no", "device": "cpu"} | options)


@pytest.fixture(scope="module")
def whole(catalog, tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    trainer(catalog, out).run()
    return out


def after_step(run, number, action):
    """Call `action` when step `number` of `run` is done; every step where `number` is None."""
    steps = count(run.state.progress.step + 1)
    run.state.optimizer.optimizer.register_step_post_hook(lambda *_: action() if next(steps) == number else None)


def stop_after(run, number):
    after_step(run, number, run.stop)
    with pytest.raises(KeyboardInterrupt):
        run.run()


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def same_weights(first, second, name="last.pth"):
    return same(*(load_checkpoint(path / name).state_dict for path in (first, second)))


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def saved_step(out):
    return load_checkpoint(out / "last.pth").extra["progress"]["step"]


def test_run_writes_checkpoints_figures_and_catalog(whole, catalog):
    assert [row["epoch"] for row in rows(whole)] == [1, 2]
    assert {"train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "auc", "waiting"} <= set(rows(whole)[0])
    assert Catalog.read(whole / "catalog.csv").fingerprint == catalog.fingerprint
    best = load_checkpoint(whole / "best.pth")
    assert best.contract.data == catalog.fingerprint
    assert best.catalog == str(whole / "catalog.csv")
    assert list((whole / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["best.pth", "last.pth"])
def test_kept_statistics_are_those_of_plain_faces(whole, catalog, name):
    checkpoint = load_checkpoint(whole / name)
    kept, model = checkpoint.state_dict, load_model(checkpoint)
    if name == "last.pth":
        kept = {key: checkpoint.extra["average"][f"module.{key}"] for key in kept}
        model.load_state_dict(kept)
    kept = {key: value.clone() for key, value in kept.items()}
    renew_statistics(model, checkpoint.contract, catalog.split("train"), TINY.statistics, torch.device("cpu"))
    assert same(model.state_dict(), kept)


def test_one_process_needs_no_doubles_on_its_device(catalog, tmp_path, monkeypatch):
    """Apple's GPU has none."""
    made = torch.tensor

    def tensor(*values, **options):
        if options.get("device") is not None and options.get("dtype") is torch.float64:
            raise TypeError("MPS does not support float64")
        return made(*values, **options)

    monkeypatch.setattr(torch, "tensor", tensor)
    trainer(catalog, tmp_path).run()
    assert len(rows(tmp_path)) == TINY.epochs


def test_seed_decides_the_weights(whole, catalog, tmp_path):
    trainer(catalog, tmp_path / "again").run()
    trainer(catalog, tmp_path / "other", replace(TINY, seed=7)).run()
    assert same_weights(whole, tmp_path / "again")
    assert not same_weights(whole, tmp_path / "other")


@pytest.mark.parametrize("step", [2, 4, 6])
def test_resumed_run_equals_an_unstopped_one(whole, catalog, tmp_path, step):
    stop_after(trainer(catalog, tmp_path), step)
    assert saved_step(tmp_path) == step
    trainer(catalog, tmp_path).run()
    assert same_weights(whole, tmp_path)
    assert same_weights(whole, tmp_path, "best.pth")
    assert [row["train_loss"] for row in rows(whole)] == [row["train_loss"] for row in rows(tmp_path)]
    before = (tmp_path / "last.pth").stat().st_mtime_ns
    trainer(catalog, tmp_path).run()
    assert (tmp_path / "last.pth").stat().st_mtime_ns == before  # a finished run is not trained again


@pytest.mark.parametrize(("split", "workers"), [("train", 0), ("train", 1), ("valid", 0)])
def test_missing_picture_is_named_and_costs_no_step(whole, faces, tmp_path, split, workers):
    catalog = load_data(shutil.copytree(faces, tmp_path / faces.name))
    train = catalog.split("train")
    first = EpochOrder.plan(train, TINY).batches(1)[0][0] - len(train)
    gone, away = catalog.split(split)[first if split == "train" else 0].path, tmp_path / "away.png"
    run = trainer(catalog, tmp_path / "run", workers=workers)
    after_step(run, 1, lambda: gone.rename(away))
    with pytest.raises(DataError, match=rf"^{re.escape(str(gone))}: not found; "):
        run.run()
    assert saved_step(tmp_path / "run") == run.state.progress.step > 0
    away.rename(gone)
    trainer(catalog, tmp_path / "run").run()
    assert same_weights(whole, tmp_path / "run")


SCRIPT = """
import sys, time
from pathlib import Path
from train.data.build import load_data
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
faces, out, save_every_s = sys.argv[1:]
recipe = Recipe(weights="none", input_size=32, epochs=2, batch=8, chances={"flip": 0.5, "crop": 1.0}, ema=0.5)
options = dict(workers=1, precision="no", device="cpu", save_every_s=float(save_every_s))
run = Trainer(load_data(faces), "shufflenet_v2_x1_0", recipe, Path(out), **options)
def tell(*_):
    print(run.state.progress.step + 1, flush=True)
    time.sleep(0.4)
run.state.optimizer.optimizer.register_step_post_hook(tell)
try:
    run.run()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
def test_killed_process_resumes_from_its_last_save(catalog, faces, tmp_path):
    arch = "shufflenet_v2_x1_0"
    trainer(catalog, tmp_path / "whole", arch=arch).run()
    for how, save_every_s in ((signal.SIGKILL, 0.0), (signal.SIGTERM, 300.0)):
        out = tmp_path / how.name
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(faces), str(out), str(save_every_s)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while (step := int(process.stdout.readline() or 99)) < 3:
            pass
        # systemd, Slurm and timeout send SIGTERM to all processes.
        (os.killpg if how == signal.SIGTERM else os.kill)(process.pid, how)
        process.communicate(timeout=60)
        assert process.returncode == (130 if how == signal.SIGTERM else -how)
        assert step - 1 <= saved_step(out) <= step
        assert how == signal.SIGKILL or saved_step(out) == step
        trainer(catalog, out, arch=arch).run()
        assert same_weights(tmp_path / "whole", out)


def test_second_training_in_a_folder_is_refused(catalog, tmp_path):
    def start_second():
        with pytest.raises(UsageError, match="another training runs"):
            trainer(catalog, tmp_path)

    first = trainer(catalog, tmp_path)
    after_step(first, 1, start_second)
    first.run()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["best.pth", "last.pth", "metrics.jsonl"])
def test_full_disk_leaves_a_resumable_run(whole, catalog, tmp_path, name):
    run = trainer(catalog, tmp_path, save_every_s=0.0)
    partial = tmp_path / f".{name}.partial"
    after_step(run, 3, lambda: partial.symlink_to("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        run.run()
    assert not list(tmp_path.glob(".*.partial"))
    trainer(catalog, tmp_path).run()
    assert same_weights(whole, tmp_path)


@pytest.mark.parametrize("damage", [None, -1, 10**9, "x", [], {}, {"step": "x"}, b"\x00"])
def test_damaged_last_checkpoint_is_named(whole, catalog, tmp_path, damage):
    saved = torch.load(whole / "last.pth", weights_only=True)
    for key in ("contract", "model", "average", "optimizer", "progress", "tally", "format", "hints"):
        if (key, damage) == ("hints", None):
            continue  # as it is without a teacher
        torch.save({**saved, key: damage}, tmp_path / "last.pth")
        with pytest.raises((CheckpointError, UsageError), match=re.escape(str(tmp_path))):
            trainer(catalog, tmp_path)
    (tmp_path / "last.pth").write_bytes((whole / "last.pth").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="damaged"):
        trainer(catalog, tmp_path)


def test_dead_loader_process_is_named(catalog, tmp_path):
    others = psutil.Process().children()
    run = trainer(catalog, tmp_path, workers=1, save_every_s=0.0)
    after_step(run, 2, lambda: [child.kill() for child in psutil.Process().children() if child not in others])
    with pytest.raises(UsageError, match="--workers 1"):
        run.run()
    trainer(catalog, tmp_path).run()


def test_small_shared_memory_is_refused_before_work(monkeypatch, catalog, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(UsageError, match="--workers 0"):
        trainer(catalog, tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


def test_folder_of_another_run_is_refused(whole, catalog, faces):
    for said, options in (
        (r"learning_rate 0\.001, not 0\.1", {"recipe": replace(TINY, learning_rate=0.1)}),
        ("a run of tiny, not resnet18", {"arch": "resnet18"}),
        ("other data", {"catalog": load_data(faces, seed=1)}),
    ):
        with pytest.raises((UsageError, DataError), match=said):
            trainer(**{"catalog": catalog, "out": whole} | options)


def without(out, *names):
    """Take what an older version did not save out of a run's last checkpoint."""
    values = torch.load(out / "last.pth", weights_only=True)
    torch.save({name: value for name, value in values.items() if name not in names}, out / "last.pth")


def changed(catalog, **change):
    return Catalog(tuple(replace(face, **change) for face in catalog.records))


def by_name(face):
    return replace(face, source="phone" if face.path.stem < "012" else "studio")


def test_same_pictures_drawn_otherwise_are_refused(whole, catalog):
    faces = catalog.records
    boxed = tuple(replace(face, box=(4.0, 4.0, 60.0, 60.0)) for face in faces)
    for said, others in (("framing", boxed), ("sources", tuple(map(by_name, faces))), ("order", faces[::-1])):
        with pytest.raises(DataError, match=rf"^.* but not with the same {said}; give its catalog\.csv .*\Z"):
            trainer(Catalog(others), whole)


@pytest.fixture(scope="module")
def boxed(catalog):
    return changed(catalog, box=(4.123456789, 4.0, 60.0, 60.0), source="phone")


def test_boxes_of_a_run_are_needed_to_resume(boxed, tmp_path):
    stop_after(trainer(boxed, tmp_path), 1)
    for split in ("train", "valid"):
        lone = boxed.split(split)[0]
        faces = (replace(face, box=None) if face is lone else face for face in boxed.records)
        with pytest.raises(DataError, match="not with the same boxes"):
            trainer(Catalog(tuple(faces)), tmp_path)


def test_what_training_never_sees_may_change(boxed, tmp_path):
    """The sources too where an epoch is not balanced over them; the catalog is read back as it was written."""
    run = trainer(boxed, tmp_path)
    stop_after(run, 1)
    again = Catalog.read(tmp_path / "catalog.csv")
    faces = [replace(face, source="camera", identity=face.path.stem, phash="", sharpness=1.0) for face in again.records]
    faces = [replace(face, box=(0.0, 0.0, 9.0, 9.0)) if face.split == "test" else face for face in faces]
    assert trainer(Catalog(tuple(faces)), tmp_path, demo=True).state.progress.step == 1


def test_balanced_run_keeps_its_sources(several, tmp_path):
    stop_after(trainer(several, tmp_path), 1)
    with pytest.raises(DataError, match="not with the same sources"):
        trainer(changed(several, generator=""), tmp_path)
    unused = Catalog(tuple(replace(face, source="x") if face.generator else face for face in several.records))
    assert trainer(unused, tmp_path).state.progress.step == 1


def test_run_of_an_older_version_resumes(catalog, tmp_path, tiny_teacher):
    stop_after(trainer(catalog, tmp_path, teacher=tiny_teacher), 1)
    without(tmp_path, "drawn", "teacher")
    assert trainer(catalog, tmp_path, teacher=tiny_teacher).state.progress.step == 1


def test_processes_share_boxes_and_teacher(catalog, boxed, tmp_path, tiny_teacher, monkeypatch):
    first = []
    monkeypatch.setattr("train.learning.trainer.from_main", lambda make: first.append(make()) or first[0])
    recipe = replace(TINY, framing=Framing.DETECTED)
    trainer(catalog, tmp_path / "first", recipe)
    for faces, teacher in ((boxed, None), (catalog, tiny_teacher)):
        with pytest.raises(UsageError, match="other faces or options"):
            trainer(faces, tmp_path / "second", recipe, teacher=teacher)


def test_split_without_a_class_is_refused(catalog, tmp_path):
    reals = Catalog(tuple(face for face in catalog.records if face.label == 0 or face.split != "valid"))
    with pytest.raises(DataError, match="the valid split holds no fake faces"):
        trainer(reals, tmp_path)


def test_contract_follows_boxes_and_recipe(catalog, tmp_path):
    boxed = Catalog(tuple(replace(face, box=(4.0, 4.0, 60.0, 60.0)) for face in catalog.records))
    assert trainer(boxed, tmp_path).contract.framing is Framing.DETECTED
    contract = trainer(catalog, tmp_path, replace(TINY, pixels="article")).contract
    assert contract.framing is Framing.WHOLE
    assert (contract.input_size, contract.pixels.resize_to) == (32, 32)
    asked = replace(TINY, framing=Framing.DETECTED)
    assert trainer(catalog, tmp_path / "asked", asked).contract.framing is Framing.DETECTED


def test_training_stops_without_a_better_auc(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr("train.learning.validation.auc", lambda labels, scores: 0.5)
    recipe = replace(TINY, epochs=3, patience=1)
    run = trainer(catalog, tmp_path, recipe)
    run.run()
    assert (run.state.progress.epoch, run.state.progress.best_epoch) == (2, 1)
    assert trainer(catalog, tmp_path, recipe).state.progress.finished
    more = trainer(catalog, tmp_path, replace(recipe, patience=0))
    more.run()
    assert more.state.progress.epoch == 3
    average = more.state.judged.state_dict()
    assert not same(load_checkpoint(tmp_path / "best.pth").state_dict, average)
    trainer(catalog, tmp_path, replace(TINY, epochs=3, keep=Keep.LAST)).run()
    assert same(load_checkpoint(tmp_path / "best.pth").state_dict, average)


def test_running_average_is_judged_and_kept(catalog, tmp_path):
    run, modes = trainer(catalog, tmp_path, replace(TINY, ema=0.9)), []
    run.state.optimizer.optimizer.register_step_post_hook(lambda *_: modes.append(run.network.training))
    run.run()
    assert modes == [True] * 2 * run.steps  # judging leaves training mode
    average = run.state.judged.state_dict()
    assert not same(run.state.model.state_dict(), average)
    assert run.state.progress.best_epoch < 2 or same(load_checkpoint(tmp_path / "best.pth").state_dict, average)


def test_former_name_of_clean_share_is_read(whole, catalog, tmp_path):
    out = tmp_path / "old"
    shutil.copytree(whole, out)
    values = torch.load(out / "last.pth", weights_only=True)
    values["recipe"]["spared"] = values["recipe"].pop("clean_share")
    torch.save(values, out / "last.pth")
    again = trainer(catalog, out)
    assert again.state.progress.finished
    again.session.close()
    with pytest.raises(UsageError, match=r"clean_share 0\.0, not 0\.5"):
        trainer(catalog, out, replace(TINY, clean_share=0.5))


def test_teacher_is_needed_to_resume(catalog, tmp_path, tiny_teacher, tiny_checkpoint):
    run = trainer(catalog, tmp_path, teacher=tiny_teacher)
    before = {key: value.clone() for key, value in run.state.objective.state().items()}
    stop_after(run, run.steps)
    learned = run.state.objective.state()
    assert not any(torch.equal(learned[key], before[key]) for key in learned if key.endswith("weight"))
    with pytest.raises(UsageError, match="holds a run with a teacher"):
        trainer(catalog, tmp_path)
    again = trainer(catalog, tmp_path, teacher=tiny_teacher)
    assert same(again.state.objective.state(), learned)
    again.session.close()
    with pytest.raises(UsageError, match="holds a run with another teacher"):
        trainer(catalog, tmp_path, teacher=tiny_checkpoint)


@pytest.mark.parametrize("mapless", [False, True])
def test_same_teacher_is_needed_to_resume(catalog, tmp_path, tiny_teacher, tiny_backbone, monkeypatch, mapless):
    """Also where it has no maps to compare, or its file was overwritten; new thresholds do not make it another."""
    if mapless:
        monkeypatch.setattr("train.learning.distillation.STRIDES", ())
    teacher = tmp_path / "teacher.pth"
    shutil.copy(tiny_teacher, teacher)
    stop_after(trainer(catalog, tmp_path / "run", teacher=teacher), 1)
    own = load_checkpoint(teacher)
    calibrated = own.contract.replace(calibrations={"checkpoint": Calibration(temperature=2.0)})
    save_checkpoint(teacher, load_model(own), calibrated)
    run = trainer(catalog, tmp_path / "run", teacher=teacher)
    assert run.state.progress.step == 1
    run.session.close()
    save_checkpoint(teacher, tiny_backbone.build(2), own.contract)
    with pytest.raises(UsageError, match="holds a run with another teacher"):
        trainer(catalog, tmp_path / "run", teacher=teacher)


def test_front_end_makes_another_network(tiny_teacher, tmp_path):
    own = load_checkpoint(tiny_teacher)
    save_checkpoint(tmp_path / "filtered.pth", with_front_end(load_model(own), FrontEnd.RESIDUAL), own.contract)
    other = load_checkpoint(tmp_path / "filtered.pth")
    assert same(own.state_dict, other.state_dict)
    assert own.network_sha256 != other.network_sha256


def test_staged_recipe_needs_feature_maps(catalog, tmp_path):
    with pytest.raises(UsageError, match="vit_b_16 has no maps"):
        trainer(catalog, tmp_path, replace(TINY, staged=0.5, input_size=224), arch="vit_b_16")


def test_maps_are_learned_one_by_one_first(catalog, tmp_path, tiny_teacher):
    recipe = replace(TINY, epochs=4, staged=0.5, patience=1, ema=0.0)
    run = trainer(catalog, tmp_path, recipe, teacher=tiny_teacher)
    assert run.state.objective.stages == (4, 8)
    moved, before = [], {name: weight.clone() for name, weight in run.state.model.named_parameters()}

    def compare(row):
        now = dict(run.state.model.named_parameters())
        moved.append({name.rsplit(".", 1)[0] for name in now if not torch.equal(now[name], before[name])})
        before.update({name: weight.clone() for name, weight in now.items()})

    run.run(compare)
    assert moved[:2] == [{"body.0", "body.1", "body.3", "body.4"}, {"body.6", "body.7"}]
    assert moved[2] == {*moved[0], *moved[1], "fc"}
    history = run.state.progress.history
    assert [row.get("stride") for row in history[:3]] == [4, 8, None]
    assert ["auc" in row for row in history[:3]] == [False, False, True]
    # After the stages the optimizer starts from scratch.
    assert {int(state["step"]) for state in run.state.optimizer.state.values()} == {(len(history) - 2) * run.steps}


def test_run_stopped_in_a_stage_resumes_in_it(catalog, tmp_path, tiny_teacher):
    recipe = replace(TINY, epochs=4, staged=0.5)
    options = {"recipe": recipe, "teacher": tiny_teacher}
    trainer(catalog, tmp_path / "whole", **options).run()
    stop_after(trainer(catalog, tmp_path / "stopped", **options), 6)
    run = trainer(catalog, tmp_path / "stopped", **options)
    assert run.state.progress.step == 6
    run.run()
    assert int(run.state.average.n_averaged) == 2 * run.steps  # stages are not averaged
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_fp16_run_resumes_with_its_loss_scale(catalog, tmp_path, monkeypatch):
    class Scaled(Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    monkeypatch.setattr("train.learning.trainer.Accelerator", Scaled)
    run = trainer(catalog, tmp_path)
    run.accelerator.scaler.load_state_dict({**run.accelerator.scaler.state_dict(), "scale": 64.0})
    stop_after(run, 1)
    assert trainer(catalog, tmp_path).accelerator.scaler.get_scale() == 64.0


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_head_is_initialized_in_every_precision(catalog, tmp_path, tiny_teacher, precision):
    run = trainer(catalog, tmp_path, teacher=tiny_teacher, precision=precision)
    assert run.state.objective.teacher.begin_head(run.state.model)


def test_loader_processes_stay_from_epoch_to_epoch(catalog, tmp_path, whole):
    seen = []
    run = trainer(catalog, tmp_path, workers=1)
    run.run(lambda row: seen.append({child.pid for child in psutil.Process().children()}))
    assert len(seen) == 2
    assert seen[0] & seen[1]
    assert same_weights(whole, tmp_path)


@pytest.fixture(scope="module")
def several(catalog):
    """The faces with two sources of reals and two generators, in every split."""
    names = defaultdict(lambda: cycle(("phone", "studio", "phone")))
    generators = {"phone": "swap", "studio": "gan"}
    faces = []
    for face in catalog.records:
        name = next(names[face.split, face.label])
        faces.append(replace(face, source=name, generator=generators[name] if face.label else ""))
    return Catalog(tuple(faces))


def test_balanced_run_resumes_to_the_step(several, tmp_path):
    trainer(several, tmp_path / "whole").run()
    stop_after(trainer(several, tmp_path / "stopped"), 3)
    run = trainer(several, tmp_path / "stopped")
    assert run.order.balanced
    run.run()
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_left_out_sources_are_recorded(several, tmp_path):
    left = several.leaving_out(["gan", "studio"])
    run = trainer(left, tmp_path)
    assert {face.origin for face in run.dataset.records} == {"phone", "swap"}
    best = load_checkpoint(run.run())
    assert best.extra["left_out"] == ["gan", "studio"]
    calibrate_checkpoint(best.path, left, checkpoint_logits(best.path, left.split("valid")), max_fpr=0.1, max_fnr=0.1)
    assert load_checkpoint(best.path).extra["left_out"] == ["gan", "studio"]
    with pytest.raises(DataError, match="other data"):
        trainer(several, tmp_path)

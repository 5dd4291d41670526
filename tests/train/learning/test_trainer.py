import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from edge_runtime.errors import DataError, UsageError
from edge_runtime.model.contract import Framing
from train.commands.train import training_sections
from train.data.build import Catalog, load_data
from train.evaluation.logits import require_logits
from train.learning.dataset import EpochBatches
from train.learning.recipes import PRESETS, Recipe, parse_progressive
from train.learning.schedule import TOGETHER
from train.learning.trainer import Training, finish
from train.models.checkpoint import load_checkpoint, load_model

TINY = Recipe(weights="none", input_size=32, epochs=2, batch=8, chances={"flip": 0.5, "crop": 1.0}, ema=0.5)


@pytest.fixture(scope="module")
def catalog(faces):
    return load_data(faces)


def training(catalog, out, recipe=TINY, arch="shufflenet_v2_x1_0", **options):
    return Training(catalog, arch, recipe, out, workers=0, precision="no", device="cpu", **options)


@pytest.fixture(scope="module")
def whole(catalog, tmp_path_factory):
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    training(catalog, out).run()
    return out


def same_weights(first, second):
    one, other = (load_checkpoint(path / "last.pth").state_dict for path in (first, second))
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_leaves_the_best_and_last_checkpoint_its_figures_and_its_catalog(whole, catalog):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "auc", "waiting"} <= set(rows[0])
    assert Catalog.read(whole / "catalog.csv").fingerprint == catalog.fingerprint
    best = load_checkpoint(whole / "best.pth")
    assert best.contract.data == catalog.fingerprint
    assert best.catalog == str(whole / "catalog.csv")
    assert list((whole / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole, catalog, tmp_path):
    training(catalog, tmp_path / "again").run()
    training(catalog, tmp_path / "other", replace(TINY, seed=7)).run()
    assert same_weights(whole, tmp_path / "again")
    assert not same_weights(whole, tmp_path / "other")


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_run_that_was_stopped_at_any_step_ends_as_if_it_had_not_been(whole, catalog, tmp_path, steps):
    stopped = training(catalog, tmp_path)
    step = stopped._step

    def stop_after(*given):
        step(*given)
        stopped._stopping = stopped.progress.step >= steps

    stopped._step = stop_after
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert load_checkpoint(tmp_path / "last.pth").extra["progress"]["step"] == steps
    training(catalog, tmp_path).run()
    assert same_weights(whole, tmp_path)
    first, second = ((path / "metrics.jsonl").read_text().splitlines() for path in (whole, tmp_path))
    for one, other in zip(first, second, strict=True):
        assert json.loads(one)["train_loss"] == json.loads(other)["train_loss"]


@pytest.mark.parametrize(("split", "workers"), [("train", 0), ("train", 1), ("valid", 0)])
def test_a_picture_that_goes_away_is_named_and_costs_no_step(whole, faces, tmp_path, split, workers):
    catalog = load_data(shutil.copytree(faces, tmp_path / faces.name))
    train = len(catalog.split("train"))
    first = next(iter(EpochBatches(train, TINY.batch, seed=TINY.seed, epoch=1)))[0] - train
    gone, away = catalog.split(split)[first if split == "train" else 0].path, tmp_path / "away.png"
    run = Training(catalog, "shufflenet_v2_x1_0", TINY, tmp_path / "run", workers=workers, precision="no", device="cpu")
    step = run._step

    def take_away(*given):
        step(*given)
        if gone.exists():
            gone.rename(away)

    run._step = take_away
    with pytest.raises(DataError, match=rf"^{re.escape(str(gone))}: not found; .*put it back"):
        run.run()
    assert load_checkpoint(tmp_path / "run" / "last.pth").extra["progress"]["step"] == run.progress.step > 0
    away.rename(gone)
    training(catalog, tmp_path / "run").run()
    assert same_weights(whole, tmp_path / "run")


def test_a_network_that_answers_no_number_is_told_apart_from_a_picture_that_went_away(catalog):
    logits = np.zeros((len(catalog.records), 2), np.float32)
    require_logits(catalog.records, logits)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="no number; train anew with a lower --lr"):
        require_logits(catalog.records, logits)


SCRIPT = """
import sys
from pathlib import Path
from train.data.build import load_data
from train.learning.trainer import Training
from train.learning.recipes import Recipe
import train.learning.trainer
train.learning.trainer.SAVE_EVERY_S = 0.0
recipe = Recipe(weights="none", input_size=32, epochs=2, batch=8, chances={"flip": 0.5, "crop": 1.0}, ema=0.5)
training = Training(load_data(sys.argv[1]), "shufflenet_v2_x1_0", recipe, Path(sys.argv[2]), workers=0,
                    precision="no", device="cpu")
step = training._step
def slow(*given):
    import time
    step(*given)
    print(training.progress.step, flush=True)
    time.sleep(0.4)
training._step = slow
training.run()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_process_was_killed_goes_on_from_its_last_whole_checkpoint(whole, catalog, faces, tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(faces), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    while int(process.stdout.readline() or 99) < 3:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate()
    assert 1 <= load_checkpoint(tmp_path / "last.pth").extra["progress"]["step"] < 8
    training(catalog, tmp_path).run()
    assert same_weights(whole, tmp_path)


def test_every_epoch_learns_in_training_mode_though_the_one_before_was_judged(catalog, tmp_path):
    run = training(catalog, tmp_path, replace(TINY, ema=0.0))
    step, modes = run._step, []

    def watched(*given):
        modes.append(run.network.training)
        step(*given)

    run._step = watched
    run.run()
    assert modes == [True] * 2 * run.steps


def test_a_finished_run_is_not_trained_again(whole, catalog):
    before = (whole / "last.pth").stat().st_mtime_ns
    training(catalog, whole).run()
    assert (whole / "last.pth").stat().st_mtime_ns == before


def test_a_folder_with_another_run_is_refused_and_says_what_differs(whole, catalog, faces):
    with pytest.raises(UsageError, match=r"holds a run with learning_rate 0\.001, not 0\.1"):
        training(catalog, whole, replace(TINY, learning_rate=0.1))
    with pytest.raises(UsageError, match="holds a run of shufflenet_v2_x1_0, not resnet18"):
        training(catalog, whole, arch="resnet18")
    with pytest.raises(DataError, match="holds a run on other data"):
        training(load_data(faces, seed=1), whole)


def test_a_split_without_a_class_is_refused(catalog, tmp_path):
    reals = Catalog(tuple(face for face in catalog.records if face.label == 0 or face.split != "valid"))
    with pytest.raises(DataError, match="the valid split holds no fake faces"):
        training(reals, tmp_path)


def test_faces_with_boxes_make_a_model_that_expects_the_face_stage(catalog, tmp_path):
    boxed = Catalog(tuple(replace(face, box=(4.0, 4.0, 60.0, 60.0)) for face in catalog.records))
    assert training(boxed, tmp_path).contract.framing is Framing.DETECTED
    assert training(catalog, tmp_path).contract.framing is Framing.WHOLE


def test_uneven_classes_weigh_the_same(catalog, tmp_path):
    fewer = [face for face in catalog.records if face.label == 0 or face.split != "train"]
    some = [face for face in catalog.records if face.label == 1 and face.split == "train"][:4]
    weights = training(Catalog((*fewer, *some)), tmp_path).weights
    reals = sum(face.label == 0 for face in fewer if face.split == "train")
    assert float(weights[0]) * reals == pytest.approx(float(weights[1]) * 4)


def test_the_learning_rate_warms_up_and_falls(catalog, tmp_path):
    run = training(catalog, tmp_path, replace(TINY, epochs=10))
    rates = [run.schedule.learning_rate(step) for step in range(run.steps * 10)]
    assert rates[0] < rates[2] < max(rates) == pytest.approx(TINY.learning_rate)
    assert rates[-1] < 0.01 * max(rates)
    article = training(catalog, tmp_path, replace(TINY, schedule="constant"))
    assert {article.schedule.learning_rate(step) for step in (0, 5, 50)} == {1e-3}


def test_training_stops_when_the_auc_does_not_rise(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr("train.learning.trainer.auc", lambda labels, scores: 0.5)
    run = training(catalog, tmp_path, replace(TINY, epochs=3, patience=1))
    run.run()
    assert run.progress.epoch == 2
    assert run.progress.best_epoch == 1
    again = training(catalog, tmp_path, replace(TINY, epochs=3, patience=1))
    assert again.progress.finished
    more = training(catalog, tmp_path, replace(TINY, epochs=3, patience=0))
    more.run()
    assert more.progress.epoch == 3
    average = more._judged().state_dict()
    assert any(
        not torch.equal(value, average[key]) for key, value in load_checkpoint(tmp_path / "best.pth").state_dict.items()
    )
    training(catalog, tmp_path, replace(TINY, epochs=3, keep="last")).run()
    assert all(
        torch.equal(value, average[key]) for key, value in load_checkpoint(tmp_path / "best.pth").state_dict.items()
    )


def test_a_student_learns_from_its_teacher(catalog, tmp_path, tiny_checkpoint):
    recipe = replace(TINY, distilled=1.0, hinted=0.0, chances={}, ema=0.0, epochs=1, learning_rate=3e-3)
    run = training(catalog, tmp_path, recipe, teacher=tiny_checkpoint)
    images = torch.randn(8, 3, 32, 32)
    labels = torch.zeros(8, dtype=torch.long)
    run.network(images)
    teacher = load_model(load_checkpoint(tiny_checkpoint))
    with torch.no_grad():
        assert float(run._loss(images, teacher(images), labels)) == pytest.approx(0.0, abs=1e-5)
        assert float(run._loss(images, teacher(images) + torch.tensor([3.0, 0.0]), labels)) > 0.1
    run.run()


def test_a_run_with_a_teacher_goes_on_with_one_only(catalog, tmp_path, tiny_checkpoint):
    recipe = replace(TINY, epochs=2)
    run = training(catalog, tmp_path, recipe, teacher=tiny_checkpoint)
    before = {key: value.clone() for key, value in run.teacher.hints.state_dict().items()}
    run._epoch()
    learnt = run.teacher.hints.state_dict()
    assert all(not torch.equal(learnt[key], before[key]) for key in learnt if key.endswith("weight"))
    with pytest.raises(UsageError, match="holds a run with a teacher"):
        training(catalog, tmp_path, recipe)
    again = training(catalog, tmp_path, recipe, teacher=tiny_checkpoint)
    assert all(torch.equal(value, learnt[key]) for key, value in again.teacher.hints.state_dict().items())
    again.run()


def test_a_student_learns_its_teachers_maps_one_by_one_before_anything_else(
    catalog, tmp_path, tiny_checkpoint, monkeypatch
):
    recipe = replace(TINY, epochs=6, staged=0.7, patience=1, ema=0.0)
    run = training(catalog, tmp_path, recipe, arch="resnet18", teacher=tiny_checkpoint)
    assert run.stages == (4, 8, 16, 32)
    begun, begin_head = [], run.teacher.begin_head
    monkeypatch.setattr(
        run.teacher, "begin_head", lambda student: begun.append(run.progress.step) or begin_head(student)
    )
    moved = []
    for _ in range(5):
        before = {name: weight.clone() for name, weight in run.model.named_parameters()}
        run._epoch()
        changed = {name for name, weight in run.model.named_parameters() if not torch.equal(weight, before[name])}
        moved.append({name.split(".")[0] for name in changed})
    assert moved[:4] == [{"conv1", "bn1", "layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    assert {"conv1", "layer1", "layer4", "fc"} <= moved[4]
    rows = run.progress.history
    assert [row.get("stride") for row in rows] == [4, 8, 16, 32, None]
    assert ["auc" in row for row in rows] == [False] * 4 + [True]
    assert (run.progress.best_epoch, run.progress.finished) == (5, False)
    steps = run.steps
    rates = [run.schedule.learning_rate(step) for step in range(steps * 6)]
    firsts, lasts = rates[: steps * 5 : steps], rates[steps - 1 : steps * 5 : steps]
    assert firsts[:4] == pytest.approx([recipe.learning_rate] * 4)
    assert max(lasts[:4]) < 0.5 * recipe.learning_rate
    assert max(rates[steps * 4 :]) == pytest.approx(TOGETHER * recipe.learning_rate)
    curves, table = training_sections(rows, tmp_path)[0].blocks
    assert curves.png
    assert [row[list(table.head).index("auc")] for row in table.rows] == [""] * 4 + [f"{rows[-1]['auc']:.3f}"]
    assert [row[list(table.head).index("stride")] for row in table.rows] == [4, 8, 16, 32, ""]
    run._epoch()
    # Before the first step of all layers, and never again.
    assert begun == [4 * steps]
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {2 * steps}


def test_a_head_is_not_begun_by_a_map_that_had_no_stage(catalog, tmp_path, tiny_checkpoint):
    recipe = replace(TINY, epochs=3, staged=0.67)
    run = training(catalog, tmp_path, recipe, arch="resnet18", teacher=tiny_checkpoint)
    assert run.stages == (4, 16)
    before = run.model.fc.weight.clone()
    run._epoch()
    run._epoch()
    run._enter_stage()
    assert torch.equal(run.model.fc.weight, before)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_head_is_begun_in_every_precision(catalog, tmp_path, tiny_checkpoint, precision, request):
    request.addfinalizer(AcceleratorState._reset_state)  # else the next test can't choose another
    AcceleratorState._reset_state()
    options = {"teacher": tiny_checkpoint, "workers": 0, "precision": precision, "device": "cpu"}
    run = Training(catalog, "resnet18", TINY, tmp_path, **options)
    assert run.teacher.begin_head(run.model)


def test_a_run_with_a_teacher_says_when_its_maps_are_others(catalog, tmp_path, tiny_checkpoint, whole):
    (tmp_path / "run").mkdir()
    training(catalog, tmp_path / "run", teacher=tiny_checkpoint)._save()
    with pytest.raises(UsageError, match="holds a run with another teacher or of an older version"):
        training(catalog, tmp_path / "run", teacher=whole / "best.pth")
    with pytest.raises(UsageError, match="vit_b_16 has no maps to learn one by one"):
        training(catalog, tmp_path / "vit", replace(TINY, staged=0.5, input_size=224), arch="vit_b_16")


def test_a_run_that_is_stopped_in_a_stage_goes_on_in_it(catalog, tmp_path, tiny_checkpoint):
    recipe = replace(TINY, epochs=5, staged=0.8)
    for name, stopped in (("whole", False), ("stopped", True)):
        run = training(catalog, tmp_path / name, recipe, arch="resnet18", teacher=tiny_checkpoint)
        if stopped:
            (tmp_path / name).mkdir()
            run._epoch()
            run._stopping = True
            with pytest.raises(KeyboardInterrupt):
                run._epoch()
            run = training(catalog, tmp_path / name, recipe, arch="resnet18", teacher=tiny_checkpoint)
            assert run.steps < run.progress.step < 2 * run.steps
        run.run()
        assert int(run.average.n_averaged) == run.steps  # what was averaged in the stages is forgotten
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_in_fp16_goes_on_with_the_scale_of_its_losses(catalog, tmp_path, monkeypatch):
    class Scaled(Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    monkeypatch.setattr("train.learning.trainer.Accelerator", Scaled)
    run = training(catalog, tmp_path)
    run.accelerator.scaler.load_state_dict({**run.accelerator.scaler.state_dict(), "scale": 64.0})
    run._save()
    assert training(catalog, tmp_path).accelerator.scaler.get_scale() == 64.0


def test_the_processes_that_load_pictures_stay_from_epoch_to_epoch(catalog, tmp_path, whole):
    run = Training(catalog, "shufflenet_v2_x1_0", TINY, tmp_path, workers=1, precision="no", device="cpu")
    seen = []
    run.run(lambda row: seen.append({child.pid for child in psutil.Process().children()}))
    assert len(seen) == 2
    assert seen[0] & seen[1]
    assert same_weights(whole, tmp_path)


def test_the_running_average_is_judged_and_lags_behind(catalog, tmp_path):
    run = training(catalog, tmp_path, replace(TINY, ema=0.9, epochs=1))
    run.run()
    live, average = run.network.state_dict(), run._judged().state_dict()
    assert any(not torch.equal(live[key], average[key]) for key in live)
    best = load_checkpoint(tmp_path / "best.pth").state_dict
    assert all(torch.equal(best[key], average[key]) for key in best)


def test_the_best_checkpoint_gets_its_thresholds(whole, catalog):
    random = np.random.default_rng(0)
    labels = np.array([face.label for face in catalog.split("valid")])
    logits = np.stack([-labels, labels], 1) * 4 + random.normal(0, 0.1, (len(labels), 2))
    before = load_checkpoint(whole / "best.pth").state_dict
    contract = finish(whole / "best.pth", catalog, logits.astype(np.float32), max_fpr=0.01, max_fnr=0.01)
    after = load_checkpoint(whole / "best.pth")
    assert after.contract == contract
    assert contract.calibration("checkpoint").fitted
    assert contract.metrics["checkpoint"]["validation"]["auc"]["value"] == 1.0
    assert all(torch.equal(after.state_dict[key], before[key]) for key in before)


def test_the_figures_of_the_best_checkpoint_are_drawn_by_identity(whole, catalog, tmp_path):
    people = Catalog(
        tuple(replace(face, identity=f"{face.label}{index % 2}") for index, face in enumerate(catalog.records))
    )
    random = np.random.default_rng(0)
    valid = catalog.split("valid")
    logits = np.stack([np.zeros(len(valid)), random.normal(0, 1, len(valid))], 1).astype(np.float32)
    shutil.copy(whole / "best.pth", tmp_path)
    intervals = []
    for known in (catalog, people):
        contract = finish(tmp_path / "best.pth", known, logits, max_fpr=0.01, max_fnr=0.01)
        intervals.append(contract.metrics["checkpoint"]["validation"]["brier"])
    assert intervals[0]["value"] == intervals[1]["value"]
    assert intervals[0]["low"] != intervals[1]["low"]


def test_a_face_is_resized_to_the_input_size_that_was_asked_for(catalog, tmp_path):
    contract = training(catalog, tmp_path, replace(TINY, pixels="article")).contract
    assert (contract.input_size, contract.pixels.resize_to) == (32, 32)


def test_the_articles_recipe_is_as_it_was_written():
    article = PRESETS["article"]
    assert (article.optimizer, article.learning_rate, article.batch, article.epochs) == ("adam", 1e-3, 32, 100)
    assert (article.pixels, article.schedule, article.ema, dict(article.chances)) == ("article", "constant", 0.0, {})
    assert PRESETS["article-vit"].learning_rate == 1e-5


@pytest.mark.parametrize("times", [1, 2])
def test_a_taught_networks_crops_grow_with_its_stages(catalog, tmp_path, tiny_checkpoint, times):
    recipe = PRESETS["taught"]
    recipe = replace(recipe, epochs=recipe.epochs * times)
    run = training(catalog, tmp_path, recipe, arch="resnet18", teacher=tiny_checkpoint)
    seen = list(zip(run.stages, run.dataset.sizes, strict=False))
    stages = [(4, 64), (8, 96), (16, 128), (32, 160)]
    assert seen == [stage for stage in stages for _ in range(8 * times)]
    assert run.dataset.sizes[len(run.stages) :] == (160,) * 5 * times + (224,) * times


def test_growing_crops_are_read_and_spread_over_the_epochs():
    recipe = Recipe(epochs=10, progressive=parse_progressive("0.5:64,0.3:128"))
    assert recipe.sizes(224) == (64,) * 5 + (128,) * 3 + (224,) * 2
    assert Recipe(epochs=3).sizes(224) == (224,) * 3
    assert Recipe(epochs=2, progressive=((0.5, 64), (0.4, 128))).sizes(224) == (64, 224)
    assert Recipe(epochs=3, progressive=((1 / 3, 64), (2 / 3, 128))).sizes(224) == (64, 128, 128)
    for text in ("64", "0.5:x", "0.9:64,0.9:128", "0.5:8", "0.5:112"):
        with pytest.raises(UsageError, match="--progressive"):
            parse_progressive(text)

from pathlib import Path

import torch

from benchmarks.engines.article import article_training
from benchmarks.studies import training_speed
from train.commands.shards import write_shards
from train.data.build import load_data


def network():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))


def test_article_loop_learns(faces):
    pictures = [(str(path), int(path.parent.name == "fake")) for path in sorted(faces.rglob("*.png"))]
    torch.manual_seed(0)
    tiny = network()
    before = tiny[2].weight.detach().clone()
    losses = article_training(tiny, pictures, batch_size=8)
    first, *_, last = (next(losses) for _ in range(4))
    assert last < first
    assert not torch.equal(tiny[2].weight, before)


def test_article_loop_trains_on_tar_shards(faces, tmp_path, monkeypatch):
    write_shards(load_data(faces), tmp_path / "shards", 20_000)
    monkeypatch.setattr(training_speed, "build_backbone", lambda arch: network())
    found = training_speed.measure_article(load_data(tmp_path / "shards"), "tiny")
    assert found["images_per_second"] > 0


def test_both_loops_train_on_the_same_faces(faces, tmp_path, monkeypatch, capsys):
    seen = []

    def measure(job, catalog, arch):
        seen.append((job, catalog))
        return {"images_per_second": {training_speed.measure_article: 2.0, training_speed.measure_ours: 7.0}[job]}

    for name, value in (("in_process", measure), ("VALIDATION_FACES", 2), ("BATCH_SIZE", 4)):
        monkeypatch.setattr(training_speed, name, value)
    load_data(faces).write(tmp_path / "catalog.csv")
    assert training_speed.training_speed(Path(tmp_path / "catalog.csv"), faces=10, rounds=2) == 0
    assert [job for job, _ in seen] == [training_speed.measure_article, training_speed.measure_ours] * 2
    assert {catalog for _, catalog in seen} == {seen[0][1]}
    assert len(seen[0][1].split("train")) == 8
    assert "ours is 3.50 times the article's (3.50 to 3.50)" in capsys.readouterr().out

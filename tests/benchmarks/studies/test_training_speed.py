import re

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.engines.article import article_training
from benchmarks.studies import training_speed
from edge_runtime.command import run_command


@pytest.fixture
def faces(tmp_path):
    """Reals that are blue and fakes that are red, 30 of each."""
    random = np.random.default_rng(0)
    for name, channel in (("real", 2), ("fake", 0)):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.integers(0, 128, (48, 48, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{index}.png")
    return tmp_path / "faces"


def test_the_articles_loop_learns(faces):
    pictures = [(str(path), int(path.parent.name == "fake")) for path in sorted(faces.rglob("*.png"))]
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    before = network[2].weight.detach().clone()
    losses = article_training(network, pictures, batch_size=8)
    first, *_, last = (next(losses) for _ in range(4))
    assert last < first
    assert not torch.equal(network[2].weight, before)


def test_both_loops_are_measured_on_the_same_faces(faces, monkeypatch, capsys):
    seen = []

    def child(loop, catalog, arch):
        seen.append((loop, catalog.read_text(), arch))
        return {"images_per_second": {"article": 2.0, "ours": 7.0}[loop]}

    monkeypatch.setattr(training_speed, "_child", child)
    monkeypatch.setattr("sys.argv", ["x", str(faces), "--faces", "40", "--rounds", "2"])
    monkeypatch.setattr(training_speed, "VALID", 4)
    with pytest.raises(SystemExit) as end:
        run_command(training_speed.training_speed, "x")
    assert not end.value.code
    assert [loop for loop, *_ in seen] == ["article", "ours"] * 2
    assert len({text for _, text, _ in seen}) == 1
    assert seen[0][1].count(",train,") == 32
    assert re.search(r"ours is 3.50 times the article's \(3.50 to 3.50\)", capsys.readouterr().out)

"""The golden pictures of a real bundle."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from board_setup.isa import CAPS
from board_setup.workstation import twin
from edge_runtime.errors import UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.model.golden import Golden, check_golden
from export.proof.golden import golden_pool, rounded_to_half, write_golden

TWIN = """
import sys
import numpy as np
from edge_runtime.model.bundle import Bundle
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.golden import Golden, check_golden
bundle = Bundle.open(sys.argv[1])
for precision in bundle.precisions:
    network = Classifier(bundle.model(precision), bundle.contract, hint="LATENCY")
    found = check_golden(network, bundle, precision)
    assert found.right, found
    print(precision.value, found.difference, found.nearest)
"""


def test_this_cpu_gives_the_golden_answers(tiny_bundle: Bundle) -> None:
    for precision in tiny_bundle.precisions:
        network = Classifier(tiny_bundle.model(precision), tiny_bundle.contract)
        result = check_golden(network, tiny_bundle, precision)
        assert result.right, result
        assert result.difference < 1e-4


def test_the_answers_spread_far_beyond_the_tolerance(tiny_bundle: Bundle) -> None:
    golden = Golden.of(tiny_bundle)
    assert len(golden.pictures) == 8
    for name, answers in golden.logits.items():
        assert set(answers) == set(CAPS)
        margins = np.diff(np.array(answers["sse42"]), axis=1)
        assert np.ptp(margins) > 4 * golden.tolerance[name]["CPU"]


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("fp32", lambda pixels: np.ascontiguousarray(pixels[..., ::-1])),
        ("fp32", lambda pixels: pixels // 2),
        ("int8", lambda pixels: pixels),
    ],
    ids=["channels swapped", "not normalized", "another precision"],
)
def test_a_device_with_wrong_answers_is_found(
    tiny_bundle: Bundle, precision: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    network = Classifier(tiny_bundle.model(precision), tiny_bundle.contract)
    faulty = SimpleNamespace(logits=lambda pixels: network.logits(change(pixels)))
    assert not check_golden(faulty, tiny_bundle, "fp32").right


def test_half_precision_changes_a_copy_a_little(tiny_model: nn.Module) -> None:
    image = torch.randn(4, 3, 32, 32)
    before = tiny_model(image)
    change = (rounded_to_half(tiny_model)(image) - before).abs().max()
    assert 0 < change < 0.05
    torch.testing.assert_close(tiny_model(image), before, rtol=0, atol=0)


def test_golden_pictures_come_from_a_given_folder(tiny_model: nn.Module, tmp_path: Path) -> None:
    given, contract = tmp_path / "given", ModelContract("tiny", input_size=32, pixels=PixelRecipe(resize_to=None))
    given.mkdir()
    for index in range(20):
        Image.new("RGB", (400, 300), (10 * index, 60, 60)).save(given / f"{index}.png")
    (given / "notes.txt").write_text("no picture")
    pool = golden_pool(given, contract)
    paths = write_golden(tmp_path / "golden", pool, tiny_model, contract)
    found = [Image.open(path) for path in paths]
    assert {picture.size for picture in found} == {(256, 256)}
    reds = [picture.getpixel((0, 0))[0] for picture in found]
    assert len(set(reds)) == 8
    assert {0, 190} <= set(reds)
    with pytest.raises(UsageError, match=r"--golden .*: holds 0 pictures"):
        golden_pool(tmp_path, contract)
    with pytest.raises(UsageError, match="--golden"):
        golden_pool(tmp_path / "none", contract)


@pytest.mark.slow
def test_the_board_twin_gives_the_capped_logits(tiny_bundle: Bundle) -> None:
    if shutil.which(twin.QEMU) is None:
        pytest.skip("needs qemu-user")
    command = twin.twin_command([sys.executable, "-c", TWIN, str(tiny_bundle.path)])
    done = subprocess.run(command, env=twin.twin_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in done.stdout.splitlines():
        name, difference, nearest = line.split(maxsplit=2)
        assert float(difference) < 1e-4, line
        assert name != "int8" or nearest in ("SSE4.2", "AVX2", "AVX-512 VNNI"), line
    assert len(done.stdout.splitlines()) == 3

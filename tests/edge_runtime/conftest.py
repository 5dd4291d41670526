"""A tiny bundle, made without torch: quick to compile, its answer follows the picture's colour; and a small disk."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies.small import small_contract, write_small_bundle
from edge_runtime.model.bundle import Bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle."""
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "detector", small_contract())


@pytest.fixture(scope="session")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle of a demonstration model."""
    return write_small_bundle(tmp_path_factory.mktemp("demo") / "detector", small_contract(demo=True))


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The tiny bundle, opened."""
    return Bundle.open(bundle_path)


def colour_picture(red: int, blue: int, size: tuple[int, int] = (64, 64), noise: int = 20) -> Image.Image:
    """A noisy picture of one colour, so that it counts neither as dark nor as blurred."""
    random = np.random.default_rng(red * 256 + blue)
    pixels = np.empty((size[1], size[0], 3), np.int16)
    pixels[:] = (red, 120, blue)
    pixels += random.integers(-noise, noise + 1, pixels.shape, dtype=np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def red() -> Image.Image:
    """A picture that the tiny model calls fake."""
    return colour_picture(230, 30)


@pytest.fixture(scope="session")
def blue() -> Image.Image:
    """A picture that the tiny model calls real."""
    return colour_picture(30, 230)


@pytest.fixture(scope="session")
def grey() -> Image.Image:
    """A picture that the tiny model is uncertain of."""
    return colour_picture(135, 122)


@pytest.fixture(scope="session")
def picture_of_colour() -> Callable[..., Image.Image]:
    """Makes a noisy picture of one colour: red, blue, size=(width, height), noise=."""
    return colour_picture


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Writes a tiny bundle into a folder: folder, contract changes by name, precisions=."""

    def make(folder: Path, precisions: tuple[str, ...] = ("fp32", "int8"), **changes: object) -> Path:
        return write_small_bundle(folder, small_contract(**changes), precisions)

    return make


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches and profiles of this machine and of the tests apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    # Tests share compiled models, but not profiles.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    # Keys that this user trusts.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    for variable in ("DEEPFAKE_EDGE_MODEL", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)

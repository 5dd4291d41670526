"""Fixtures that all tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of faces, scenes, clips and checkpoints beside the clone; tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared faces beside the clone")
    return SHARED

"""A folder in place of an object store, read through the same code."""

from pathlib import Path

import pytest


def use_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the s3:// address of `folder`, which is readable in this test."""
    fs = pytest.importorskip("pyarrow.fs", reason="needs pyarrow")
    from edge_runtime.bulk import storage

    def locate(address: str) -> tuple[object, str]:
        return fs.LocalFileSystem(), f"/{address.removeprefix('s3://')}"

    monkeypatch.setattr(storage, "locate", locate)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    return f"s3:/{folder}"

"""Folders of small pictures, and the command in this process."""

import json
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow fsspec aiohttp")
import pyarrow.parquet as pq

from edge_runtime.bulk.cli import main


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, picture_of_colour):
    """A folder of twelve pictures, four of each verdict, and two files that can't be read."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    for number, (red, blue) in enumerate([(230, 30), (30, 230), (135, 122)] * 4):
        home = folder / "sub" if number % 2 else folder
        picture_of_colour(red, blue).save(home / f"{number:02}.png")
    (folder / "90.png").write_bytes((folder / "00.png").read_bytes()[:900])
    (folder / "91.jpg").write_text("not a picture")
    return folder


@pytest.fixture
def judge(bundle_path, monkeypatch, capfd):
    """Runs judge-pictures in this process with the tiny bundle and one worker."""

    def run(*arguments, model=bundle_path):
        monkeypatch.setenv("DEEPFAKE_EDGE_MODEL", str(model))
        monkeypatch.setattr(sys, "argv", ["judge-pictures", *map(str, arguments), "--json-summary", "--workers", "1"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, err=err, **(json.loads(out) if out else {}))

    return run


@pytest.fixture
def rows_of():
    """Returns the rows of all parts in a folder, sorted."""

    def read(folder):
        rows = [row for path in folder.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
        return sorted(rows, key=lambda row: (row["picture"], row["member"] or "", row["face"] or 0))

    return read

import shutil

import pytest

from edge_runtime.errors import DataError
from train.data.build import load_data
from train.data.catalog import Catalog


def test_a_catalog_that_was_written_reads_the_same(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "out" / "catalog.csv")
    again = load_data(tmp_path / "out")
    assert again.records == catalog.records
    assert again.fingerprint == catalog.fingerprint


def test_a_catalog_inside_its_folder_can_be_moved(make_faces, tmp_path):
    folder = make_faces()
    load_data(folder).write(folder / "catalog.csv")
    shutil.move(folder, tmp_path / "elsewhere")
    assert all(face.path.exists() for face in load_data(tmp_path / "elsewhere").records)


def test_a_line_that_is_no_face_is_named_by_its_number(faces, tmp_path):
    file = tmp_path / "catalog.csv"
    load_data(faces).write(file)
    lines = file.read_text().splitlines()
    lines[3] = lines[3].replace("real", "maybe")
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"catalog\.csv:4"):
        Catalog.read(file)

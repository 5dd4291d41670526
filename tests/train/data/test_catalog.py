import random
import shutil
from dataclasses import replace

import pytest

from edge_runtime.errors import DataError, UsageError
from train.data.build import load_data
from train.data.catalog import Catalog


@pytest.fixture
def written(faces, tmp_path):
    path = tmp_path / "out" / "catalog.csv"
    load_data(faces).write(path)
    return path


def test_a_written_catalog_reads_the_same(faces, written):
    again = load_data(written.parent)
    assert again.records == load_data(faces).records
    assert again.fingerprint == load_data(faces).fingerprint


def test_a_catalog_saved_by_a_spreadsheet_reads_the_same(written):
    plain = Catalog.read(written)
    written.write_bytes(b"\xef\xbb\xbf" + written.read_bytes())
    assert Catalog.read(written) == plain


def test_a_catalog_moves_with_its_folder(make_faces, tmp_path):
    folder = make_faces()
    load_data(folder).write(folder / "catalog.csv")
    shutil.move(folder, tmp_path / "elsewhere")
    assert all(face.path.exists() for face in load_data(tmp_path / "elsewhere").records)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "maybe"),
        ("split", "all"),
        ("path", ""),
        ("path", "a\0b.png"),
        ("path", "x" * 200_000),
        ("box", "nan 0 1 1"),
        ("box", "10 0 5 20"),
        ("box", "1 2 3"),
        ("width", "1e3"),
        ("width", "-4"),
        ("sharpness", "inf"),
        ("phash", "zz"),
        ("phash", "f" * 40),
    ],
)
def test_a_damaged_line_is_named(written, column, value):
    lines = written.read_text().splitlines()
    cells = lines[3].split(",")
    cells[lines[0].split(",").index(column)] = value
    lines[3] = ",".join(cells)
    written.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"catalog\.csv:[34]: ") as error:
        Catalog.read(written)
    assert len(str(error.value)) < 500


def test_missing_columns_are_named(tmp_path):
    for text in ("", "path,label\n", "hello"):
        (tmp_path / "catalog.csv").write_text(text)
        with pytest.raises(DataError, match=r"catalog\.csv:1: .*no column .*sha256"):
            load_data(tmp_path)


def test_random_damage_never_crashes(written):
    whole, source = written.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(source.randrange(1, 5)):
            place = source.randrange(len(damaged))
            damaged[place : place + source.randrange(3)] = source.randbytes(source.randrange(3))
        written.write_bytes(damaged)
        try:
            load_data(written).write(written)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_named_sources_and_generators_are_left_out(faces):
    names = [("ffhq", ""), ("celeba", ""), ("swaps", "simswap"), ("", "simswap"), ("", "sdxl")]
    records = load_data(faces).records
    catalog = Catalog(
        tuple(
            replace(face, source=source, generator=generator)
            for face, (source, generator) in zip(records, names, strict=False)
        )
    )
    left = catalog.leaving_out(["simswap", "celeba"])
    assert [(face.source, face.generator) for face in left.records] == [("ffhq", ""), ("", "sdxl")]
    assert left.fingerprint != catalog.fingerprint
    with pytest.raises(UsageError, match=r"--leave-out stylegan: .*celeba, ffhq, sdxl, simswap, swaps"):
        catalog.leaving_out(["sdxl", "stylegan"])
    with pytest.raises(UsageError, match="the catalog names none"):
        Catalog(tuple(replace(face, source="") for face in records)).leaving_out(["stylegan"])

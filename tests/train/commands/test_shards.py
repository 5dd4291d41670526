import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from edge_runtime.errors import DataError, UsageError
from train import cli
from train.choices import Preset
from train.commands.shards import shards_folder, write_shards
from train.commands.train import TrainingOptions, train_detector
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.logits import read_again
from train.evaluation.shortcuts import audit_faces
from train.models.checkpoint import load_checkpoint

SMALL = 20_000
"""Bytes of a shard that holds a few pictures."""


@pytest.fixture(scope="module")
def catalog(faces):
    return load_data(faces)


@pytest.fixture(scope="module")
def shards(catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "shards"
    write_shards(catalog, folder, SMALL)
    return folder


def test_shards_hold_the_same_faces_in_the_same_order(catalog, shards):
    again = load_data(shards)
    assert len(list(shards.glob("*.tar"))) > 3
    assert [face.sha256 for face in again.records] == [face.sha256 for face in catalog.records]
    assert [face.split for face in again.records] == [face.split for face in catalog.records]
    assert again.fingerprint == catalog.fingerprint
    for face, packed in zip(catalog.records, again.records, strict=True):
        assert packed.content() == face.path.read_bytes()
        assert packed.read().tobytes() == face.read().tobytes()


def test_a_shard_is_what_webdataset_reads(catalog, shards):
    """Members of one sample share a name up to the first dot and follow each other."""
    found = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for picture, values in zip(members[::2], members[1::2], strict=True):
                assert picture.name.partition(".")[0] == values.name.partition(".")[0]
                found.append((tar.extractfile(picture).read(), json.load(tar.extractfile(values))))
    assert [data for data, _ in found] == [face.path.read_bytes() for face in catalog.records]
    first = catalog.records[0]
    expected = {"label": "real", "split": first.split, "source": first.source, "identity": first.identity}
    assert expected.items() <= found[0][1].items()
    assert [said["label"] == "fake" for _, said in found] == [bool(face.label) for face in catalog.records]


@pytest.mark.slow
def test_training_from_shards_gives_the_same_bits(faces, shards, tiny_backbone, tmp_path):
    options = TrainingOptions("tiny", Preset.QUICK, workers=1, bootstrap=10)
    weights = []
    for data in (faces, shards):
        out = tmp_path / data.name
        train_detector([data], out, options, {"epochs": 2, "weights": "none", "batch": 8})
        weights.append(load_checkpoint(out / "last.pth").state_dict)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    # The run's own catalog still names the shards.
    assert load_data(tmp_path / shards.name).records[0].read().size == (64, 64)


@pytest.mark.slow
def test_shards_are_audited_like_files(catalog, shards):
    pair = [audit_faces(found.records).findings for found in (catalog, load_data(shards))]
    assert pair[0] == pair[1]


def test_the_same_catalog_gives_the_same_bytes(catalog, shards, tmp_path):
    write_shards(catalog, tmp_path / "again", SMALL)
    for path in shards.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["shards", "link"])
def test_a_relative_or_linked_folder_can_be_moved(catalog, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    write_shards(catalog, Path(name), SMALL)
    Path(name).resolve().rename(tmp_path / "moved")
    assert [face.content() for face in load_data("moved").records] == [
        face.path.read_bytes() for face in catalog.records
    ]


def test_a_damaged_shard_is_named(catalog, tmp_path):
    write_shards(catalog, tmp_path, SMALL)
    packed = load_data(tmp_path).records
    with packed[3].path.parent.open("r+b") as shard:
        shard.seek(packed[3].offset + 50)
        shard.write(b"\xff\x00")
    with pytest.raises(DataError, match=r"faces-000001\.tar/000000003\.png: its shard was changed or damaged"):
        read_again(packed[3])
    packed[-1].path.parent.unlink()
    with pytest.raises(DataError, match="can no longer be read"):
        audit_faces(packed)


def test_a_changed_picture_is_not_packed(make_faces, draw, tmp_path):
    catalog = load_data(make_faces())
    draw(99).save(catalog.records[5].path)
    with pytest.raises(DataError, match=r"005\.png: was changed since"):
        write_shards(catalog, tmp_path / "shards")
    assert not (tmp_path / "shards" / "catalog.csv").exists()


def test_only_an_empty_folder_is_filled(tmp_path):
    assert shards_folder(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "file").touch()
    for place in (tmp_path, "s3://bucket/shards"):
        with pytest.raises(UsageError, match=r"--shards .*; "):
            shards_folder(place)


def test_prepare_faces_writes_shards(faces, tmp_path, monkeypatch, capsys):
    arguments = ["prepare-faces", str(faces), "--out", str(tmp_path / "out"), "--shards", str(tmp_path / "shards")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        cli.prepare_faces_main()
    prepared, packed = (Catalog.read(tmp_path / name / "catalog.csv") for name in ("out", "shards"))
    assert packed.fingerprint == prepared.fingerprint
    assert all(face.size for face in packed.records)
    assert not any(face.size for face in prepared.records)

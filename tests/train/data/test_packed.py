"""Data sets of the hub in Parquet files and tar shards, fetched from a stand-in of the hub."""

import fcntl
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import numpy as np
import pytest
from helpers.hub import running_hub
from PIL import Image

from edge_runtime.errors import DataError, SourceError
from train.commands.shards import write_shards
from train.data.build import load_data
from train.data.layouts import list_faces
from train.data.packed import unpacked

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
import pyarrow.parquet as pq  # noqa: E402

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number, format="JPEG"):
    pixels = np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def write_parquet(path, numbers, labels, names=None, others=None):
    """As the package `datasets` writes it: a struct with bytes and path, and classes in the schema's metadata."""
    table = {"image": pa.array([{"bytes": picture(n), "path": "../../x.jpg"} for n in numbers], IMAGE), "label": labels}
    features = {"image": {"_type": "Image"}, **(others or {}), "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), path, row_group_size=5)


def kinds(folder):
    """Pictures by the folders they lie in."""
    files = [path for path in folder.rglob("*.*") if path.is_file()]
    return {
        home: sum(path.parent == folder / home for path in files)
        for home in {str(p.parent.relative_to(folder)) for p in files}
    }


def test_classes_of_the_schema_and_splits_of_the_names(tmp_path):
    folder = tmp_path / "faces"
    write_parquet(folder / "data/train-00000-of-00002.parquet", range(8), [0, 1] * 4, ["AI-generated", "Human"])
    write_parquet(folder / "data/test-00000-of-00001.parquet", range(8, 12), [0, 1, 1, -1], ["AI-generated", "Human"])
    done = unpacked(folder)
    assert kinds(done) == {"train/fake": 4, "train/real": 4, "test/fake": 1, "test/real": 2}
    assert done.name == "faces"
    first = sorted((done / "train/fake").iterdir())[0]
    assert (first.suffix, first.read_bytes()) == (".jpeg", picture(0))
    assert {(file.split, file.label, file.source) for file in list_faces(done).files} == {
        (split, label, "faces") for split in ("train", "test") for label in (0, 1)
    }
    # The second time nothing is unpacked; a changed file is.
    written = first.stat().st_mtime_ns
    assert unpacked(folder) == done
    assert first.stat().st_mtime_ns == written
    write_parquet(folder / "data/train-00001-of-00002.parquet", range(20, 22), [0, 1], ["AI-generated", "Human"])
    assert unpacked(folder) != done


def test_classes_of_the_card_and_text(tmp_path):
    card = "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    for name, labels, names in (
        ("card", [0, 1, 1], "          '0': real\n          '1': synthetic\n---\n"),
        ("text", ["real", "fake", "fake"], None),
    ):
        write_parquet(tmp_path / name / "0000.parquet", range(3), labels)
        if names:
            (tmp_path / name / "README.md").write_text(card + names)
        assert kinds(unpacked(tmp_path / name)) == {"real": 1, "fake": 2}


def test_other_columns_cost_no_class_names(tmp_path):
    """Lists of values, and configurations without features, are declared in other ways."""
    write_parquet(tmp_path / "card/0.parquet", range(3), [0, 1, 1])
    (tmp_path / "card/README.md").write_text(
        "---\ndataset_info:\n- config_name: empty\n- features:\n  - name: embedding\n    sequence: float32\n  - text\n"
        "  - name: label\n    dtype:\n      class_label:\n        names: {'0': real, '1': fake}\n---\n"
    )
    assert kinds(unpacked(tmp_path / "card")) == {"real": 1, "fake": 2}
    others = {"boxes": [{"dtype": "float32", "_type": "Value"}], "odd": {"names": 3, "_type": "ClassLabel"}}
    write_parquet(tmp_path / "schema/0.parquet", range(3), [0, 1, 1], ["real", "fake"], others)
    assert kinds(unpacked(tmp_path / "schema")) == {"real": 1, "fake": 2}


def test_a_card_with_anything_in_it_is_no_error(tmp_path):
    write_parquet(tmp_path / "faces/0.parquet", range(2), ["real", "fake"])
    cards = ("a: [", "dataset_info: 3", "dataset_info:\n  features: 3", "- 1")
    for text in (*(f"---\n{card}\n---\n".encode() for card in cards), b"\xff\xfe", b""):
        (tmp_path / "faces/README.md").write_bytes(text)
        for old in tmp_path.glob("unpacked-*"):
            shutil.rmtree(old)
        assert kinds(unpacked(tmp_path / "faces")) == {"real": 1, "fake": 1}


def test_what_says_neither_real_nor_fake_is_named(tmp_path):
    write_parquet(tmp_path / "numbers/0.parquet", range(2), [0, 1])
    with pytest.raises(DataError, match="a label is '0', which says neither real nor fake"):
        unpacked(tmp_path / "numbers")
    write_parquet(tmp_path / "none/0.parquet", range(2), pa.array([None, None], pa.int64()))
    with pytest.raises(DataError, match=r"none of its 2 pictures has a label; .* give --real or --fake"):
        unpacked(tmp_path / "none")
    pq.write_table(pa.table({"label": ["real"], "text": ["x"]}), tmp_path / "none/0.parquet")
    with pytest.raises(DataError, match=r"holds no pictures as bytes \(columns: label, text\)"):
        unpacked(tmp_path / "none")
    (tmp_path / "none/0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="can't be read"):
        unpacked(tmp_path / "none")
    # Of one class, given as such.
    assert kinds(unpacked(tmp_path / "numbers", labelled=False)) == {".": 2}
    assert not list(tmp_path.glob(".unpacking*"))


def test_webdataset_shards(tmp_path):
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/train-0000.tar", "w") as tar:
        for name, data in (
            ("a/0.jpg", picture(0)),
            ("a/0.json", b'{"label": "deepfake"}'),
            ("1.cls", b"real"),
            ("1.png", picture(1, "PNG")),
            ("fake/2.x.jpg", picture(2)),
            ("notes.txt", b"x"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    done = unpacked(tmp_path / "shards")
    assert kinds(done) == {"fake": 2, "real": 1}
    (real,) = (done / "real").iterdir()
    assert (real.suffix, real.read_bytes()) == (".png", picture(1, "PNG"))


def write_shard(path, **members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_one_picture_of_a_sample_is_taken(tmp_path):
    members = {"real/0.mask.png": picture(0, "PNG"), "real/0.png": picture(1, "PNG"), "real/0.jpg": picture(2)}
    write_shard(
        tmp_path / "shards/0.tar", **members, **{"real/1.seg.jpg": picture(3), "real/1.webp": picture(4, "WEBP")}
    )
    done = unpacked(tmp_path / "shards")
    assert [path.read_bytes() for path in sorted((done / "real").iterdir())] == [picture(2), picture(4, "WEBP")]


def test_shards_of_prepare_faces_keep_their_catalog(make_faces, tmp_path):
    packed = write_shards(load_data(make_faces()), tmp_path / "hub/ours")
    assert load_data(unpacked(tmp_path / "hub/ours")).records == packed.records
    # Given as faces of one class, and with somebody else's catalog.csv.
    assert kinds(unpacked(tmp_path / "hub/ours", labelled=False)) == {".": 24}
    (tmp_path / "hub/ours/catalog.csv").write_text("name,price\n")
    assert kinds(unpacked(tmp_path / "hub/ours")) == {"real": 12, "fake": 12}


def test_folders_of_pictures_stay(tmp_path):
    folder = tmp_path / "faces"
    (folder / "real").mkdir(parents=True)
    (folder / "real/a.jpg").write_bytes(picture(0))
    write_parquet(folder / "extra.parquet", range(2), ["real", "fake"])
    for labelled in (True, False):
        assert unpacked(folder, labelled=labelled) == folder
    assert unpacked(tmp_path / "missing") == tmp_path / "missing"


@pytest.mark.parametrize("labelled", [True, False])
def test_the_picture_of_a_readme_is_not_the_data(tmp_path, labelled):
    folder = tmp_path / "faces"
    write_parquet(folder / "0.parquet", range(2), ["real", "fake"])
    (folder / "assets").mkdir()
    (folder / "assets/teaser.png").write_bytes(picture(9, "PNG"))
    (folder / "README.md").write_text("![faces](assets/teaser.png)")
    assert kinds(unpacked(folder, labelled=labelled)) == ({"real": 1, "fake": 1} if labelled else {".": 2})


@pytest.mark.parametrize("labelled", [True, False])
def test_shards_without_pictures_say_so(tmp_path, labelled):
    write_shard(tmp_path / "shards/0.tar", **{"0.txt": b"x"})
    with pytest.raises(DataError, match="hold no pictures"):
        unpacked(tmp_path / "shards", labelled=labelled)


def test_a_full_cache_is_named_and_old_leavings_go(tmp_path):
    write_parquet(tmp_path / "faces/0.parquet", range(2), ["real", "fake"])
    (tmp_path / ".unpacking-killed/faces").mkdir(parents=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond the limit: a write that would fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(SourceError, match=rf"{tmp_path}: .* make room, or set XDG_CACHE_HOME"):
            unpacked(tmp_path / "faces")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob(".unpacking*"))
    assert kinds(unpacked(tmp_path / "faces")) == {"real": 1, "fake": 1}


def test_another_process_is_waited_for(tmp_path):
    write_parquet(tmp_path / "faces/0.parquet", range(2), ["real", "fake"])
    live = tmp_path / ".unpacking-live"
    live.mkdir()
    with (tmp_path / ".unpack.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = pool.submit(unpacked, tmp_path / "faces")
        with pytest.raises(TimeoutError):
            done.result(timeout=0.5)
        assert live.is_dir()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert kinds(done.result(timeout=60)) == {"real": 1, "fake": 1}
    assert not live.exists()


@pytest.mark.slow
def test_parquet_comes_from_the_hub(tmp_path):
    with running_hub() as hub:
        write_parquet(tmp_path / "data/train-0.parquet", range(24), [0, 1] * 12, ["real", "fake"])
        write_parquet(tmp_path / "plain.parquet", range(3), [0, 1, 0])
        hub.commit(
            "datasets/user/portraits", {"data/train-0.parquet": (tmp_path / "data/train-0.parquet").read_bytes()}
        )
        hub.commit("datasets/user/plain", {"plain.parquet": (tmp_path / "plain.parquet").read_bytes()})
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), **hub.environment}
        done = {}
        for name in ("portraits", "plain"):
            script = "from train.cli import prepare_faces_main as main; main()"
            command = [sys.executable, "-c", script, f"hf://datasets/user/{name}", "--out", str(tmp_path / name)]
            done[name] = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    rows = (tmp_path / "portraits/catalog.csv").read_text().splitlines()
    assert len(rows) == 25, done["portraits"].stderr
    assert all("portraits" in row for row in rows[1:])
    assert done["plain"].returncode == 2, done["plain"].stderr
    # Behind the bar of what is fetched.
    last = done["plain"].stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "a label is '0', which says neither real nor fake" in last

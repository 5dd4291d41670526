import errno
import json
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image

from edge_runtime.errors import DataError, UsageError
from edge_runtime.inference.faces import FaceDetector
from edge_runtime.pixels.pictures import read_picture
from train.commands.console import tell_prepared
from train.commands.prepare import PrepareOptions, prepare_faces, scan_notes
from train.data.build import build_catalog, load_data
from train.data.catalog import Catalog
from train.data.face_finder import face_finder
from train.report.shortcuts import audit_verdict

Options = PrepareOptions


def test_folders_become_an_audited_catalog(faces, tmp_path, capsys):
    prepared = prepare_faces([faces], tmp_path / "out", Options())
    assert Catalog.read(tmp_path / "out" / "catalog.csv").fingerprint == prepared.catalog.fingerprint
    assert (tmp_path / "out" / "audit.html").is_file()
    assert tell_prepared(prepared, tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert audit_verdict(prepared.audit) in printed.err
    assert set(prepared.small) == {"real", "fake"}
    assert f"only {prepared.small['real']} real and {prepared.small['fake']} fake faces" in printed.err


def test_left_out_files_are_listed_and_kept(make_faces, tmp_path):
    folder = make_faces(count=9)
    (folder / "real" / "text.jpg").write_text("hello")
    prepared = prepare_faces([folder], tmp_path / "out", Options())
    (line,) = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
    assert str(folder / "real" / "text.jpg") in line
    assert (folder / "real" / "text.jpg").exists()
    assert tell_prepared(prepared, tmp_path / "out") == 1


def test_folders_can_be_assigned_to_classes(make_faces, tmp_path):
    folder = make_faces(count=9)
    prepared = prepare_faces([], tmp_path / "out", Options(real=[folder / "fake"], fake=[folder / "real"]))
    assert {face.label for face in prepared.catalog.records if face.path.parent.name == "real"} == {1}


def test_a_class_in_one_folder_leaves_gaps(make_faces, tmp_path, capsys):
    folder = make_faces(count=9)
    (folder / "real").rename(folder / "all")
    (folder / "real").mkdir()
    (folder / "all").rename(folder / "real" / "all")
    prepared = prepare_faces([folder], tmp_path / "out", Options())
    (gap,) = prepared.gaps
    assert "no real faces: all 9 belong to 1 identity (folder all)" in gap
    assert tell_prepared(prepared, tmp_path / "out") == 1
    assert f"warning: {gap}" in capsys.readouterr().err


def test_splits_without_a_share_may_be_empty(make_faces, tmp_path):
    two = prepare_faces([make_faces(count=9)], tmp_path / "out", Options(split="80/20"))
    assert (two.gaps, two.small) == ([], {})
    make_faces("given/train", count=6)
    make_faces("given/test", count=3, first=500)
    assert prepare_faces([tmp_path / "given"], tmp_path / "out", Options()).gaps == []


def test_a_class_of_too_few_faces_is_a_gap(make_faces, tmp_path):
    folder = make_faces(count=9)
    for file in sorted((folder / "fake").iterdir())[2:]:
        file.unlink()
    prepared = prepare_faces([folder], tmp_path / "out", Options())
    (gap,) = prepared.gaps
    assert "holds no fake faces" in gap
    assert prepared.audit is None


def test_a_picture_lost_before_the_audit_is_an_error(make_faces, tmp_path, monkeypatch):
    def build_and_lose(*given, **options):
        catalog = build_catalog(*given, **options)
        catalog.records[0].path.unlink()
        return catalog

    monkeypatch.setattr("train.commands.prepare.build_catalog", build_and_lose)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.html").write_text("of an earlier run")
    with pytest.raises(DataError, match="can no longer be read"):
        prepare_faces([make_faces()], tmp_path / "out", Options())
    assert not (tmp_path / "out" / "audit.html").exists()


def test_one_class_alone_asks_for_the_other(tmp_path, draw):
    place = tmp_path / "iFakeFaceDB" / "iFakeFaceDB_TPDNE"
    place.mkdir(parents=True)
    draw(1).save(place / "1.png")
    with pytest.raises(DataError, match=r"all 1 pictures are fake; give real faces too: --real DIR"):
        prepare_faces([tmp_path / "iFakeFaceDB"], tmp_path / "out", Options())
    with pytest.raises(DataError, match="no faces are given"):
        prepare_faces([], tmp_path / "out", Options())


def test_an_unwritable_folder_is_refused_first(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(UsageError, match=r"--out .*file"):
            prepare_faces([tmp_path / "nowhere"], out, Options())
    with pytest.raises(DataError, match="nowhere"):
        prepare_faces([tmp_path / "nowhere"], tmp_path / "new" / "deep", Options())
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_named(make_faces, tmp_path, monkeypatch):
    def write(path, audit):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("train.commands.prepare.write_audit", write)
    with pytest.raises(UsageError, match=r"No space left on device.*make room"):
        prepare_faces([make_faces()], tmp_path / "out", Options())


def test_harmonized_classes_are_stored_alike(make_faces, tmp_path):
    folder = make_faces(count=9, size=(80, 64))
    for file in (folder / "fake").iterdir():
        with Image.open(file) as picture:
            picture.load()
        picture.resize((70, 70)).save(file.with_suffix(".jpg"), quality=50)
        file.unlink()
    prepared = prepare_faces([folder], tmp_path / "out", Options(harmonize=64))
    found = set()
    for face in prepared.catalog.records:
        with Image.open(face.path) as picture:
            found.add((picture.format, picture.size, str(picture.quantization)))
    assert len(found) == 1
    assert load_data(tmp_path / "out").records == prepared.catalog.records
    assert len(list((folder / "fake").iterdir())) == 9


def test_notes_with_a_cut_last_line_are_read(tmp_path):
    notes = tmp_path / "scan.jsonl"
    found = {"path": "/a", "stamp": [1, 2], "reason": "too small"}
    damaged = ('{"path": "/d"}', '{"path": "/e", "stamp": [3, 4], "reason": ""}', "[1]", "7", '{"path": "/b", "sta')
    notes.write_text("\n".join((json.dumps(found), *damaged)))
    with scan_notes(notes) as (known, remember):
        assert list(known) == ["/a"]
        remember({**found, "path": "/c"})
    with scan_notes(notes) as (known, _):
        assert list(known) == ["/a", "/c"]


SCRIPT = """
import itertools, sys, time
from pathlib import Path
import train.data.build
from train.commands.prepare import PrepareOptions, prepare_faces
scan, counted = train.data.build.scan, itertools.count()
def slow(path, find_box):
    print(path, flush=True)
    time.sleep(0.02 if next(counted) < 30 else 0.5)
    return {**scan(path, find_box), "padding": "x" * 4000}
train.data.build.scan = slow
prepare_faces([Path(sys.argv[1])], Path(sys.argv[2]), PrepareOptions())
"""


@pytest.mark.slow
def test_a_killed_scan_is_resumed(faces, tmp_path):
    arguments = [sys.executable, "-c", SCRIPT, str(faces), str(tmp_path / "out")]
    killed = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    for _ in range(30):
        killed.stdout.readline()
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "out" / "catalog.csv").exists()
    again = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    assert 0 < len(again) < 48
    assert Catalog.read(tmp_path / "out" / "catalog.csv").fingerprint == load_data(faces).fingerprint


def test_cropping_uses_the_boards_detector(shared, face_model, tmp_path):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
    people = sorted((shared / "scenes" / "people").glob("*.jpg"))[:4]
    for index, file in enumerate(people):
        (tmp_path / ("real", "fake")[index % 2] / file.name).symlink_to(file)
    (tmp_path / "real" / "empty.jpg").symlink_to(shared / "scenes" / "nobody" / "04_consomme.JPEG")
    prepared = prepare_faces([tmp_path], tmp_path / "out", Options(crop=True, split="80/20"))
    assert [file.reason for file in prepared.catalog.quarantine] == ["no face found"]
    assert Counter(face.label for face in prepared.catalog.records) == {0: 2, 1: 2}
    stage = FaceDetector(face_model)
    for face in prepared.catalog.records:
        assert face.box == pytest.approx(stage.detect(read_picture(face.path))[0].box, abs=0.01)


def test_a_missing_face_model_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--face-model"):
        face_finder(None)

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from edge_runtime.errors import DataError, UsageError
from train.commands.console import tell_prepared
from train.commands.prepare import PrepareOptions, ScanNotes, face_finder, prepare_faces
from train.data.build import Catalog, build_catalog, load_data

Options = PrepareOptions


def test_folders_become_a_catalog_with_its_audit(faces, tmp_path):
    prepared = prepare_faces([faces], tmp_path / "out", Options())
    assert Catalog.read(tmp_path / "out" / "catalog.csv").fingerprint == prepared.catalog.fingerprint
    assert prepared.audit is not None
    assert (tmp_path / "out" / "audit.html").is_file()


def test_what_is_left_out_is_listed_with_its_reason_and_nothing_is_deleted(make_faces, tmp_path):
    folder = make_faces()
    (folder / "real" / "text.jpg").write_text("hello")
    prepare_faces([folder], tmp_path / "out", Options())
    lines = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()
    assert len(lines) == 2
    assert "text.jpg,not a picture that can be read" in lines[1]
    assert (folder / "real" / "text.jpg").exists()


def test_folders_are_mapped_by_hand(make_faces, tmp_path):
    folder = make_faces()
    prepared = prepare_faces([], tmp_path / "out", Options(real=[folder / "fake"], fake=[folder / "real"]))
    assert {face.label for face in prepared.catalog.records if face.path.parent.name == "real"} == {1}


def test_a_class_that_lies_in_one_folder_is_told_for_the_splits_that_lack_it(make_faces, tmp_path, capsys):
    folder = make_faces()
    (folder / "real").rename(folder / "all")
    (folder / "real").mkdir()
    (folder / "all").rename(folder / "real" / "all")
    prepared = prepare_faces([folder], tmp_path / "out", Options())
    (gap,) = prepared.gaps
    assert re.match(r"the (train|valid|test) and (train|valid|test) splits hold no real faces: the 12 there are", gap)
    assert "1 identity (folder all)" in gap
    assert "give each person or video a folder of its own" in gap
    assert tell_prepared(prepared, tmp_path / "out") == 1
    assert f"warning: {gap}" in capsys.readouterr().err


def test_splits_that_were_not_asked_for_may_be_empty(make_faces, tmp_path):
    assert prepare_faces([make_faces()], tmp_path / "out", Options(split="80/20")).gaps == []
    make_faces("given/train")
    make_faces("given/test", first=500)
    assert prepare_faces([tmp_path / "given"], tmp_path / "out", Options()).gaps == []


def test_a_class_of_too_few_faces_is_told(make_faces, tmp_path):
    folder = make_faces()
    for file in sorted((folder / "fake").iterdir())[2:]:
        file.unlink()
    (gap,) = prepare_faces([folder], tmp_path / "out", Options()).gaps
    assert gap.endswith("split holds no fake faces; give more fake faces, or another --split")


def test_pictures_that_went_away_before_the_audit_are_no_small_set(make_faces, tmp_path, monkeypatch):
    def build_and_lose(*given, **options):
        catalog = build_catalog(*given, **options)
        catalog.records[0].path.unlink()
        return catalog

    monkeypatch.setattr("train.commands.prepare.build_catalog", build_and_lose)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.html").write_text("of an earlier run")
    with pytest.raises(DataError, match="can't be read any more"):
        prepare_faces([make_faces()], tmp_path / "out", Options())
    assert not (tmp_path / "out" / "audit.html").exists()


def test_a_data_set_of_fakes_alone_asks_for_reals(tmp_path, draw):
    place = tmp_path / "iFakeFaceDB" / "iFakeFaceDB_TPDNE"
    place.mkdir(parents=True)
    draw(1).save(place / "1.png")
    with pytest.raises(DataError, match=r"all 1 pictures are fake; give real faces too: --real DIR"):
        prepare_faces([tmp_path / "iFakeFaceDB"], tmp_path / "out", Options())


def test_no_folder_at_all_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match="no faces are given"):
        prepare_faces([], tmp_path, Options())


def test_harmonizing_stores_both_classes_alike_and_leaves_the_originals(make_faces, tmp_path, draw):
    folder = make_faces(size=(80, 64))
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
    assert len(list((folder / "fake").iterdir())) == 12


def test_a_scan_whose_last_line_was_cut_off_goes_on(tmp_path):
    notes = tmp_path / "scan.jsonl"
    notes.write_text(json.dumps({"path": "/a", "stamp": [1, 2]}) + "\n" + '{"path": "/b", "sta')
    with ScanNotes(notes) as scan:
        assert list(scan.known) == ["/a"]
        scan.add({"path": "/c", "stamp": [5, 6]})
    with ScanNotes(notes) as scan:
        assert list(scan.known) == ["/a", "/c"]


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


def test_a_scan_whose_process_was_killed_goes_on_where_it_was(faces, tmp_path):
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


def test_cropping_finds_the_face_as_the_board_does_and_leaves_out_pictures_without_one(shared, tmp_path):
    from edge_runtime.inference.faces import FaceDetector
    from edge_runtime.pixels.pictures import read_picture
    from train.commands import prepare as preparing

    try:
        face_finder(None)
    except UsageError:
        pytest.skip("needs the face model")
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
    people = sorted((shared / "scenes" / "people").glob("*.jpg"))[:4]
    for index, file in enumerate(people):
        (tmp_path / ("real", "fake")[index % 2] / file.name).symlink_to(file)
    (tmp_path / "real" / "empty.jpg").symlink_to(shared / "scenes" / "nobody" / "04_consomme.JPEG")
    prepared = prepare_faces([tmp_path], tmp_path / "out", Options(crop=True, split="80/20"))
    assert [file.path.name for file in prepared.catalog.quarantine] == ["04_consomme.JPEG"] or [
        file.reason for file in prepared.catalog.quarantine
    ] == ["no face found in it"]
    stage = FaceDetector(preparing._packaged_model())
    for face in prepared.catalog.records:
        assert face.box == pytest.approx(stage.detect(read_picture(face.path))[0].box, abs=0.01)


def test_a_missing_face_model_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--face-model"):
        face_finder(None)


def test_preparing_and_judging_a_bundle_start_without_torch():
    modules = (
        "catalog records scanning splitting layouts preparing audit metrics calibrate degrade evaluate evaluation "
        "judging report cli tell plots"
    )
    code = "import sys\n" + "\n".join(f"import train.{name}" for name in modules.split())
    done = subprocess.run(
        [sys.executable, "-c", code + "\nprint('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"

"""Which faces calibrate and which are measured."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.bucket import use_bucket

from edge_runtime.errors import DataError
from export.faces import choose_faces
from train.commands.shards import write_shards
from train.data.build import load_data
from train.evaluation.training_faces import among, face_mark


def names(faces) -> set[str]:
    return {f"{face.label}/{face.path.name}" for face in faces}


def test_a_plain_folder_is_cut_into_disjoint_halves(tiny_data: Path) -> None:
    faces = choose_faces(tiny_data, calibration=1000, measured=1000)
    assert not names(faces.calibration) & names(faces.measured)
    assert len(faces.calibration) + len(faces.measured) == 120
    assert 40 <= len(faces.measured) <= 80
    assert choose_faces(tiny_data, calibration=1000, measured=1000) == faces
    assert choose_faces(tiny_data, calibration=1000, measured=1000, seed=1) != faces


def test_both_classes_take_turns_and_few_get_a_note(tiny_data: Path) -> None:
    faces = choose_faces(tiny_data, calibration=10, measured=20)
    assert [face.label for face in faces.calibration] == [0, 1] * 5
    assert faces.labels == [0, 1] * 10
    assert len(faces.groups) == 20
    one = tuple(replace(face, identity="she") for face in faces.measured)
    assert len(set(replace(faces, measured=one).groups)) == 1
    assert not faces.notes
    assert "300" in choose_faces(tiny_data, calibration=10, measured=300).notes[0]


def test_a_catalogs_splits_are_kept(tiny_data: Path, tmp_path: Path) -> None:
    catalog = load_data(tiny_data)
    catalog.write(tmp_path / "catalog.csv")
    for path in (tmp_path, tmp_path / "catalog.csv"):
        faces = choose_faces(path, calibration=1000, measured=1000)
        assert names(faces.calibration) == names(catalog.split("train"))
        assert names(faces.measured) == names(catalog.split("valid"))


def test_splits_of_shards_in_a_bucket_are_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = write_shards(load_data(tiny_data), tmp_path / "bucket")
    faces = choose_faces(Path(use_bucket(tmp_path / "bucket", monkeypatch)), calibration=1000, measured=1000)
    assert {face.sha256 for face in faces.calibration} == {face.sha256 for face in packed.split("train")}
    for chosen in (faces.measured, faces.familiar):
        assert {face.sha256 for face in chosen} == {face.sha256 for face in packed.split("valid")}


def test_faces_of_the_training_are_never_measured(tiny_data: Path, tmp_path: Path) -> None:
    trained = {face_mark(face) for face in load_data(tiny_data).split("train")}
    faces = choose_faces(tiny_data, calibration=1000, measured=20, trained=trained)
    assert len(faces.measured) == 20
    assert not among(trained, faces.measured)
    assert among(trained, faces.calibration)
    assert "trained on are not measured" in faces.notes[0]


def test_a_folder_of_training_faces_only_is_refused(tiny_data: Path) -> None:
    trained = {face_mark(face) for face in load_data(tiny_data).records}
    with pytest.raises(DataError, match="trained on; give faces that it has not seen"):
        choose_faces(tiny_data, calibration=1000, measured=1000, trained=trained)


def test_missing_and_broken_pictures_are_left_out(tiny_data: Path, tmp_path: Path) -> None:
    catalog = load_data(tiny_data)
    gone = replace(catalog.records[0], path=tmp_path / "gone.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    broken = replace(catalog.records[1], path=tmp_path / "broken.png")
    replace(catalog, records=(gone, broken, *catalog.records[2:])).write(tmp_path / "catalog.csv")
    faces = choose_faces(tmp_path, calibration=1000, measured=1000)
    assert not names(faces.calibration) & {"0/gone.png", "0/broken.png"}
    assert {file.path.name: file.reason for file in faces.left_out} == {
        "gone.png": "not found",
        "broken.png": "not a picture that can be read",
    }
    assert faces.notes[0].startswith("2 pictures")


@pytest.mark.parametrize("missing", ["fake", "real", "both", "readable"])
def test_a_missing_class_is_refused(tiny_data: Path, tmp_path: Path, missing: str) -> None:
    for name in ("real", "fake"):
        if missing in (name, "both", "readable"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).symlink_to(tiny_data / name)
        if missing == "readable":
            (tmp_path / name / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=str(tmp_path)):
        choose_faces(tmp_path, calibration=10, measured=10)

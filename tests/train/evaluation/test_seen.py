from edge_runtime.model.contract import ModelContract
from train.data.build import load_data
from train.evaluation.seen import checkpoint_faces, face_mark
from train.models.checkpoint import Checkpoint


def checkpoint(path, catalog="", data=""):
    return Checkpoint(ModelContract("tiny", data=data), {}, path, str(catalog))


def test_the_catalog_that_a_checkpoint_names_tells_its_training_faces(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "catalog.csv")
    known = checkpoint_faces(checkpoint(tmp_path / "gone" / "best.pth", tmp_path / "catalog.csv"))
    assert known == {face_mark(face) for face in catalog.split("train")}


def test_without_a_checkpoints_catalog_no_face_is_known_as_trained_on(tmp_path):
    assert not checkpoint_faces(checkpoint(tmp_path / "best.pth"))
    assert not checkpoint_faces(checkpoint(tmp_path / "best.pth", tmp_path / "gone.csv", "ab" * 32))


def test_the_catalog_beside_a_checkpoint_counts_if_it_is_the_one_it_was_trained_on(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "catalog.csv")
    expected = {face_mark(face) for face in catalog.split("train")}
    assert checkpoint_faces(checkpoint(tmp_path / "best.pth", "gone.csv", catalog.fingerprint)) == expected
    assert not checkpoint_faces(checkpoint(tmp_path / "best.pth", "gone.csv", "ab" * 32))
    assert not checkpoint_faces(checkpoint(tmp_path / "bare.pth"))

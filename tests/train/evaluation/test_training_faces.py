from edge_runtime.model.contract import ModelContract
from train.data.build import load_data
from train.evaluation.training_faces import checkpoint_faces, face_mark
from train.models.checkpoint import Checkpoint


def checkpoint(path, catalog="", data=""):
    return Checkpoint(ModelContract("tiny", data=data), {}, path, str(catalog))


def test_training_faces_come_from_the_right_catalog(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "catalog.csv")
    trained = {face_mark(face) for face in catalog.split("train")}
    named = checkpoint(tmp_path / "gone" / "best.pth", tmp_path / "catalog.csv")
    beside = checkpoint(tmp_path / "best.pth", "gone.csv", catalog.fingerprint)
    assert checkpoint_faces(named) == checkpoint_faces(beside) == trained
    of_another_catalog = checkpoint(tmp_path / "best.pth", "gone.csv", "ab" * 32)
    unknown = checkpoint(tmp_path / "best.pth")
    without_catalog = checkpoint(tmp_path / "gone" / "best.pth", tmp_path / "gone.csv", "ab" * 32)
    assert not any(map(checkpoint_faces, (of_another_catalog, unknown, without_catalog)))

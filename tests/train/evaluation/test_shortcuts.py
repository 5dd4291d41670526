import numpy as np
import pytest
from PIL import Image, ImageFilter

from train.data.build import load_data
from train.evaluation.shortcuts import TooFewFacesError, _told_by, audit_faces, tell_faults, write_audit


def states(audit):
    return {finding.name: finding.state for finding in audit.findings}


@pytest.fixture
def save_all(tmp_path, draw):
    """Write 40 faces a class, each class by a function of its own."""

    def save(real, fake):
        for name, write in (("real", real), ("fake", fake)):
            (tmp_path / name).mkdir()
            for index in range(40):
                picture = draw(index + (1000 if name == "fake" else 0), (64, 64))
                write(picture, tmp_path / name / f"{index}.jpg")
        return load_data(tmp_path).records

    return save


def plain(picture, path):
    picture.save(path, quality=90)


def test_faces_that_are_stored_alike_pass(save_all):
    audit = audit_faces(save_all(plain, plain))
    assert not audit.faults
    assert audit.faces == 80


@pytest.mark.parametrize(
    ("write", "leak"),
    [
        (lambda picture, path: picture.save(path, quality=75), "JPEG quantization"),
        (lambda picture, path: picture.save(path, quality=90, subsampling=0), "chroma subsampling"),
        (lambda picture, path: picture.resize((72, 64)).save(path, quality=90), "size"),
        (lambda picture, path: picture.save(path, "PNG"), "format"),
    ],
)
def test_a_class_that_is_stored_otherwise_is_a_fault_that_is_named_with_its_remedy(save_all, write, leak):
    audit = audit_faces(save_all(plain, write))
    assert states(audit)[leak] == "fault"
    assert states(audit)["all of it"] == "fault"
    assert leak in tell_faults(audit)
    assert "--harmonize" in tell_faults(audit)


def test_what_harmonizing_can_not_help_is_not_sent_to_it(save_all):
    def soft(picture, path):
        plain(picture.filter(ImageFilter.GaussianBlur(3)), path)

    audit = audit_faces(save_all(plain, soft))
    assert states(audit)["bytes a pixel"] == "fault"
    assert "so this is content" in tell_faults(audit)
    assert "--harmonize" not in tell_faults(audit)


def test_a_leak_is_found_though_all_pictures_of_a_class_lie_in_one_folder(save_all):
    def in_a_folder(picture, path):
        (path.parent / "all").mkdir(exist_ok=True)
        picture.save(path.parent / "all" / path.name, "PNG")

    assert states(audit_faces(save_all(in_a_folder, plain)))["format"] == "fault"


def test_many_pictures_of_few_videos_do_not_make_a_figure_sure():
    videos = np.repeat(np.arange(12), 20)
    drawn = np.random.default_rng(0).normal(size=12)
    auc = _told_by(drawn[videos][:, None], videos % 2, videos, 42)
    assert auc["high"] - auc["low"] > 0.3


def test_content_that_gives_the_class_away_is_found_in_a_thumbnail(save_all):
    def dark(picture, path):
        Image.fromarray((np.asarray(picture) * 0.5).astype(np.uint8)).save(path, quality=90)

    assert states(audit_faces(save_all(plain, dark)))["8×8 thumbnail"] == "fault"


def test_the_audit_is_written_as_a_report(save_all, tmp_path):
    write_audit(tmp_path / "audit.html", audit_faces(save_all(plain, plain)))
    assert "Fit for training." in (tmp_path / "audit.html").read_text()


def test_too_few_faces_are_refused(faces):
    with pytest.raises(TooFewFacesError, match="at least 10 faces of each class"):
        audit_faces(load_data(faces).records[:12])


def test_two_downloads_laid_side_by_side_are_caught(shared):
    audit = audit_faces(load_data(shared / "faces" / "leaky").records)
    assert {"size", "JPEG quantization"} <= {finding.name for finding in audit.faults}


def test_faces_of_one_size_and_one_compression_pass_with_their_bias_of_content_told(shared):
    records = load_data(shared / "faces" / "stylegan" / "train").records[::3]
    audit = audit_faces(records)
    assert not audit.faults
    assert 0.55 < audit.findings[-1].auc["value"] < 0.85

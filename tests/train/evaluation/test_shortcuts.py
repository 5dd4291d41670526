import numpy as np
import pytest
from PIL import Image, ImageFilter

from train.data.build import load_data
from train.evaluation.shortcuts import BYTES, CONTENT, State, TooFewFacesError, audit_faces, cross_validated_auc
from train.report.shortcuts import audit_verdict, write_audit


def states(audit):
    return {finding.name: finding.state for finding in audit.findings}


@pytest.fixture
def save_all(tmp_path, draw):
    """Write 40 faces of each class, each class with a function of its own."""

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


def test_faces_that_are_stored_alike_pass(save_all, tmp_path):
    audit = audit_faces(save_all(plain, plain))
    assert not audit.faults
    assert audit.faces == 80
    write_audit(tmp_path / "audit.html", audit)
    assert audit_verdict(audit) in (tmp_path / "audit.html").read_text()


def test_differently_stored_classes_are_a_fault(save_all):
    def otherwise(picture, path):
        picture.resize((72, 64)).save(path, quality=75, subsampling=0)

    audit = audit_faces(save_all(plain, otherwise))
    for leak in ("size", "JPEG quantization", "chroma subsampling"):
        assert leak in {finding.name for finding in audit.faults}
        assert f"{leak} tells" in audit_verdict(audit)
    assert "--harmonize" in audit_verdict(audit)


def test_harmonize_is_not_advised_for_content(save_all):
    def soft(picture, path):
        plain(picture.filter(ImageFilter.GaussianBlur(3)), path)

    audit = audit_faces(save_all(plain, soft))
    assert states(audit)[BYTES] == State.FAULT
    assert "--harmonize" not in audit_verdict(audit)


def test_a_leak_is_found_in_one_folder(save_all):
    def in_a_folder(picture, path):
        (path.parent / "all").mkdir(exist_ok=True)
        picture.save(path.parent / "all" / path.name, "PNG")

    assert states(audit_faces(save_all(in_a_folder, plain)))["format"] == State.FAULT


def test_pictures_of_few_videos_leave_the_figure_uncertain():
    videos = np.repeat(np.arange(12), 20)
    drawn = np.random.default_rng(0).normal(size=12)
    auc = cross_validated_auc(drawn[videos][:, None], videos % 2, videos, 42)
    assert auc["high"] - auc["low"] > 0.3


def test_telling_content_is_found_in_thumbnails(save_all):
    def dark(picture, path):
        Image.fromarray((np.asarray(picture) * 0.5).astype(np.uint8)).save(path, quality=90)

    assert states(audit_faces(save_all(plain, dark)))[CONTENT] == State.FAULT


def test_too_few_faces_are_refused(faces):
    with pytest.raises(TooFewFacesError, match="at least 10 faces of each class"):
        audit_faces(load_data(faces).records[:12])


@pytest.mark.slow
def test_two_downloads_side_by_side_are_caught(shared):
    audit = audit_faces(load_data(shared / "faces" / "leaky").records)
    assert {"size", "JPEG quantization"} <= {finding.name for finding in audit.faults}


@pytest.mark.slow
def test_equally_stored_faces_pass_with_biased_content(shared):
    audit = audit_faces(load_data(shared / "faces" / "stylegan" / "train").records[::3])
    assert not audit.faults
    assert audit.findings[-1].name == CONTENT
    assert 0.55 < audit.findings[-1].auc["value"] < 0.85

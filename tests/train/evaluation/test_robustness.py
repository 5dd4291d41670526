from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.pixels.pictures import read_picture
from train.data.build import load_data
from train.evaluation.evaluation import open_subject
from train.evaluation.robustness import CROSSED, ONE_BY_ONE, Condition, robustness_rows


@pytest.mark.parametrize("condition", [*ONE_BY_ONE, CROSSED[-1]], ids=lambda row: row.name)
def test_every_condition_keeps_the_size_and_repeats(draw, condition):
    picture = draw(3, (96, 80))
    changed, again = condition(picture, 5), condition(picture, 5)
    assert (changed.size, changed.mode) == (picture.size, "RGB")
    assert changed.tobytes() == again.tobytes()
    assert (changed.tobytes() == picture.tobytes()) == (condition.name == "clean")


def test_conditions_have_different_names():
    names = [condition.name for condition in CROSSED]
    assert len(set(names)) == len(names) == 40
    assert Condition(scale=0.5, blur=1.0, recaptured=True, quality=50).name == "scale 0.5, blur 1, recapture, JPEG 50"


def test_a_row_judges_degraded_pictures(faces, tiny_checkpoint):
    judged = []

    def logits(faces, progress, corrupt):
        judged.append((faces[0], corrupt(read_picture(faces[0].path), faces[0])))
        return np.array([(1.0, -1.0), (-1.0, 1.0)], np.float32)[[face.label for face in faces]]

    subject = replace(open_subject(tiny_checkpoint), logits=logits)
    (row,) = robustness_rows(subject, load_data(faces).records, [Condition(quality=30)], 10, bootstrap=10)
    ((face, picture),) = judged
    assert picture.tobytes() == Condition(quality=30)(read_picture(face.path), 0).tobytes()
    assert (row["name"], row["faces"], row["auc"]["value"]) == ("JPEG 30", 10, 1.0)
    assert {"balanced_accuracy", "recall", "coverage", "fpr", "fnr"} <= set(row)

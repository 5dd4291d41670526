import pytest
import torch
from accelerate import Accelerator
from helpers.networks import SIDE, TinyNet

from train.learning.distillation import Teacher
from train.learning.objectives import Distilled, Labels, MapByMap
from train.learning.recipes import Recipe

EVEN = (2, 2)
"""Faces of each class."""

RECIPE = Recipe(epochs=4, smoothing=0.0)


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def pair():
    """A student and the teacher it learns from."""
    torch.manual_seed(0)
    student = TinyNet(2)
    teacher = Teacher(TinyNet(2), student, SIDE, 2.0)
    teacher.measure([torch.randn(8, 3, SIDE, SIDE)])
    return student, teacher


def test_uneven_classes_weigh_the_same(accelerator):
    weights = Labels((17, 4), RECIPE, accelerator).weights
    assert float(weights[0]) * 17 == pytest.approx(float(weights[1]) * 4)


def test_student_learns_the_teachers_scores(accelerator, pair):
    student, teacher = pair
    objective = Distilled(EVEN, RECIPE.replace(distilled=1.0, hinted=0.0), accelerator, teacher)
    images, labels = torch.randn(4, 3, SIDE, SIDE), torch.zeros(4, dtype=torch.long)
    network = objective.begin(student, 0, resumed=False)
    network(images)
    with torch.no_grad():
        taught = teacher.network(images)
        assert float(objective.loss(images, taught, labels)) == pytest.approx(0.0, abs=1e-5)
        assert float(objective.loss(images, taught + torch.tensor([3.0, 0.0]), labels)) > 0.1


@pytest.mark.parametrize(
    ("stages", "resumed", "is_set"), [((4, 8), False, True), ((4, 8), True, False), ((4,), False, False)]
)
def test_head_is_set_once_after_the_last_map(accelerator, pair, stages, resumed, is_set):
    student, teacher = pair
    objective = MapByMap(EVEN, RECIPE, accelerator, teacher, student, stages)
    before = student.fc.weight.clone()
    network = objective.begin(student, len(stages), resumed=resumed)
    assert network is student
    assert torch.equal(student.fc.weight, before) != is_set

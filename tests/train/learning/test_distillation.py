import pytest
import torch
from accelerate import Accelerator
from helpers.networks import SIDE, TinyNet

from train.learning.distillation import LEAST_VARIANCE, FeatureMaps, Stage, Teacher
from train.models.backbones import build_backbone


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def taught_by(network, student, size=SIDE):
    """Return the teacher and the images on which it was measured."""
    teacher, images = Teacher(network, student, size, 2.0), torch.randn(4, 3, size, size)
    teacher.measure([images])
    return teacher, images


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", {4: 256, 8: 512, 16: 1024, 32: 2048}),
        ("efficientnet_lite0", {4: 144, 8: 240, 16: 672, 32: 1280}),
        ("shufflenet_v2_x1_0", {4: 58, 8: 116, 16: 232, 32: 1024}),
        ("vit_b_16", {16: 768}),
    ],
)
def test_widest_map_of_each_stride_is_recorded(name, channels):
    size = 224 if name == "vit_b_16" else 64
    with torch.device("meta"):
        network = build_backbone(name).eval()
        maps = FeatureMaps(network)
        network(torch.zeros(2, 3, size, size))
    assert {stride: found.shape[1] for stride, found in sorted(maps.found.items())} == channels
    assert all(found.shape[2:] == (size // stride, size // stride) for stride, found in maps.found.items())


def test_parts_run_alone_are_not_recorded():
    network = TinyNet(2).eval()
    maps = FeatureMaps(network)
    with torch.no_grad():
        network(torch.zeros(2, 3, SIDE, SIDE))
        before = dict(maps.found)
        network.body[:3](torch.zeros(2, 3, SIDE, SIDE))
    assert before
    assert all(maps.found[stride] is before[stride] for stride in before)


def test_student_learns_its_teachers_maps():
    network, student = TinyNet(2), TinyNet(2)
    teacher, images = taught_by(network, student)
    optimizer = torch.optim.Adam([*student.parameters(), *teacher.hints.parameters()], 1e-2)
    seen = []
    for _ in range(12):
        _, difference = teacher.losses(images, student(images))
        optimizer.zero_grad()
        difference.backward()
        optimizer.step()
        seen.append(float(difference.detach()))
    assert seen[-1] < 0.7 * seen[0]
    assert all(weight.grad is None for weight in network.parameters())
    assert not network.training
    assert student.training


def test_stage_trains_only_between_two_maps():
    network, student = build_backbone("efficientnet_lite0"), build_backbone("resnet18")
    teacher, images = taught_by(network, student, 64)
    assert teacher.strides == (4, 8, 16, 32)
    accelerator = Accelerator(cpu=True)
    stage = Stage(teacher, student, 8, 4, accelerator)
    network_part = stage.begin()
    statistics = [module.running_mean.clone() for module in (student.bn1, student.layer2[0].bn1)]
    guess = network_part(images)
    assert not guess.any()  # nothing is learned yet
    assert torch.equal(student.bn1.running_mean, statistics[0])
    assert not torch.equal(student.layer2[0].bn1.running_mean, statistics[1])
    stage.loss(images, guess).backward()
    with torch.no_grad():
        network(images)
        assert torch.equal(teacher.teacher_maps.found[8], stage.teacher(images))
    for stride, layers in ((8, {"layer2"}), (16, {"layer2", "layer3"})):
        Stage(teacher, student, stride, 4, accelerator)
        learning = {name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad}
        assert learning == layers
    assert teacher.hints["8"].weight.grad.any()
    with torch.no_grad():
        teacher.hints["8"].weight.fill_(1.0)
    assert not torch.equal(network_part(images), guess)  # the stage shares the student's weights


def test_last_stage_learns_the_teachers_scores_too():
    network, student = TinyNet(2).eval(), TinyNet(2)
    teacher, images = taught_by(network, student)
    stages = {stride: Stage(teacher, student, stride, None, Accelerator(cpu=True)) for stride in (4, 8)}
    assert stages[4].head is None
    target, scale = stages[8].teacher(images), stages[8].scale
    standard = (target - scale.mean[:, None, None]) / scale.deviation[:, None, None]
    torch.testing.assert_close(scale.restored(standard), target)
    losses = []  # two guesses, equally wrong: one where the teacher does not look, one where it does
    looked = (network.fc.weight.detach().abs() * scale.deviation).sum(0)
    for channel in (looked.argmin(), looked.argmax()):
        wrong = standard.clone()
        wrong[:, channel] += 5.0
        losses.append(float(stages[8].loss(images, wrong)))
    assert losses[0] < losses[1]
    assert float(stages[8].loss(images, standard)) == pytest.approx(0.0, abs=1e-6)


def test_scale_is_that_of_all_measured_images():
    network = build_backbone("resnet18")
    teacher = Teacher(network, TinyNet(2), 64, 2.0)
    images = torch.randn(4, 3, 64, 64) * torch.tensor([1.0, 1.0, 3.0, 3.0])[:, None, None, None]
    teacher.measure([images[:3], images[3:]])
    with torch.no_grad():
        network(images)
    for stride, scale in teacher.scales.items():
        maps = teacher.teacher_maps.found[stride]
        torch.testing.assert_close(scale.mean, maps.mean((0, 2, 3)))
        variance = maps.var((0, 2, 3), unbiased=False)
        least = LEAST_VARIANCE * variance.mean()
        assert (variance < least).any()
        torch.testing.assert_close(scale.deviation, torch.maximum(variance, least).sqrt())
        standard = (maps - scale.mean[:, None, None]) / scale.deviation[:, None, None]
        assert float(scale.difference(standard, maps)) == pytest.approx(0.0, abs=1e-6)
        assert float(scale.difference(standard + 2, maps)) == pytest.approx(4.0, rel=1e-4)


def test_head_judges_the_guess_like_the_teacher():
    network, student = build_backbone("efficientnet_lite0"), build_backbone("resnet18").eval()
    teacher, images = taught_by(network, student, 64)
    for weight in teacher.hints["32"].parameters():
        torch.nn.init.normal_(weight)
    assert teacher.begin_head(student)
    with torch.no_grad():
        logits = student(images)
        guess = teacher.scales[32].restored(teacher.hints["32"](teacher.student_maps.found[32]))
        torch.testing.assert_close(logits, network._fc(guess.mean((2, 3))), rtol=1e-3, atol=1e-3)


def network_with(head):
    if head == "two_layers":
        return build_backbone("mobilenet_v3_large")
    network = build_backbone("resnet18")
    if head == "max_pooling":
        network.avgpool = torch.nn.AdaptiveMaxPool2d(1)
    return network


@pytest.mark.parametrize(
    ("taught", "learner"),
    [("two_layers", "linear"), ("linear", "two_layers"), ("max_pooling", "linear"), ("linear", "max_pooling")],
)
def test_other_heads_are_left_as_they_are(taught, learner):
    student = network_with(learner)
    teacher, _ = taught_by(network_with(taught), student, 64)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    assert not teacher.begin_head(student)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert student.training

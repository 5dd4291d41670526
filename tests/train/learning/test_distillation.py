import pytest
import torch
from accelerate import Accelerator

from train.learning.distillation import LEAST_VARIANCE, FeatureMaps, Teacher
from train.models.backbones import build_backbone


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", {4: 256, 8: 512, 16: 1024, 32: 2048}),
        ("efficientnet_lite0", {4: 144, 8: 240, 16: 672, 32: 1280}),
        ("shufflenet_v2_x1_0", {4: 58, 8: 116, 16: 232, 32: 1024}),
        ("vit_b_16", {16: 768}),
    ],
)
def test_the_widest_map_of_each_stride_is_gathered(name, channels):
    network = build_backbone(name).eval()
    maps = FeatureMaps(network)
    size = 224 if name == "vit_b_16" else 64
    with torch.no_grad():
        network(torch.zeros(2, 3, size, size))
    assert {stride: found.shape[1] for stride, found in sorted(maps.found.items())} == channels
    assert all(found.shape[2:] == (size // stride, size // stride) for stride, found in maps.found.items())


def test_a_student_comes_to_see_what_its_teacher_sees():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 64, 64)
    network, student = build_backbone("resnet18"), build_backbone("resnet18")
    teacher = Teacher(network, student, 64, 2.0)
    teacher.measure([images])
    weights = [*student.parameters(), *teacher.hints.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3)
    seen = []
    for _ in range(8):
        _, difference = teacher.losses(images, student(images))
        optimizer.zero_grad()
        difference.backward()
        optimizer.step()
        seen.append(float(difference.detach()))
    assert seen[-1] < 0.7 * seen[0]
    assert student.conv1.weight.grad is not None
    assert all(weight.grad is None for weight in network.parameters())
    assert not network.training
    assert student.training


def test_a_stage_learns_between_two_maps_and_shares_the_students_weights():
    torch.manual_seed(0)
    network, student = build_backbone("efficientnet_lite0"), build_backbone("resnet50")
    teacher = Teacher(network, student, 64, 2.0)
    assert teacher.strides == (4, 8, 16, 32)
    images = torch.randn(2, 3, 64, 64)
    teacher.measure([images])
    accelerator = Accelerator(cpu=True)
    stage = teacher.stage(student, 8, 4, accelerator)
    stage.train()
    right = stage.teacher(images)
    assert right.shape == (2, 240, 8, 8)
    statistics = [module.running_mean.clone() for module in (student.bn1, student.layer2[0].bn1)]
    guessed = stage.student(images)
    assert not guessed.any()  # nothing is guessed before anything is learnt
    assert torch.equal(student.bn1.running_mean, statistics[0])
    assert not torch.equal(student.layer2[0].bn1.running_mean, statistics[1])
    stage.loss(images).backward()
    with torch.no_grad():
        network(images)
        student(images)
    assert torch.equal(teacher._taught.found[8], right)
    learning = {name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad}
    assert learning == {"layer2"}
    teacher.stage(student, 16, 4, accelerator)
    assert {name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad} == {
        "layer2",
        "layer3",
    }
    assert teacher.hints["8"].weight.grad.any()
    with torch.no_grad():
        student.layer2[0].conv1.weight.zero_()
        teacher.hints["8"].weight.fill_(1.0)
    assert not torch.equal(stage.student(images), guessed)


def test_the_stage_of_the_last_map_learns_what_the_teacher_says_of_it_too():
    torch.manual_seed(0)
    network, student = build_backbone("resnet18").eval(), build_backbone("resnet50")
    images = torch.randn(4, 3, 64, 64)
    teacher = Teacher(network, student, 64, 2.0)
    teacher.measure([images])
    stages = {stride: teacher.stage(student, stride, None, Accelerator(cpu=True)) for stride in (16, 32)}
    assert stages[16].head is None
    right = stages[32].teacher(images)
    scale = stages[32].scale
    standard = (right - scale.mean[:, None, None]) / scale.deviation[:, None, None]
    torch.testing.assert_close(scale.restored(standard), right)
    # Two guesses, equally wrong: one where the teacher does not look, one where it does.
    losses = []
    looked = network.fc.weight.detach().abs().sum(0)
    for channel in (looked.argmin(), looked.argmax()):
        wrong = standard.clone()
        wrong[:, channel] += 5.0
        stages[32].student = lambda images, wrong=wrong: wrong
        losses.append(float(stages[32].loss(images)))
    assert losses[0] < losses[1]
    stages[32].student = lambda images: standard
    assert float(stages[32].loss(images)) == pytest.approx(0.0, abs=1e-6)


def test_the_scale_of_a_map_is_that_of_all_measured_images():
    torch.manual_seed(0)
    network, student = build_backbone("resnet18"), build_backbone("resnet18")
    teacher = Teacher(network, student, 64, 2.0)
    images = torch.randn(4, 3, 64, 64) * torch.tensor([1.0, 1.0, 3.0, 3.0])[:, None, None, None]
    teacher.measure([images[:3], images[3:]])
    with torch.no_grad():
        network(images)
    for stride, scale in teacher.scales.items():
        maps = teacher._taught.found[stride]
        torch.testing.assert_close(scale.mean, maps.mean((0, 2, 3)))
        variance = maps.var((0, 2, 3), unbiased=False)
        least = LEAST_VARIANCE * variance.mean()
        assert (variance < least).any()
        torch.testing.assert_close(scale.deviation, torch.maximum(variance, least).sqrt())
        standard = (maps - scale.mean[:, None, None]) / scale.deviation[:, None, None]
        assert float(scale.difference(standard, maps)) == pytest.approx(0.0, abs=1e-6)
        assert float(scale.difference(standard + 2, maps)) == pytest.approx(4.0, rel=1e-4)


def test_the_first_head_judges_as_the_teacher_would_by_the_guess_at_its_map():
    torch.manual_seed(0)
    network, student = build_backbone("efficientnet_lite0"), build_backbone("resnet18").eval()
    teacher = Teacher(network, student, 64, 2.0)
    images = torch.randn(4, 3, 64, 64)
    teacher.measure([images])
    for weight in teacher.hints["32"].parameters():
        torch.nn.init.normal_(weight)
    assert teacher.begin_head(student)
    with torch.no_grad():
        logits = student(images)
        scale = teacher.scales[32]
        guessed = teacher.hints["32"](teacher._learnt.found[32])
        guessed = guessed * scale.deviation[:, None, None] + scale.mean[:, None, None]
        torch.testing.assert_close(logits, network._fc(guessed.mean((2, 3))), rtol=1e-3, atol=1e-3)


def strongest() -> torch.nn.Module:
    """Return a network that judges by the strongest places of its map, not by their mean."""
    network = build_backbone("resnet18")
    network.avgpool = torch.nn.AdaptiveMaxPool2d(1)
    return network


def two_layers() -> torch.nn.Module:
    """Return a network whose head is of two layers."""
    return build_backbone("mobilenet_v3_large")


def plain() -> torch.nn.Module:
    """Return a network that judges the mean of its map by one layer."""
    return build_backbone("resnet18")


@pytest.mark.parametrize(
    ("taught", "learning"), [(two_layers, plain), (plain, two_layers), (strongest, plain), (plain, strongest)]
)
def test_a_head_that_is_not_linear_in_the_mean_of_a_map_begins_as_it_is(taught, learning):
    student = learning()
    teacher = Teacher(taught(), student, 64, 2.0)
    teacher.measure([torch.randn(2, 3, 64, 64)])
    before = {key: value.clone() for key, value in student.state_dict().items()}
    assert not teacher.begin_head(student)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert student.training


def test_what_runs_a_part_of_a_network_alone_is_not_followed():
    network = build_backbone("resnet18").eval()
    maps = FeatureMaps(network)
    with torch.no_grad():
        network(torch.zeros(2, 3, 64, 64))
        before = dict(maps.found)
        network.layer1(torch.zeros(2, 64, 16, 16))
    assert all(maps.found[stride] is before[stride] for stride in before)

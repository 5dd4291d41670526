import pytest
import torch

from train.backbones import build_backbone
from train.distillation import FeatureMaps, Teacher, difference


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
    teacher = Teacher(network, student, 64)
    weights = [*student.parameters(), *teacher.hints.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3)
    seen = []
    for _ in range(8):
        _, difference = teacher.losses(images, student(images), 2.0)
        optimizer.zero_grad()
        difference.backward()
        optimizer.step()
        seen.append(float(difference.detach()))
    assert seen[-1] < 0.7 * seen[0]
    assert student.conv1.weight.grad is not None
    assert all(weight.grad is None for weight in network.parameters())
    assert not network.training
    assert student.training


def test_the_part_of_a_student_learns_between_two_maps_and_shares_its_weights():
    torch.manual_seed(0)
    network, student = build_backbone("efficientnet_lite0"), build_backbone("resnet50")
    teacher = Teacher(network, student, 64)
    assert teacher.strides == (4, 8, 16, 32)
    part = teacher.student_part(student, 8, teacher.hints["8"], 4).train()
    student.train()
    images = torch.randn(2, 3, 64, 64)
    right = teacher.part(8)(images)
    assert right.shape == (2, 240, 8, 8)
    guessed = part(images)
    assert not guessed.any()  # nothing is guessed before anything is learnt
    difference(guessed, right).backward()
    with torch.no_grad():
        network(images)
        student(images)
    assert torch.equal(teacher._taught.found[8], right)
    learning = {name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad}
    assert learning == {"layer2"}
    teacher.student_part(student, 16, teacher.hints["16"], 4)
    assert {name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad} == {
        "layer2",
        "layer3",
    }
    assert teacher.hints["8"].weight.grad.any()
    with torch.no_grad():
        student.layer2[0].conv1.weight.zero_()
        part.hint.weight.fill_(1.0)
    assert not torch.equal(part(images), guessed)


def test_what_runs_a_part_of_a_network_alone_is_not_followed():
    network = build_backbone("resnet18").eval()
    maps = FeatureMaps(network)
    with torch.no_grad():
        network(torch.zeros(2, 3, 64, 64))
        before = dict(maps.found)
        network.layer1(torch.zeros(2, 64, 16, 16))
    assert all(maps.found[stride] is before[stride] for stride in before)

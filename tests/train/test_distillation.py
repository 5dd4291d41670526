import pytest
import torch

from train.backbones import build_backbone
from train.distillation import FeatureMaps, Teacher


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", {8: 512, 16: 1024, 32: 2048}),
        ("efficientnet_lite0", {8: 240, 16: 672, 32: 1280}),
        ("shufflenet_v2_x1_0", {8: 116, 16: 232, 32: 1024}),
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

import shutil
from dataclasses import replace

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks import cli
from benchmarks.frontier import measure_frontier, points, table
from benchmarks.measure.plan import Plan
from benchmarks.options import Options
from benchmarks.results.schema import Report
from benchmarks.studies.small import small_contract, write_small_bundle
from edge_runtime.command import command_app
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import PixelRecipe


def write_bundle(folder, architecture, size=32, precisions=("int8",)):
    contract = small_contract(architecture=architecture, input_size=size, pixels=PixelRecipe(resize_to=size))
    return write_small_bundle(folder, contract, precisions)


@pytest.mark.slow
def test_networks_are_compared_in_one_run(faces, tmp_path):
    """Real rounds and real AUC: the small networks call red pictures fake, so blue fakes are judged wrong."""
    models = [write_bundle(tmp_path / f"{size}", "redness", size) for size in (32, 64)]
    for label, other in (("real", "fake"), ("fake", "real")):
        shutil.copytree(faces / label, tmp_path / "swapped" / other)
    words = [*models, "--data", faces, "--data", tmp_path / "swapped", "--out", tmp_path / "out"]
    words += ["--rounds", "2", "--seconds", "0.1"]
    done = CliRunner().invoke(command_app(cli.benchmark, [cli.frontier]), ["frontier", *map(str, words)])
    assert done.exit_code == 0, done.output
    report = Report.read(tmp_path / "out")
    assert {(row.case.isa, row.case.precision, len(row.rounds)) for row in report.rows} == {("sse42", "int8", 2)}
    assert [accuracy.auc for accuracy in report.accuracies] == [0.0, 0.0]
    with Image.open(tmp_path / "out" / "frontier.png") as picture:
        assert picture.width > 500
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| redness")]
    assert sorted(row[1] for row in rows) == ["32", "64"]
    assert {tuple(cell[:5] for cell in row[2:4]) for row in rows} == {("0.000", "1.000")}
    assert all(row[-1].startswith("–") for row in rows)


def measured_points(tmp_path, make_report, **rounds):
    """Return the points of networks with these frames/s in each round."""
    bundles = {name: Bundle.open(write_bundle(tmp_path / name, name, 224)) for name in rounds}
    report = make_report(bundles=tuple(rounds), isas=("sse42",))
    rows = {row.case.bundle: row for row in report.find(precision="int8")}
    rows = tuple(replace(row, rounds=tuple({"model_fps": fps} for fps in rounds[name])) for name, row in rows.items())
    report = replace(report, rows=rows)
    return points(Plan(Options(tmp_path, tmp_path), bundles), report, {"faces": report})


def test_estimates_follow_published_rates(tmp_path, make_report):
    """A network that is 4 times as fast as ResNet-50 in each round, though a slow minute hides it in the medians."""
    rounds = {"resnet50": (20.0, 10.0, 5.0), "efficientnet_lite0": (80.0, 40.0, 2.0)}
    fast, reference = measured_points(tmp_path, make_report, **rounds)
    assert (fast.name, fast.ratio, reference.ratio) == ("efficientnet_lite0", 4.0, 1.0)
    assert (reference.estimate("CPU"), reference.estimate("GPU")) == (18.0, 42.0)
    assert fast.estimate("CPU") == 72.0
    # The published table's MobileNet-v2: 134 on the CPU, 227 on the GPU.
    assert replace(fast, ratio=134 / 19.86).estimate("GPU") == pytest.approx(42 * 227 / 52.54)
    found = table([fast, reference])
    assert found.head[-1].startswith("estimate")
    assert [row[-2:] for row in found.rows] == [("≈ 72", "≈ 122"), ("≈ 18", "≈ 42")]


def test_bundle_without_int8_is_refused(tmp_path, faces):
    folder = write_bundle(tmp_path / "fp32", "redness", precisions=("fp32",))
    with pytest.raises(BundleError, match="int8"):
        measure_frontier([faces], Options(faces, tmp_path, [folder], isa=["sse42"]), lambda _: None)


def test_networks_without_rounds_are_last(tmp_path, make_report):
    rounds = {"resnet18": (10.0,), "mobilenetv3": (), "resnet50": (5.0,), "efficientnet_lite0": (20.0,)}
    found = measured_points(tmp_path, make_report, **rounds)
    assert [point.name for point in found] == ["efficientnet_lite0", "resnet18", "resnet50", "mobilenetv3"]
    assert "nan" not in str(table(found).rows[-1])


def test_order_is_by_ratios_round_by_round(tmp_path, make_report):
    """In its third round the faster network met a slow minute, so its median is the lower one."""
    rounds = {"resnet50": (10.0, 20.0, 30.0), "efficientnet_lite0": (11.0, 22.0, 15.0)}
    found = measured_points(tmp_path, make_report, **rounds)
    assert [point.name for point in found] == ["efficientnet_lite0", "resnet50"]

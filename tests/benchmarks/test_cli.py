import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import cli, tune
from benchmarks.measure import run as running
from benchmarks.measure import session
from benchmarks.measure.cases import Round
from benchmarks.measure.plan import make_plan, match_checkpoints
from benchmarks.options import Options
from benchmarks.results.schema import Report
from edge_runtime.command import command_app
from edge_runtime.errors import DeviceError, UsageError
from train.data.build import load_data

COMMAND = [sys.executable, "-c", "from benchmarks.cli import main; main()"]


def run(*words: object):
    return CliRunner().invoke(command_app(cli.benchmark, [cli.compare]), [str(word) for word in words])


def quick_options(bundle, data, out, **changes) -> Options:
    values = {"model": [bundle.path], "rounds": 1, "seconds": 0.1, "frames": 5, "baselines": False}
    return Options(data=data, out=out, **{**values, **changes})


@pytest.fixture(scope="module")
def measured(bundle, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "report"
    words = ("--model", bundle.path, "--data", faces, "--out", out, "--rounds", 1, "--seconds", 0.05, "--no-baselines")
    command = [*COMMAND, *map(str, words), "--minutes", "0.02"]
    return subprocess.run(command, capture_output=True, text=True, check=False), out


@pytest.mark.slow
def test_answer_is_printed_and_report_written(measured, faces):
    done, out = measured
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny: take " in done.stdout
    assert done.stdout.strip().endswith(f"report: {out / 'report.html'}")
    report = Report.read(out)
    assert f"--data {faces}" in report.circumstances.command
    assert len(report.sustained[0].series) >= 1
    assert {"report.md", "sustained.png"} <= {path.name for path in out.iterdir()}


@pytest.fixture
def fake_workers(monkeypatch):
    """Instead of worker processes: rounds are made up, a sustained run fails, accuracy is not measured."""

    def run_job(job, cache):
        if job.sustained_s:
            Path(job.series).write_text('{"second": 1.0, "end_to_end_fps": 9.0}\n{"second": 2.')
            raise DeviceError("the process was killed by SIGBUS")
        return Round({"end_to_end_fps": 1.0}, {"threads": 1}, latencies_ms=[1.0 + number for number in range(101)])

    monkeypatch.setattr(running, "run_job", run_job)
    monkeypatch.setattr(running.Run, "measure_accuracy", lambda self: None)


def test_long_run_without_terminal_prints_progress(bundle, faces, tmp_path, fake_workers, monkeypatch, capsys):
    monkeypatch.setattr(session, "LINE_EVERY_S", 0.0)
    assert session.run_session(quick_options(bundle, faces, tmp_path)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"0 of \d+ done, now round 1: .*tiny.*", lines[0])
    assert len(lines) == 4


def test_slow_rounds_are_repeated_before_the_answer(bundle, faces, tmp_path, fake_workers, monkeypatch, capsys):
    paces = iter([60.0])

    def run_job(job, cache):
        pace = next(paces, 90.0)
        return Round({"end_to_end_fps": pace, "pace": pace}, {"threads": 1}, latencies_ms=[pace] * 101)

    monkeypatch.setattr(running, "run_job", run_job)
    assert session.run_session(quick_options(bundle, faces, tmp_path)) == 0
    report = Report.read(tmp_path)
    assert report.repeated == 1
    assert {pace for row in report.rows for pace in row.values("pace")} == {90.0}
    assert "tiny: take " in (answer := capsys.readouterr().out)
    assert "pace" not in answer


def test_unreadable_pictures_are_named(bundle, faces, tmp_path, fake_workers, capsys):
    data = shutil.copytree(faces, tmp_path / "faces")
    (data / "real" / "text.jpg").write_text("no picture")
    catalog = load_data(data)
    catalog.write(tmp_path / "catalog.csv")
    gone = catalog.split("test")[0].path
    gone.unlink()
    for given, unreadable in ((data, data / "real" / "text.jpg"), (tmp_path / "catalog.csv", gone)):
        assert session.run_session(quick_options(bundle, given, tmp_path / "out")) == 1
        assert f"left out: {unreadable}: " in capsys.readouterr().err
        report = Report.read(tmp_path / "out")
        assert not report.failures
        assert report.left_out[-1].what == "1 of the pictures"


def test_full_disk_keeps_the_answer(bundle, faces, tmp_path, fake_workers, monkeypatch, capsys):
    def write(report, out):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "write", write)
    with pytest.raises(UsageError, match="No space left"):
        session.run_session(quick_options(bundle, faces, tmp_path))
    assert "tiny: take " in capsys.readouterr().out


def test_failing_sustained_run_costs_no_rounds(bundle, faces, tmp_path, fake_workers, capsys):
    assert session.run_session(quick_options(bundle, faces, tmp_path, minutes=0.1)) == 1
    report = Report.read(tmp_path)
    assert all(row.rounds for row in report.rows)
    assert [row["second"] for row in report.sustained[0].series] == [1.0]
    assert report.sustained[0].failed == "the process was killed by SIGBUS"
    assert "failed: tiny" in capsys.readouterr().err


def test_interrupted_tuning_keeps_what_it_measured(bundle, faces, tmp_path, fake_workers, monkeypatch, capsys):
    def interrupt(run):
        run.measure(run.cases[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "tune", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.run_session(quick_options(bundle, faces, tmp_path, tune=True))
    report = Report.read(tmp_path)
    assert len([row for row in report.rows if row.rounds]) == 1
    assert not report.complete
    assert str(tmp_path) in capsys.readouterr().err


def test_options_reach_every_measurement(bundle, faces, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(session, "run_session", lambda options: seen.append(options) or 0)
    words = ("--data", faces, "--out", tmp_path, "--delay", 0.1, "--frames", 2, "--isa", "sse42", "--isa", "sse42")
    assert run("--model", bundle.path, *words).exit_code == 0
    limits = make_plan(seen[0]).options.limits
    assert (limits.delay, limits.frames, limits.warmup_frames) == (0.1, 2, 2)
    assert seen[0].isas == ("sse42",)


def test_compare_exits_with_1_on_a_regression(make_report, tmp_path):
    for name, report in (("a", make_report()), ("b", make_report(seed=5)), ("slow", make_report(seed=6, slower=1.1))):
        (tmp_path / f"{name}.json").write_text(report.to_json())
    same = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    slow = run("compare", tmp_path / "a.json", tmp_path / "slow.json")
    assert (same.exit_code, slow.exit_code) == (0, 1)
    assert "worse: resnet50/runtime/int8/CPU/throughput/native" in slow.output


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("compare", "none.json", "none.json"), "none.json"),
        (("--model", ".", "--data", "faces", "--out", "out"), "export-openvino"),
        (("--data", "faces", "--out", "file"), "choose another folder"),
        (("--data", "faces", "--out", "faces"), "choose another folder"),
        (("--data", "faces", "--out", "detector"), "choose another folder"),
        (("compare", "~nobody-here/a", "b"), "no such user"),
        (("--data", "faces", "--out", "~nobody-here/out"), "no such user"),
        (("--isa", "mmx", "--data", "faces", "--out", "out"), "choose from native, avx2, sse42"),
    ],
)
def test_user_errors_are_one_line(words, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for made in ("file", "detector/model.json"):
        (tmp_path / made).parent.mkdir(exist_ok=True)
        (tmp_path / made).touch()
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert name in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--tune", "--data", "faces", "--out", "out"), ("compare", "a", "b")])
def test_missing_package_names_the_extra(words):
    hidden = "import sys; sys.modules.update(matplotlib=None, scipy=None); "
    command = [sys.executable, "-c", hidden + COMMAND[-1], *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: edge-benchmark needs \S+; in the clone: pip install '\.\[benchmarks\]'\n", done.stderr)


def test_checkpoint_is_matched_by_architecture(bundle, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from edge_runtime.model.contract import ModelContract
    from train.models.checkpoint import save_checkpoint

    def save(name: str, architecture: str) -> Path:
        save_checkpoint(tmp_path / name, torch.nn.Linear(1, 1), ModelContract(architecture))
        return tmp_path / name

    assert match_checkpoints({"tiny": bundle}, [save("a.pth", "tiny")]) == {"tiny": tmp_path / "a.pth"}
    with pytest.raises(UsageError, match="resnet50"):
        match_checkpoints({"tiny": bundle}, [save("b.pth", "resnet50")])
    monkeypatch.setitem(sys.modules, "train.models.checkpoint", None)
    assert match_checkpoints({"tiny": bundle}, []) == {}

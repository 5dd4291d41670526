import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli
from benchmarks.measure import plan as session
from benchmarks.measure import run as running
from benchmarks.measure.children import Done
from benchmarks.measure.plan import check_isas, match_checkpoints
from benchmarks.results.schema import Report
from edge_runtime.errors import DeviceError, UsageError
from train.data.build import load_data

COMMAND = [sys.executable, "-c", "from benchmarks.cli import main; main()"]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(bundle, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "report"
    words = ("--model", bundle.path, "--data", faces, "--out", out, "--rounds", 1, "--seconds", 0.05, "--no-baselines")
    return run(*words, "--minutes", 0.02), out


def test_the_answer_is_printed_and_the_report_written(measured):
    done, out = measured
    assert done.returncode == 0, done.stderr
    assert "tiny: take " in done.stdout
    assert done.stdout.strip().endswith(f"report: {out / 'report.html'}")
    assert (out / "report.md").exists()


def test_without_a_terminal_a_short_run_prints_no_progress(measured):
    assert measured[0].stderr == ""


def test_without_a_terminal_a_long_run_prints_a_line_now_and_then(bundle, faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "LINE_EVERY_S", 0.0)
    assert session.session(asked(bundle, faces, tmp_path / "report", rounds=1)) == 0
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"0 of \d+ done, now round 1: .*tiny.*", said[0])
    assert len(said) == int(said[0].split()[2])


def test_pictures_that_can_not_be_read_are_named_and_the_others_are_measured(bundle, faces, tmp_path, capsys):
    data = shutil.copytree(faces, tmp_path / "faces")
    (data / "real" / "text.jpg").write_text("no picture")
    catalog = load_data(data)
    catalog.write(tmp_path / "catalog.csv")
    gone = catalog.split("test")[0].path
    gone.unlink()
    assert session.session(asked(bundle, data, tmp_path / "a", rounds=1)) == 1
    assert f"left out: {data}/real/text.jpg: not a picture that can be read\n" in capsys.readouterr().err
    assert session.session(asked(bundle, tmp_path / "catalog.csv", tmp_path / "b", rounds=1)) == 1
    assert capsys.readouterr().err == f"left out: {gone}: not found\n"
    for out in ("a", "b"):
        report = Report.read(tmp_path / out)
        assert not report.failures
        assert report.left_out[-1].what == "1 of the pictures"


def test_minutes_add_a_run_without_a_pause(measured):
    report = Report.read(measured[1])
    assert len(report.sustained[0].series) >= 1
    assert (measured[1] / "sustained.png").exists()


def test_the_command_is_part_of_the_circumstances(measured, faces):
    assert f"--data {faces}" in Report.read(measured[1]).circumstances.command


def test_a_delay_is_an_option_that_the_help_does_not_show(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "session", lambda request: seen.append(request.delay) or 0)
    cli.benchmark(Path("faces"), Path("out"), delay=0.1)
    assert seen == [0.1]
    assert "--delay" not in run("--help").stdout


def test_a_delay_goes_into_every_measurement(bundle, faces):
    request = asked(bundle, faces, Path("out"), delay=0.1)
    assert session.make_plan(request, Console(stderr=True)).limits.delay == 0.1


def asked(bundle, faces, out: Path, **changes) -> session.Request:
    request = session.Request(
        data=faces,
        out=out,
        models=(bundle.path,),
        checkpoints=(),
        isas=("native",),
        rounds=1,
        seconds=0.1,
        frames=5,
        pictures=None,
        tune=False,
        target_fps=None,
        max_auc_loss=0.01,
        minutes=None,
        baselines=False,
    )
    return replace(request, **changes)


@pytest.fixture
def made_up(monkeypatch):
    """Children that are not started; what happens in place of a long run, and of accuracy, is set by the test."""

    def run_job(job, cache):
        if job.sustained_s:
            Path(job.series).write_text('{"second": 1.0, "end_to_end_fps": 9.0}\n{"second": 2.')
            raise DeviceError("the process died of SIGBUS")
        figures, latencies = {"end_to_end_fps": 1.0}, [1.0 + number for number in range(101)]
        return Done({"figures": figures, "facts": {"threads": 1}, "logits": [], "latencies_ms": latencies}, {})

    monkeypatch.setattr(running, "run_job", run_job)
    monkeypatch.setattr(running.Run, "measure_accuracy", lambda self: None)


def test_a_device_that_fails_in_the_long_run_costs_none_of_the_rounds(bundle, faces, tmp_path, made_up, capsys):
    assert session.session(asked(bundle, faces, tmp_path, minutes=0.1)) == 1
    report = Report.read(tmp_path)
    assert all(row.rounds for row in report.rows)
    assert [row["second"] for row in report.sustained[0].series] == [1.0]
    assert "without a pause: the process died of SIGBUS" in capsys.readouterr().err
    assert "It ended after 1 s: the process died of SIGBUS." in (tmp_path / "report.md").read_text()


def test_a_tuning_that_is_interrupted_keeps_what_it_measured(bundle, faces, tmp_path, made_up, monkeypatch, capsys):
    def measured_once(self, wish):
        self.measure(self.cases[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(session.tuning, "tune", measured_once)
    with pytest.raises(KeyboardInterrupt):
        session.session(asked(bundle, faces, tmp_path, tune=True))
    report = Report.read(tmp_path)
    assert len([row for row in report.rows if row.rounds]) == 1
    assert not report.complete
    assert report.answer[0].startswith("No setting was chosen")
    assert str(tmp_path) in capsys.readouterr().err


def test_compare_exits_with_1_on_a_regression_and_with_0_on_none(make_report, tmp_path):
    for name, report in (("a", make_report()), ("b", make_report(seed=5)), ("slow", make_report(seed=6, slower=1.1))):
        (tmp_path / f"{name}.json").write_text(report.to_json())
    same = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    slow = run("compare", tmp_path / "a.json", tmp_path / "slow.json")
    assert (same.returncode, slow.returncode) == (0, 1)
    assert same.stdout.startswith("No difference beyond the noise")
    assert "worse: resnet50/runtime/int8/CPU/throughput/native" in slow.stdout


def test_compare_of_what_is_no_report_exits_with_2_and_one_line(tmp_path):
    done = run("compare", tmp_path / "none.json", tmp_path / "none.json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_compare_has_a_help_of_its_own():
    assert "A.json" in run("compare", "--help").stdout


def test_a_missing_bundle_exits_with_2_and_one_line(faces, tmp_path):
    done = run("--model", tmp_path, "--data", faces, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no bundle" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("--tune", "--data", "faces", "--out", "out"), ("compare", "a", "b")])
def test_a_missing_package_is_one_line_that_names_the_extra(words):
    hidden = "import sys; sys.modules.update(matplotlib=None, scipy=None); "
    command = [sys.executable, "-c", hidden + COMMAND[-1], *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: edge-benchmark needs \S+; in the clone: pip install '\.\[benchmarks\]'\n", done.stderr)


def test_without_checkpoints_no_pytorch_is_needed(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "train.models.checkpoint", None)
    assert match_checkpoints({"tiny": bundle}, []) == {}


def test_an_unknown_instruction_set_is_told_with_those_that_are_known():
    with pytest.raises(UsageError, match="choose of native, avx2, sse42"):
        check_isas(["mmx"])
    assert check_isas(["sse42", "native", "sse42"]) == ("sse42", "native")


def test_a_checkpoint_belongs_to_the_bundle_of_its_architecture(bundle, tmp_path):
    torch = pytest.importorskip("torch")
    from edge_runtime.model.contract import ModelContract
    from train.models.checkpoint import save_checkpoint

    def save(name: str, architecture: str) -> Path:
        save_checkpoint(tmp_path / name, torch.nn.Linear(1, 1), ModelContract(architecture))
        return tmp_path / name

    assert match_checkpoints({"tiny": bundle}, [save("a.pth", "tiny")]) == {"tiny": tmp_path / "a.pth"}
    with pytest.raises(UsageError, match="of which there is no other --model"):
        match_checkpoints({"tiny": bundle}, [save("b.pth", "resnet50")])

import os
import sys
from pathlib import Path

import pytest

from benchmarks.demo.steps import DemoStep, StepError, StepState, run_steps

DONE, PARTIAL, SKIPPED = StepState.DONE, StepState.PARTIAL, StepState.SKIPPED


def writing(path: Path, text: str = "made", code: int = 0, title: str = "", errors: str = "") -> DemoStep:
    """A step that appends to `path`, so that running twice shows."""
    script = f"import sys; open({str(path)!r}, 'a').write({text!r}); print({errors!r}, file=sys.stderr); exit({code})"
    return DemoStep(title or f"write {path.name}", ("python", "-c", script), (path,), if_partial="incomplete")


def states(steps, folder):
    return [result.state for result in run_steps(steps, folder)]


def test_second_run_skips_what_is_done(tmp_path):
    steps = [writing(tmp_path / "a"), writing(tmp_path / "b")]
    assert states(steps, tmp_path) == [DONE, DONE]
    assert states(steps, tmp_path) == [SKIPPED, SKIPPED]
    assert (tmp_path / "a").read_text() == "made"


def test_steps_after_a_repeated_one_are_repeated(tmp_path):
    steps = [writing(tmp_path / "a"), writing(tmp_path / "b"), writing(tmp_path / "c")]
    run_steps(steps, tmp_path)
    (tmp_path / "b").write_text("changed by hand")
    assert states(steps, tmp_path) == [SKIPPED, DONE, DONE]


@pytest.mark.parametrize("spoil", ["remove", "shorten"])
def test_changed_results_repeat_a_step(tmp_path, spoil):
    folder = tmp_path / "faces"
    folder.mkdir()
    step = DemoStep("write", writing(folder / "one").command, (folder,))
    run_steps([step], tmp_path)
    (folder / "one").unlink() if spoil == "remove" else (folder / "one").write_text("")
    assert states([step], tmp_path) == [DONE]


def test_another_command_repeats_a_step(tmp_path):
    run_steps([writing(tmp_path / "a", title="write")], tmp_path)
    assert states([writing(tmp_path / "a", "other", title="write")], tmp_path) == [DONE]


def test_steps_shown_every_time_repeat_nothing_else(tmp_path):
    shown = DemoStep("show", ("python", "-c", ""), again=True)
    steps = [writing(tmp_path / "a"), shown, writing(tmp_path / "b")]
    run_steps(steps, tmp_path)
    assert states(steps, tmp_path) == [SKIPPED, DONE, SKIPPED]


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        ("", "python: incomplete"),
        ("warning: few faces\nerror: INT8 was refused\ndone", "python: INT8 was refused"),
        ("\x1b[31maudit: Not fit for training\x1b[0m\nwarning: few", "python: audit: Not fit for training"),
    ],
)
def test_problem_of_a_short_step_is_kept(tmp_path, capfd, errors, problem):
    steps = [writing(tmp_path / "a", code=1, errors=errors), writing(tmp_path / "b")]
    results = run_steps(steps, tmp_path)
    assert [(result.state, result.problem) for result in results] == [(PARTIAL, problem), (DONE, "")]
    assert capfd.readouterr().err.strip() == errors.strip()
    assert [result.problem for result in run_steps(steps, tmp_path)] == [problem, ""]


@pytest.mark.parametrize(
    ("command", "error", "reason"),
    [
        (("python", "-c", "raise SystemExit('error: disk full')"), StepError, "disk full"),
        (("python", "-c", "raise SystemExit(1)"), StepError, "was not written"),
        (("python", "-c", "raise SystemExit(130)"), KeyboardInterrupt, None),
        (("no-such-program",), StepError, "no-such-program"),
    ],
)
def test_failed_step_ends_the_run(tmp_path, command, error, reason):
    steps = [writing(tmp_path / "a"), DemoStep("fail", command, (tmp_path / "b",))]
    with pytest.raises(error, match=reason):
        run_steps(steps, tmp_path)
    assert states([steps[0]], tmp_path) == [SKIPPED]


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"write a": 1}', "[" * 100_000])
def test_damaged_journal_counts_as_none(tmp_path, text):
    run_steps([writing(tmp_path / "a")], tmp_path)
    (tmp_path / "steps.json").write_text(text)
    assert states([writing(tmp_path / "a")], tmp_path) == [DONE]


def test_commands_are_shown_as_a_user_types_them(tmp_path, capfd):
    run_steps([DemoStep("say", ("python", "-c", "print('two words')"))], tmp_path)
    out = capfd.readouterr().out
    assert "[1/1] say" in out
    assert "python -c 'print('\"'\"'two words'\"'\"')'" in out
    assert "\ntwo words" in out


def test_terminal_stays_a_terminal_for_steps(tmp_path, monkeypatch, capfd):
    if not hasattr(os, "openpty"):
        pytest.skip("needs pseudo terminals")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_steps([DemoStep("ask", ("python", "-c", "import sys; print(sys.stderr.isatty(), file=sys.stderr)"))], tmp_path)
    assert capfd.readouterr().err.strip() == "True"


def test_console_scripts_beside_python_are_run(tmp_path, capfd):
    if not Path(sys.executable).with_name("edge-detect").exists():
        pytest.skip("needs the console scripts beside Python")
    run_steps([DemoStep("version", ("edge-detect", "--version"))], tmp_path)
    assert "edge-detect " in capfd.readouterr().out

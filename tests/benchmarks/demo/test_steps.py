import sys
from pathlib import Path

import pytest

from benchmarks.demo.steps import Step, StepError, fingerprint, run_steps


def writing(path: Path, text: str = "made", code: int = 0, title: str = "") -> Step:
    """A step that appends to `path`, so that what runs twice shows."""
    script = f"import sys; open({str(path)!r}, 'a').write({text!r}); sys.exit({code})"
    return Step(title or f"write {path.name}", ("python", "-c", script), (path,), if_short="it came out short")


def states(steps, folder):
    return [done.state for done in run_steps(steps, folder)]


def test_a_second_run_skips_what_is_done(tmp_path):
    steps = [writing(tmp_path / "a"), writing(tmp_path / "b")]
    assert states(steps, tmp_path) == ["done", "done"]
    assert states(steps, tmp_path) == ["skipped", "skipped"]
    assert (tmp_path / "a").read_text() == "made"


def test_what_follows_a_step_that_runs_again_runs_again_too(tmp_path):
    steps = [writing(tmp_path / "a"), writing(tmp_path / "b"), writing(tmp_path / "c")]
    run_steps(steps, tmp_path)
    (tmp_path / "b").write_text("changed by hand")
    assert states(steps, tmp_path) == ["skipped", "done", "done"]


@pytest.mark.parametrize("spoil", ["remove", "shorten"])
def test_a_step_whose_work_is_gone_or_changed_runs_again(tmp_path, spoil):
    folder = tmp_path / "faces"
    folder.mkdir()
    step = writing(folder / "one")
    step = Step(step.title, step.command, (folder,))
    run_steps([step], tmp_path)
    (folder / "one").unlink() if spoil == "remove" else (folder / "one").write_text("")
    assert states([step], tmp_path) == ["done"]


def test_another_command_makes_the_step_run_again(tmp_path):
    run_steps([writing(tmp_path / "a", title="write")], tmp_path)
    assert states([writing(tmp_path / "a", "other", title="write")], tmp_path) == ["done"]


def test_what_is_shown_every_time_does_not_make_the_rest_run_again(tmp_path):
    shown = Step("show", ("python", "-c", ""), again=True)
    steps = [writing(tmp_path / "a"), shown, writing(tmp_path / "b")]
    run_steps(steps, tmp_path)
    assert states(steps, tmp_path) == ["skipped", "done", "skipped"]


def test_a_step_that_came_out_short_is_told_and_the_rest_goes_on(tmp_path, capfd):
    assert states([writing(tmp_path / "a", code=1), writing(tmp_path / "b")], tmp_path) == ["short", "done"]
    assert "it came out short" in capfd.readouterr().out


def test_a_step_that_could_not_start_ends_the_run_and_keeps_what_was_done(tmp_path):
    steps = [writing(tmp_path / "a"), writing(tmp_path / "b", code=2)]
    with pytest.raises(StepError, match="exit code 2"):
        run_steps(steps, tmp_path)
    assert states([steps[0]], tmp_path) == ["skipped"]


def test_a_step_that_leaves_nothing_behind_ends_the_run(tmp_path):
    with pytest.raises(StepError, match="left no"):
        run_steps([Step("nothing", ("python", "-c", "raise SystemExit(1)"), (tmp_path / "a",))], tmp_path)


def test_a_step_that_was_stopped_stops_the_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_steps([writing(tmp_path / "a", code=130)], tmp_path)


def test_a_broken_journal_is_as_good_as_none(tmp_path):
    run_steps([writing(tmp_path / "a")], tmp_path)
    (tmp_path / "steps.json").write_text("{")
    assert states([writing(tmp_path / "a")], tmp_path) == ["done"]


def test_commands_are_shown_as_anybody_could_type_them(tmp_path, capfd):
    run_steps([Step("say", ("python", "-c", "print('two words')"))], tmp_path)
    out = capfd.readouterr().out
    assert "[1/1] say" in out
    assert "python -c 'print('\"'\"'two words'\"'\"')'" in out
    assert "\ntwo words" in out


def test_console_scripts_are_those_beside_this_python(tmp_path, capfd):
    if not Path(sys.executable).with_name("edge-detect").exists():
        pytest.skip("needs the console scripts beside Python")
    run_steps([Step("help", ("edge-detect", "--version"))], tmp_path)
    assert "edge-detect " in capfd.readouterr().out


def test_fingerprints_tell_files_and_folders_by_what_is_in_them(tmp_path):
    (tmp_path / "folder").mkdir()
    empty = fingerprint(tmp_path / "folder")
    (tmp_path / "folder" / "file").write_text("one")
    assert fingerprint(tmp_path / "missing") == ""
    assert len({empty, fingerprint(tmp_path / "folder"), fingerprint(tmp_path / "folder" / "file")}) == 3

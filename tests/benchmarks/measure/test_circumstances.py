import subprocess

import pytest

from benchmarks.measure.circumstances import Circumstances, commit, facts_line, governor, system_name, turbo


def test_the_circumstances_of_this_machine_are_all_there(circumstances):
    assert circumstances.processor.endswith("cores)")
    assert circumstances.packages["openvino"]
    assert circumstances.memory_gb > 0.5
    assert "CPU" in circumstances.devices
    assert circumstances.kernel
    assert circumstances.command.startswith("edge-benchmark")


def test_threads_that_were_set_from_outside_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Circumstances.here("x").threads["OMP_NUM_THREADS"] == "1"


def test_a_changed_tree_is_marked_behind_its_commit(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    clean = commit(tmp_path)
    (tmp_path / "a").write_text("2")
    assert len(clean) == 10
    assert commit(tmp_path) == f"{clean}+"


def test_outside_of_git_the_version_stands_for_the_commit(tmp_path):
    assert commit(tmp_path)[0].isdigit()


@pytest.mark.parametrize(("text", "said"), [("0", "on"), ("1", "off")])
def test_turbo_is_read_from_intels_driver(tmp_path, text, said):
    folder = tmp_path / "devices/system/cpu/intel_pstate"
    folder.mkdir(parents=True)
    (folder / "no_turbo").write_text(text)
    assert turbo(tmp_path) == said


def test_governors_are_told_once_each(tmp_path):
    for core, name in enumerate(("powersave", "powersave", "performance")):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(name)
    assert governor(tmp_path) == "performance, powersave"


def test_what_can_not_be_read_says_so(tmp_path):
    assert governor(tmp_path) == "not readable"
    assert turbo(tmp_path) == "not readable"
    assert system_name(tmp_path / "none")


def test_facts_are_one_line_without_the_kernels():
    assert facts_line({"threads": 2, "kernels": {"a": 1}, "execution_devices": ["CPU"], "empty": ""}) == (
        "threads 2, execution devices CPU"
    )

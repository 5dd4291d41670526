import subprocess

import pytest

from benchmarks.measure.circumstances import Circumstances, commit, governor, system_name, turbo


def test_circumstances_of_this_machine_are_complete(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Circumstances.here("edge-benchmark --data faces")
    assert found.command == "edge-benchmark --data faces"
    assert found.processor.endswith("cores)")
    assert found.packages["openvino"]
    assert found.memory_gb > 0.5
    assert "CPU" in found.devices
    assert found.kernel
    assert found.threads["OMP_NUM_THREADS"] == "1"


def test_changed_tree_is_marked_behind_its_commit(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert commit(tmp_path)[0].isdigit()
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    clean = commit(tmp_path)
    (tmp_path / "a").write_text("2")
    assert len(clean) == 10
    assert commit(tmp_path) == f"{clean}+"


@pytest.mark.parametrize(("text", "state"), [("0", "on"), ("1", "off")])
def test_turbo_is_read_from_intels_driver(tmp_path, text, state):
    folder = tmp_path / "devices/system/cpu/intel_pstate"
    folder.mkdir(parents=True)
    (folder / "no_turbo").write_text(text)
    assert turbo(tmp_path) == state


def test_governors_are_listed_once(tmp_path):
    for core, name in enumerate(("powersave", "powersave", "performance")):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(name)
    assert governor(tmp_path) == "performance, powersave"


def test_unreadable_circumstances_say_so(tmp_path):
    assert governor(tmp_path) == "not readable"
    assert turbo(tmp_path) == "not readable"
    assert system_name(tmp_path / "none")

"""The twin: a command runs with the board's instruction set, and SIGILL is explained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studies.small import write_small_bundle
from board_setup import cli
from board_setup.board.commands import ILLEGAL_INSTRUCTION
from board_setup.workstation import twin
from board_setup.workstation.twin import TwinError

needs_qemu = pytest.mark.skipif(shutil.which(twin.QEMU) is None, reason="needs qemu-user")


def setup_board(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "board_setup.cli", *arguments], capture_output=True, text=True)


@pytest.mark.slow
@needs_qemu
def test_twin_keeps_the_exit_code() -> None:
    script = "import os; print(os.environ['OPENBLAS_CORETYPE']); raise SystemExit(3)"
    done = setup_board("twin", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (3, "Nehalem\n")


def test_capped_command_has_both_caps() -> None:
    script = "import os; print(os.environ['ONEDNN_MAX_CPU_ISA'], os.environ['OV_CPU_MAX_ISA'])"
    done = setup_board("twin", "--capped", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "SSE41 SSE41\n")


@pytest.mark.slow
@needs_qemu
def test_qemu_prints_no_warnings() -> None:
    assert setup_board("twin", "--", "true").stderr == ""


@pytest.mark.slow
@needs_qemu
def test_doctor_checks_the_runtime_inside_the_twin(tmp_path) -> None:
    write_small_bundle(tmp_path / "detector", precisions=("fp32",))
    done = setup_board("twin", "--", "setup-board", "doctor", "--json", "--model", str(tmp_path / "detector"))
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["twin"]["state"] == "warning"
    assert rows["bundle"]["state"] == "ok", rows
    assert done.stderr == ""


@pytest.mark.slow
@needs_qemu
def test_sigill_is_explained(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    source, program = tmp_path / "avx.c", tmp_path / "avx"
    source.write_text('int main(void) { __asm__ volatile ("vpxor %ymm0, %ymm0, %ymm0"); return 0; }\n')
    subprocess.run(["gcc", "-o", program, source], check=True)
    done = setup_board("twin", "--", str(program))
    assert done.returncode == ILLEGAL_INSTRUCTION
    assert "SIGILL, 132" in done.stderr


@pytest.mark.slow
@needs_qemu
def test_illegal_package_is_named_with_version(tmp_path: Path, monkeypatch) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "avx.c", tmp_path / "libavx.so"
    source.write_text('void run(void) { __asm__ volatile ("vpxor %ymm0, %ymm0, %ymm0"); }\n')
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    (tmp_path / "cv2.py").write_text(f"import ctypes; ctypes.CDLL({str(library)!r}).run()\n")
    (tmp_path / "fast_cv-4.1.dist-info").mkdir()
    (tmp_path / "fast_cv-4.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-cv\nVersion: 4.1\n")
    (tmp_path / "fast_cv-4.1.dist-info" / "top_level.txt").write_text("cv2\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(twin, "CANDIDATES", ("json", "cv2"))
    name, version = twin.find_illegal_package(sys.executable) or ("", "")
    assert (name, version.splitlines()[0]) == ("cv2", "4.1")


def test_script_becomes_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    resolved = twin.resolve([str(script), "--help"])
    assert Path(resolved[0]).name.startswith("python3")
    assert resolved[-2:] == [str(script), "--help"]


def test_command_beside_python_is_found() -> None:
    assert twin.resolve(["python"])[0].endswith("python")


@pytest.mark.parametrize(("arguments", "message"), [([], "no command"), (["--", "none-such"], "none-such: no such")])
def test_missing_command_is_one_line(arguments, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(twin, "QEMU", "sh")
    with pytest.raises(SystemExit) as ended:
        cli.main(["twin", *arguments])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert told.startswith("error: " + message)


def test_missing_qemu_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr(twin, "QEMU", "none-such")
    with pytest.raises(TwinError, match="apt-get install qemu-user"):
        twin.twin_command(["true"])

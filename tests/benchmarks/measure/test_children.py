import os

import pytest

from benchmarks.measure.children import child_environment, run_child
from edge_runtime.errors import DeviceError


def script(tmp_path, text):
    path = tmp_path / "child.py"
    path.write_text(f"import json, os, pathlib, signal, sys\njob, result = map(pathlib.Path, sys.argv[1:])\n{text}\n")
    return (str(path),)


def test_a_child_gets_the_job_and_its_result_comes_back(tmp_path):
    command = script(tmp_path, "result.write_text(json.dumps({'twice': 2 * json.loads(job.read_text())['number']}))")
    assert run_child({"number": 21}, command, os.environ) == {"twice": 42}


def test_what_a_child_says_of_its_failure_is_the_error(tmp_path):
    command = script(tmp_path, "result.write_text(json.dumps({'error': 'GPU: no such device'}))")
    with pytest.raises(DeviceError, match=r"^GPU: no such device$"):
        run_child({}, command, os.environ)


def test_an_illegal_instruction_is_named_as_what_it_is(tmp_path):
    with pytest.raises(DeviceError, match="died of SIGILL"):
        run_child({}, script(tmp_path, "os.kill(os.getpid(), signal.SIGILL)"), os.environ)


def test_a_child_that_breaks_is_told_by_its_last_line(tmp_path):
    with pytest.raises(DeviceError, match=r"exit code 1: ValueError: odd") as caught:
        run_child({}, script(tmp_path, "raise ValueError('odd')"), os.environ)
    assert "\n" not in str(caught.value)


def test_a_cap_reaches_openvino_onednn_and_pytorch():
    capped = child_environment("sse42")
    assert capped["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    assert capped["OV_CPU_MAX_ISA"] == "SSE41"
    assert capped["ATEN_CPU_CAPABILITY"] == "default"
    assert not {"ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"} & set(child_environment("native"))

import os
import signal

import pytest

from benchmarks.measure.children import in_process
from edge_runtime.errors import BundleError, EdgeError


def environment_of_child() -> dict[str, str]:
    return dict(os.environ)


def missing_bundle() -> None:
    raise BundleError("no bundle here")


def die() -> None:
    os.kill(os.getpid(), signal.SIGILL)


def test_cap_reaches_openvino_onednn_and_pytorch():
    capped = in_process(environment_of_child, isa="sse42")
    assert capped["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    assert capped["OV_CPU_MAX_ISA"] == "SSE41"
    assert capped["ATEN_CPU_CAPABILITY"] == "default"
    native = in_process(environment_of_child, CACHE_DIRECTORY="/cache")
    assert native["CACHE_DIRECTORY"] == "/cache"
    assert not {"ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"} & set(native)


def test_error_of_a_job_keeps_its_class():
    with pytest.raises(BundleError, match=r"^no bundle here$"):
        in_process(missing_bundle)


def test_illegal_instruction_is_named():
    with pytest.raises(EdgeError, match="SIGILL"):
        in_process(die)

"""Instruction sets: caps are set completely, removed completely, and named."""

import json
import os
import subprocess
import sys

import pytest

from board_setup.isa import (
    BOARD,
    CAPS,
    capped_environment,
    current_cap,
    emulator,
    lacks_avx,
    parse_cpu_flags,
    widest_isa,
)

N5105 = """processor\t: 0
model name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz
flags\t\t: fpu sse2 ssse3 sse4_1 sse4_2 sha_ni
"""


def test_cap_sets_both_variables_and_replaces_another() -> None:
    base = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2", "HOME": "/x"}
    assert capped_environment(BOARD, base) == {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41", "HOME": "/x"}
    assert capped_environment("native", base) == {"HOME": "/x"}


@pytest.mark.parametrize("isa", list(CAPS))
def test_cap_is_recognized(isa: str) -> None:
    assert current_cap(capped_environment(isa, {})) == isa


def test_half_a_cap_is_reported() -> None:
    assert current_cap({"ONEDNN_MAX_CPU_ISA": "SSE41"}) == "partly capped (ONEDNN_MAX_CPU_ISA=SSE41)"


def test_unknown_instruction_set_lists_the_known() -> None:
    with pytest.raises(ValueError, match="native, avx2, sse42"):
        capped_environment("mmx")


def test_native_process_has_no_emulator() -> None:
    assert emulator() == []


def test_emulator_is_found_with_its_options(tmp_path, monkeypatch) -> None:
    thread = tmp_path / "self" / "task" / str(os.getpid())
    thread.mkdir(parents=True)
    (thread / "exe").symlink_to("/usr/bin/qemu-x86_64")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "benchmarks.cli", "--out", "x"])
    words = ["qemu-x86_64", "-cpu", "Snowridge", "-E", "A=B", *sys.orig_argv]
    (thread / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    assert emulator(str(tmp_path)) == ["/usr/bin/qemu-x86_64", "-cpu", "Snowridge", "-E", "A=B"]


def test_flags_are_parsed() -> None:
    flags = parse_cpu_flags(N5105)
    assert "sse4_2" in flags
    assert widest_isa(flags) == "SSE4.2"
    assert widest_isa(flags | {"avx2", "avx"}) == "AVX2"
    assert parse_cpu_flags("") == frozenset()


def test_lacks_avx_by_cpu_or_cap() -> None:
    wide = frozenset({"sse4_2", "avx", "avx2"})
    assert lacks_avx(parse_cpu_flags(N5105), {})
    assert lacks_avx(wide, capped_environment(BOARD, {}))
    assert not lacks_avx(wide, {})
    assert not lacks_avx(wide, capped_environment("avx2", {}))
    assert not lacks_avx(frozenset(), {})


def test_capped_openvino_uses_no_avx_kernel() -> None:
    program = """
import json, numpy as np, openvino as ov
from openvino import opset13 as op
x = op.parameter([1, 8, 16, 16], np.float32)
weights = op.constant(np.ones((8, 8, 3, 3), np.float32))
model = ov.Model([op.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [x])
compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
kinds = [node.get_rt_info()["primitiveType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
print(json.dumps([kind for kind in kinds if "jit" in kind]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env=capped_environment(BOARD), capture_output=True, text=True, check=True
    )
    kernels = json.loads(run.stdout)
    assert kernels
    assert not [kernel for kernel in kernels if "avx" in kernel]

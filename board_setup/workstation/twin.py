"""The board's twin: runs a command of the runtime on the workstation with the board's instruction set.

qemu's Snow Ridge has the board's Tremont cores: an AVX instruction anywhere ends in SIGILL, as on the board. Capping
OpenVINO alone is nearly as fast as native and gives the same answers, but does not test other libraries.
"""

import os
import shutil
import subprocess
import sys
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from board_setup.board.commands import ILLEGAL_INSTRUCTION, exit_code
from board_setup.errors import BoardError
from board_setup.isa import BOARD, capped_environment

QEMU = "qemu-x86_64"
UNSUPPORTED = (
    *("3dnowprefetch", "arch-capabilities", "cldemote", "core-capability", "gfni", "movdir64b", "movdiri", "rdseed"),
    *("sha-ni", "spec-ctrl", "split-lock-detect", "ssbd", "tsc-deadline", "x2apic", "xsavec"),
)
"""Features of Snow Ridge that qemu does not emulate; it prints a warning for each one that is not switched off."""

CPU = ",".join(["Snowridge", *(f"-{feature}" for feature in UNSUPPORTED)])
CANDIDATES = ("numpy", "PIL", "cv2", "openvino")
"""The packages with machine code that the runtime imports, in order of import."""


class TwinError(BoardError):
    """The command can't be run on the twin."""


def run(command: Sequence[str], *, capped: bool = False) -> int:
    """Run `command` as the board would and return its exit code; SIGILL (132) is explained.

    Raises:
        TwinError: there is no command, or qemu is missing.
    """
    if not command:
        raise TwinError("no command; write it after two dashes: setup-board twin -- edge-detect face.jpg")
    if capped:
        return exit_code(subprocess.call(resolve(command), env=capped_environment(BOARD)))
    code = exit_code(subprocess.call(twin_command(command), env=twin_environment()))
    if code == ILLEGAL_INSTRUCTION:
        text = "error: the command used an instruction that the board lacks (SIGILL, 132)"
        found = find_illegal_package(resolve(command)[0])
        if found is None:
            print(f"{text}; every package of the runtime can be imported, so it happened later", file=sys.stderr)
        else:
            name, version = found
            print(f"{text}: importing {name} {version} causes it; use a version built without AVX", file=sys.stderr)
    return code


def twin_command(command: Sequence[str]) -> List[str]:
    """Return `command` prefixed with qemu.

    Raises:
        TwinError: qemu or the command is missing.
    """
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise TwinError(f"{QEMU} is not installed; run: sudo apt-get install qemu-user")
    return [qemu, "-cpu", CPU, *resolve(command)]


def twin_environment(base: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Return the environment for a command on the twin, from `base` or this process's own.

    OPENBLAS_CORETYPE names the board's kind of core: numpy would crash with a value from outside that needs AVX.
    """
    return {**(os.environ if base is None else base), "OPENBLAS_CORETYPE": "Nehalem"}


def resolve(command: Sequence[str]) -> List[str]:
    """Return `command` as a binary that qemu can load: a script becomes its interpreter and its own path.

    Raises:
        TwinError: there is no such program.
    """
    beside = os.path.dirname(sys.executable)
    program = shutil.which(command[0], path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if program is None:
        raise TwinError(f"{command[0]}: no such command")
    with open(program, "rb") as file:
        first = file.readline(4096)
    interpreter = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    # `env` would start the interpreter outside qemu.
    if interpreter and os.path.basename(interpreter[0]) == "env":
        interpreter = interpreter[1:]
    return [*resolve(interpreter), program, *command[1:]] if interpreter else [program, *command[1:]]


def find_illegal_package(python: str) -> Optional[Tuple[str, str]]:
    """Return the first package, with its version, whose import alone ends in SIGILL on the twin."""
    version_script = (
        "import importlib.metadata as m, sys; "
        "print(next((m.version(d[0]) for n, d in m.packages_distributions().items() if n == sys.argv[1]), ''))"
    )
    for name in CANDIDATES:
        code = subprocess.call(twin_command([python, "-c", f"import {name}"]), env=twin_environment())
        if exit_code(code) == ILLEGAL_INSTRUCTION:
            version = subprocess.run([python, "-c", version_script, name], stdout=subprocess.PIPE).stdout
            return name, version.decode().strip()
    return None

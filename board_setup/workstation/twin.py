"""The board's twin: a command of the runtime, run on the workstation with the board's instruction set.

qemu's Snow Ridge has the board's Tremont cores: an AVX instruction anywhere ends in SIGILL, as it would there. Capping
OpenVINO alone is near native speed and gives the same answers, but tells nothing of other libraries.
"""

import os
import shutil
import subprocess
import sys
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from board_setup.errors import BoardError
from board_setup.isa import BOARD, capped_environment

QEMU = "qemu-x86_64"
CPU = "Snowridge"
SIGILL_CODE = 132
CANDIDATES = ("numpy", "PIL", "cv2", "openvino")
"""The packages with machine code that the runtime imports, in this order."""


class TwinError(BoardError):
    """The command can't be run on the twin."""


def run(command: Sequence[str], *, capped: bool = False) -> int:
    """Run `command` as the board would and return its exit code; a death by SIGILL is 132 and is explained.

    Raises:
        TwinError: there is no command, or qemu is missing.
    """
    if not command:
        raise TwinError("no command; write it after two dashes, as in: setup-board twin -- edge-detect face.jpg")
    if capped:
        return _exit_code(subprocess.call(resolve(command), env=capped_environment(BOARD)))
    code = _exit_code(subprocess.call(twin_command(command), env=twin_environment()))
    if code == SIGILL_CODE:
        print(_explain(resolve(command)[0]), file=sys.stderr)
    return code


def twin_command(command: Sequence[str]) -> List[str]:
    """Return `command` with qemu before it.

    Raises:
        TwinError: qemu or the command is missing.
    """
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise TwinError(f"{QEMU} is not installed; say: sudo apt-get install qemu-user")
    return [qemu, "-cpu", CPU, *resolve(command)]


def twin_environment(base: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Return the environment for a command on the twin, from `base` or this process's own.

    numpy's OpenBLAS is told the board's kind of core: it would otherwise trust a value from outside and crash.
    """
    return {**(os.environ if base is None else base), "OPENBLAS_CORETYPE": "Nehalem"}


def resolve(command: Sequence[str]) -> List[str]:
    """Return `command` as a program that qemu can load: scripts become their interpreter and themselves.

    Raises:
        TwinError: there is no such program.
    """
    beside = os.path.dirname(sys.executable)
    program = shutil.which(command[0], path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if program is None:
        raise TwinError(f"{command[0]}: no such command")
    interpreter = _interpreter(program)
    if not interpreter:
        return [program, *command[1:]]
    return [*resolve(interpreter), program, *command[1:]]


def _interpreter(program: str) -> List[str]:
    """Return the command line that a script's first line names, empty for a binary."""
    with open(program, "rb") as file:
        first = file.readline(4096)
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    # `env` would start the interpreter outside qemu.
    return words[1:] if words and os.path.basename(words[0]) == "env" else words


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _explain(python: str) -> str:
    guilty = guilty_package(python)
    text = "error: the command used an instruction that the board does not have (SIGILL, 132)"
    if guilty is None:
        return text + "; every package of the runtime can be imported, so it happened later"
    name, version = guilty
    return f"{text}: importing {name} {version} dies of it; take a version of it that was built without AVX"


def guilty_package(python: str) -> Optional[Tuple[str, str]]:
    """Name the first package, and its version, whose import alone dies of SIGILL on the twin."""
    for name in CANDIDATES:
        code = _exit_code(subprocess.call(twin_command([python, "-c", f"import {name}"]), env=twin_environment()))
        if code == SIGILL_CODE:
            return name, _version(python, name)
    return None


def _version(python: str, name: str) -> str:
    script = (
        "import importlib.metadata as m, sys; "
        "print(next((m.version(d[0]) for n, d in m.packages_distributions().items() if n == sys.argv[1]), ''))"
    )
    return subprocess.run([python, "-c", script, name], stdout=subprocess.PIPE).stdout.decode().strip()

"""Checks of the service and of the runtime, which checks itself, its bundle and its answers in a child process."""

import sys
from typing import List, Optional

from board_setup.board import layout
from board_setup.board.doctor.row import Row, State
from board_setup.board.doctor.system import NOT_FOUND, TIMED_OUT, System, dotted, version_numbers
from board_setup.board.environment import Check, CheckState, check_command, read_check
from board_setup.isa import emulator

FIND_WHEEL = "setup-board twin -- python -m edge_runtime.model.check   (on the workstation; it names the wheel)"
CHECK_TIMEOUT_S = 600.0
"""A small board that is busy judging faces takes minutes for the check."""
NO_FACE_MODEL = "the bundle has none: it judges pictures of one face each, but no camera, so the service exits at once"
ADD_FACE_MODEL = "export-openvino … --face-model FILE   (on the workstation; then pack and install that bundle)"


def check_service(system: System) -> Row:
    """Check the service, if it is installed."""
    if not system.exists("/etc/systemd/system/" + layout.SERVICE):
        return Row("service", State.OK, "not installed")
    state = system.run(["systemctl", "is-active", layout.SERVICE]).out or "unknown"
    if state == "active":
        return Row("service", State.OK, state)
    if state == "activating" and not system.glob("/dev/video*"):
        return Row("service", State.WARNING, "waits for a camera", "plug one in")
    fix = f"journalctl -u {layout.SERVICE} -n 30; sudo systemctl restart {layout.SERVICE}"
    return Row("service", State.FAULT, state, fix)


def check_runtime(system: System, model: Optional[str] = None) -> List[Row]:
    """Check the runtime of the current version; without one, that of this Python."""
    is_installed = system.exists(layout.BOARD.python)
    has_new_python = system.live and sys.version_info[:2] >= layout.PYTHON_FROM
    python = layout.BOARD.python if is_installed else sys.executable if has_new_python else ""
    install = f"sudo {system.tool} install --kit kit.tar"
    if not python:
        return [Row("runtime", State.WARNING, "not installed", install)]
    # On the twin the check would otherwise run on this machine's own CPU.
    around = emulator() if system.live else []
    done = system.run([*around, *check_command(python, model)], timeout_s=CHECK_TIMEOUT_S)
    check = read_check(done.code, done.out)
    if done.code == NOT_FOUND or check.state is CheckState.NOT_INSTALLED:
        return [Row("runtime", State.WARNING, "not installed", install)]
    if done.code == TIMED_OUT:
        seen = f"its check took longer than {CHECK_TIMEOUT_S / 60:.0f} minutes"
        return [Row("runtime", State.FAULT, seen, "top   (another program may take all of the CPU)")]
    if check.state is CheckState.ILLEGAL_INSTRUCTION:
        return [Row("runtime", State.FAULT, check.reason, FIND_WHEEL)]
    if not check.found:
        return [Row("runtime", State.FAULT, check.reason, install if is_installed else f"{python} -m pip check")]
    # The kit repairs its own bundle, but not one given by --model.
    if is_installed and not model:
        fix = install
    elif check.state is CheckState.NO_BUNDLE:
        fix = "export-openvino best.pth --out detector   (or name one: setup-board doctor --model FOLDER)"
    else:
        fix = "export it again with export-openvino, or name another with --model"
    openvino = _check_openvino(check.found["openvino"], python, install if is_installed else "")
    return [openvino, *_check_bundle(check, fix)]


def _check_openvino(version: str, python: str, install: str) -> Row:
    first, below = dotted(layout.OPENVINO_FROM), dotted(layout.OPENVINO_BELOW)
    if layout.OPENVINO_FROM <= version_numbers(version)[:2] < layout.OPENVINO_BELOW:
        return Row("openvino", State.OK, f"{version} (supported: {first} to below {below})")
    fix = install or f"{python} -m pip install 'openvino>={first},<{below}'"
    return Row("openvino", State.FAULT, f"{version} is not supported: {first} to below {below} is", fix)


def _check_bundle(check: Check, fix: str) -> List[Row]:
    if check.state is not CheckState.PASSED:
        return [Row("bundle", State.FAULT, check.reason, fix)]
    rows = [Row("bundle", State.OK, check.found["bundle"]), Row("smoke test", State.OK, check.found["answer"])]
    if not check.found.get("faces", True):
        rows.append(Row("face model", State.WARNING, NO_FACE_MODEL, ADD_FACE_MODEL))
    return rows

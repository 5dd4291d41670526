"""The commands that only a workstation has: pack, deploy, twin, and asking a board over ssh."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Callable

from board_setup.board.doctor.runtime import ADD_FACE_MODEL, NO_FACE_MODEL
from board_setup.board.kit import TOOL
from board_setup.workstation import deploy, pack, twin, virtual_board, wheels

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_workstation_commands(commands: "Commands") -> None:
    """Add the workstation's commands, and let `versions`, `rollback` and `status` ask a board over ssh."""
    add_pack(commands)
    parser = commands.add_parser(
        "deploy",
        help="bring a kit to a board over ssh and switch to it",
        description="Copies the kit (and continues after a broken connection), installs it beside the running version, "
        "lets it judge its golden pictures there, switches, and returns to the last good version if it does not run.",
        epilog="example: setup-board deploy edge@board --kit kit.tar",
    )
    parser.add_argument("host", help="user@board, as ssh takes it")
    parser.add_argument("--kit", required=True, help="the kit to install")
    parser.add_argument("--ssh", default="ssh", help="the ssh command, with options such as -p 2222")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)
    parser.set_defaults(run=lambda options: deploy.deploy(_board(options), options.kit))
    add_twin(commands)
    for name in ("versions", "rollback", "status"):
        parser = commands.choices[name]
        parser.add_argument("host", nargs="?", help="user@board (default: this machine)")
        parser.add_argument("--ssh", default="ssh", help="the ssh command, with options such as -p 2222")
        parser.epilog = f"example: setup-board {name} edge@board"
        parser.set_defaults(run=_here_or_there(name, parser.get_default("run")))


def _board(options: argparse.Namespace) -> deploy.Board:
    return deploy.Board(options.host, options.ssh, options.root)


def _here_or_there(name: str, run_here: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    return lambda options: _board(options).run(name) if options.host else run_here(options)


def add_pack(commands: "Commands") -> None:
    """Add the command `pack`."""
    parser = commands.add_parser(
        "pack",
        help="pack everything a board needs into one file, on the workstation",
        description="Packs the runtime's wheels for the board's Python, the detector and this tool into one file, so "
        "that the board needs no network. The tool is also written beside it, as setup-board.pyz.",
        epilog="example: setup-board pack --model detector --precision int8,fp16 --out kit.tar",
    )
    parser.add_argument("--out", required=True, help="the kit to write")
    parser.add_argument("--model", default="detector", help="the bundle (default: ./detector)")
    parser.add_argument("--precision", default="", help="networks to include, separated by commas (default: all)")
    parser.add_argument(
        "--python-version", default=pack.DEFAULT_PYTHON, help="the board's Python (default: %(default)s, Ubuntu 22.04)"
    )
    parser.add_argument("--python", metavar="ARCHIVE", help="a standalone Python to include, .tar.gz")
    parser.add_argument("--glibc", default=pack.DEFAULT_GLIBC, help="the board's C library (default: %(default)s)")
    parser.add_argument("--debs", metavar="DIR", help="Debian packages to include, such as the GPU's driver")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=wheels.EXTRAS,
        help="include what edge-serve (web) or edge-benchmark (benchmarks) needs; may be repeated",
    )
    parser.add_argument("--project", help="the project's source (default: the clone this is started from)")
    parser.set_defaults(run=run_pack)


def run_pack(options: argparse.Namespace) -> int:
    """Pack a kit, and print the size of its parts and what to do next."""
    made = pack.pack(
        options.out,
        os.path.expanduser(options.model),
        precisions=[name for name in options.precision.split(",") if name],
        python=options.python_version,
        glibc=options.glibc,
        python_archive=options.python,
        debs=options.debs,
        extras=options.extra,
        project=options.project,
    )
    for part, size in pack.measure_parts(options.out):
        print(f"{size / 1e6:9.1f} MB  {part}")
    print(f"{options.out}: {made.id} for Python {made.python}")
    if not any(name.startswith("bundle/face/") for name in made.files):
        print(f"warning: no face model: {NO_FACE_MODEL}; first run {ADD_FACE_MODEL}", file=sys.stderr)
    tool = os.path.join(os.path.dirname(options.out), TOOL)
    name = os.path.basename(options.out)
    print(f"copy it and {tool} to the board, then run there: sudo python3 {TOOL} install --kit {name}")
    return 0


def add_twin(commands: "Commands") -> None:
    """Add the command `twin`."""
    parser = commands.add_parser(
        "twin",
        help="run a command with the board's instruction set, on this machine",
        description="Runs a command of the runtime as the board would: under qemu's Snow Ridge, which has the same "
        "cores (exact, slow), or only capped to its instruction set (--capped, nearly native speed). With --system it "
        "starts a whole virtual board with systemd, a camera and no network, and shows its console on this terminal.",
        epilog="example: setup-board twin -- edge-detect face.jpg",
    )
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--capped", action="store_true", help="cap OpenVINO's instruction set instead of using qemu")
    depth.add_argument("--system", action="store_true", help="start a whole virtual board (root makes its disk once)")
    parser.add_argument("--kit", help="with --system: install this kit on it")
    parser.add_argument("--camera", metavar="FOLDER", help="with --system: JPEG pictures that its camera shows")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command to run")
    parser.set_defaults(run=run_twin)


def run_twin(options: argparse.Namespace) -> int:
    """Run a command on the twin, or start the virtual board."""
    if options.system:
        return virtual_board.open_console(options.kit, options.camera)
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return twin.run(command, capped=options.capped)

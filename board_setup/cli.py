"""The command `setup-board`."""

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Callable, List, NoReturn, Optional

from board_setup.board import doctor, install, lock, undo, versions
from board_setup.board.layout import Layout
from board_setup.board.system import System
from board_setup.errors import BoardError
from board_setup.workstation import deploy, kit, twin, virtual_board

DESCRIPTION = "From a bare board to a running detector, and back again."

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Optional[List[str]] = None) -> NoReturn:
    """Run the command and leave the process with its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except BoardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        print(f"error: {error.filename}: not permitted; say it again with sudo", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="setup-board", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands.required = True
    for add in (
        _add_doctor,
        _add_pack,
        _add_install,
        _add_deploy,
        _add_versions,
        _add_rollback,
        _add_status,
        _add_twin,
    ):
        add(commands)
    return parser


def _add(
    commands: "Commands", run: Callable, name: str, summary: str, text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=text, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    return parser


def _add_doctor(commands: "Commands") -> None:
    parser = _add(
        commands,
        _doctor,
        "doctor",
        "what this board has and lacks; changes nothing",
        "Tells what this board has and lacks, and the command that mends it. Changes nothing. "
        "Ends with 0 where all is well, 1 for something to look at, 2 for a fault.",
        "setup-board doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="tell it as JSON")
    parser.add_argument("--model", help="the bundle to check (default: as edge-detect finds it)")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)


def _doctor(options: argparse.Namespace) -> int:
    rows = doctor.examine(System(options.root), model=options.model)
    print(doctor.as_json(rows) if options.json else doctor.as_text(rows))
    return doctor.exit_code(rows)


def _add_pack(commands: "Commands") -> None:
    parser = _add(
        commands,
        _pack,
        "pack",
        "gather all that a board needs into one file, on the workstation",
        "Gathers the runtime's wheels for the board's Python, the detector and this tool into one file, so that the "
        "board needs no network. The tool itself is written beside it, as setup-board.pyz.",
        "setup-board pack --model detector --precision int8,fp16 --out kit.tar",
    )
    parser.add_argument("--out", required=True, help="the kit to write")
    parser.add_argument("--model", default="detector", help="the bundle (default: ./detector)")
    parser.add_argument("--precision", default="", help="which networks to take, with commas (default: all)")
    parser.add_argument(
        "--python-version", default=kit.DEFAULT_PYTHON, help="the board's Python (default: %(default)s, Ubuntu 22.04)"
    )
    parser.add_argument("--python", metavar="ARCHIVE", help="a standalone Python to bring along, .tar.gz")
    parser.add_argument("--glibc", default=kit.DEFAULT_GLIBC, help="the board's C library (default: %(default)s)")
    parser.add_argument("--debs", metavar="DIR", help="Debian packages to bring along, such as the GPU's driver")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=kit.EXTRAS,
        help="take along what edge-serve (web) or edge-benchmark (benchmarks) needs; may be said twice",
    )
    parser.add_argument("--project", help="the project's source (default: the clone this is started from)")


def _pack(options: argparse.Namespace) -> int:
    made = kit.pack(
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
    for part, size in kit.sizes(options.out):
        print(f"{size / 1e6:9.1f} MB  {part}")
    print(f"{options.out}: {made.id} for Python {made.python}")
    if not any(name.startswith("bundle/face/") for name in made.files):
        print(f"warning: no face model in it ({doctor.NO_FACES}); first {doctor.BRING_FACES}", file=sys.stderr)
    tool = os.path.join(os.path.dirname(options.out), kit.TOOL)
    print(
        f"copy it and {tool} to the board, then there: sudo python3 {kit.TOOL} install --kit "
        f"{os.path.basename(options.out)}"
    )
    return 0


def _add_install(commands: "Commands") -> None:
    parser = _add(
        commands,
        _install,
        "install",
        "install a kit on this board; --undo removes it",
        "Shows its plan, then does it step by step. After a power cut the same command goes on where it was.",
        "sudo python3 setup-board.pyz install --kit kit.tar",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kit", help="the kit to install")
    what.add_argument("--undo", action="store_true", help="remove all that was installed")
    parser.add_argument("--dry-run", action="store_true", help="show the plan only")
    parser.add_argument("--user", default=os.environ.get("SUDO_USER"), help="who is to use the camera (default: you)")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)


def _install(options: argparse.Namespace) -> int:
    layout = Layout(options.root)
    # What is only shown may be looked at beside anything.
    with contextlib.nullcontext() if options.dry_run else lock.alone(layout):
        if options.undo:
            undo.undo(layout, say=install.tell, dry_run=options.dry_run)
        else:
            user = None if options.user == "root" else options.user
            install.Installer(options.kit, layout, user=user).install(dry_run=options.dry_run)
    return 0


def _add_deploy(commands: "Commands") -> None:
    parser = _add(
        commands,
        _deploy,
        "deploy",
        "bring a kit to a board over ssh and switch to it",
        "Copies the kit (a broken connection is taken up again), installs it beside the running version, lets it judge "
        "its golden pictures there, switches, and returns to the last good version if it does not run.",
        "setup-board deploy edge@board --kit kit.tar",
    )
    parser.add_argument("host", help="user@board, as ssh takes it")
    parser.add_argument("--kit", required=True, help="the kit to install")
    _add_remote(parser)


def _add_remote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ssh", default="ssh", help="the ssh command, with options such as -p 2222")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)


def _deploy(options: argparse.Namespace) -> int:
    return deploy.deploy(deploy.Board(options.host, options.ssh, options.root), options.kit)


def _add_versions(commands: "Commands") -> None:
    text = "Lists the versions that are installed here or on a board, the current one marked."
    _add_here_or_there(commands, "versions", "list the installed versions", text, _versions)


def _add_rollback(commands: "Commands") -> None:
    text = "Returns to the version that ran before the current one, here or on a board; said again, to the one before."
    _add_here_or_there(commands, "rollback", "return to the version that ran before", text, _rollback)


def _add_status(commands: "Commands") -> None:
    text = "Tells the version in use, the service's state and its last words, here or on a board."
    _add_here_or_there(commands, "status", "tell how the detector is doing", text, _status)


def _add_here_or_there(commands: "Commands", name: str, summary: str, text: str, run: Callable) -> None:
    parser = _add(commands, run, name, summary, text, f"setup-board {name} edge@board")
    parser.add_argument("host", nargs="?", help="user@board (default: this machine)")
    _add_remote(parser)


def _versions(options: argparse.Namespace) -> int:
    if options.host:
        return deploy.Board(options.host, options.ssh, options.root).run("versions")
    layout = Layout(options.root)
    now = versions.current_version(layout)
    for entry in versions.history(layout):
        if os.path.isdir(os.path.join(layout.versions, entry["id"])):
            mark = "*" if entry["id"] == now else " "
            print(f"{mark} {entry['id']}  {entry['when']}  {'good' if entry['good'] else 'does not run here'}")
    if not now:
        print("nothing is installed; say: sudo python3 setup-board.pyz install --kit kit.tar")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    if options.host:
        return deploy.Board(options.host, options.ssh, options.root).run("rollback")
    layout = Layout(options.root)
    with lock.alone(layout):
        print(f"returned to {versions.rollback(layout)}")
    return 0


def _status(options: argparse.Namespace) -> int:
    if options.host:
        return deploy.Board(options.host, options.ssh, options.root).run("status")
    return versions.print_status(Layout(options.root))


def _add_twin(commands: "Commands") -> None:
    parser = _add(
        commands,
        _twin,
        "twin",
        "run a command with the board's instruction set, on this machine",
        "Runs a command of the runtime as the board would: under qemu's Snow Ridge, which has the same "
        "cores (exact, slow), or only capped to its instruction set (--capped, near native speed). With --system a "
        "whole virtual board starts, with systemd, a camera and no network, and its console is put on this terminal.",
        "setup-board twin -- edge-detect face.jpg",
    )
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--capped", action="store_true", help="cap OpenVINO's instruction set instead of using qemu")
    depth.add_argument("--system", action="store_true", help="start a whole virtual board (root makes its disk once)")
    parser.add_argument("--kit", help="with --system: install this kit on it")
    parser.add_argument("--camera", metavar="FOLDER", help="with --system: JPEG pictures that its camera shows")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command to run")


def _twin(options: argparse.Namespace) -> int:
    if options.system:
        return virtual_board.open_console(options.kit, options.camera)
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return twin.run(command, capped=options.capped)


if __name__ == "__main__":
    main()

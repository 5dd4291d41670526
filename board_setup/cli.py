"""The command `setup-board`: what runs on the board, plus the workstation's commands where they are installed."""

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, List, NoReturn, Optional

from board_setup.board import doctor, install, lock, service, undo, versions
from board_setup.board.layout import Layout
from board_setup.errors import BoardError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Optional[List[str]] = None) -> NoReturn:
    """Run the command and exit with its code."""
    options = build_parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except BoardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        print(f"error: {error.filename}: permission denied; run the same command with sudo", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; setup-board.pyz on a board has none of the workstation's."""
    parser = argparse.ArgumentParser(
        prog="setup-board", description="Packs, installs and maintains the detector on a board."
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands.required = True
    add_board_commands(commands)
    if os.path.isdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "workstation")):
        from board_setup.workstation.commands import add_workstation_commands

        add_workstation_commands(commands)
    return parser


def add_board_commands(commands: "Commands") -> None:
    """Add the commands that run on a board."""
    parser = commands.add_parser(
        "doctor",
        help="what this board has and lacks; changes nothing",
        description="Prints what this board has and lacks, and the command that fixes it. Changes nothing. "
        "Exits with 0 if all is well, 1 for something to look at, 2 for a fault.",
        epilog="example: setup-board doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", help="the bundle to check (default: the one edge-detect finds)")
    parser.set_defaults(run=run_doctor)
    parser = commands.add_parser(
        "install",
        help="install a kit on this board; --undo removes it",
        description="Prints its plan, then does it step by step. After a power cut the same command continues.",
        epilog="example: sudo python3 setup-board.pyz install --kit kit.tar",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kit", help="the kit to install")
    what.add_argument("--undo", action="store_true", help="remove everything that was installed")
    parser.add_argument("--dry-run", action="store_true", help="print the plan only")
    user = os.environ.get("SUDO_USER")
    parser.add_argument("--user", default=user, help="who gets access to the camera (default: you)")
    parser.set_defaults(run=run_install)
    parser = commands.add_parser(
        "versions",
        help="list the installed versions",
        description="Lists the installed versions and marks the current one.",
        epilog="example: setup-board versions",
    )
    parser.set_defaults(run=run_versions)
    parser = commands.add_parser(
        "rollback",
        help="return to the previous version",
        description="Returns to the version that ran before the current one; run again, to the one before that.",
        epilog="example: sudo setup-board rollback",
    )
    parser.set_defaults(run=run_rollback)
    parser = commands.add_parser(
        "status",
        help="print how the detector is doing",
        description="Prints the version in use, the service's state and its last line.",
        epilog="example: sudo setup-board status",
    )
    parser.set_defaults(run=run_status)
    for parser in commands.choices.values():
        parser.add_argument("--root", default="/", help=argparse.SUPPRESS)


def run_doctor(options: argparse.Namespace) -> int:
    """Print the doctor's findings; returns 0, 1 or 2 by the worst of them."""
    rows = doctor.examine(doctor.System(options.root), model=options.model)
    print(doctor.as_json(rows) if options.json else doctor.as_text(rows))
    return doctor.exit_code(rows)


def run_install(options: argparse.Namespace) -> int:
    """Install a kit, or undo all installations."""
    layout = Layout(options.root)
    # A dry run changes nothing, so it may run beside an installation.
    with contextlib.nullcontext() if options.dry_run else lock.exclusive(layout):
        if options.undo:
            undo.undo(layout, say=install.tell, dry_run=options.dry_run)
        else:
            user = None if options.user == "root" else options.user
            install.install(options.kit, layout, user=user, dry_run=options.dry_run)
    return 0


def run_versions(options: argparse.Namespace) -> int:
    """Print the installed versions."""
    layout = Layout(options.root)
    now = versions.current_version(layout)
    for entry in versions.history(layout):
        if os.path.isdir(os.path.join(layout.versions, entry.id)):
            mark = "*" if entry.id == now else " "
            print(f"{mark} {entry.id}  {entry.when}  {'good' if entry.good else 'does not run here'}")
    if not now:
        print("nothing is installed; run: sudo python3 setup-board.pyz install --kit kit.tar")
    return 0


def run_rollback(options: argparse.Namespace) -> int:
    """Return to the previous version."""
    layout = Layout(options.root)
    with lock.exclusive(layout):
        print(f"returned to {versions.rollback(layout)}")
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Print the version in use and the service's state; returns 0 if it is healthy."""
    layout = Layout(options.root)
    now = versions.current_version(layout)
    print(f"version  {now or 'none'}")
    if not layout.is_live or not os.path.exists(service.UNIT_PATH):
        print("service  not installed")
        return 0 if now else 1
    status = service.status()
    print(f"service  {status.active}, {status.restarts} restarts")
    # An error of an earlier run says nothing about a service that runs now.
    print(f"         {service.last_line({status.invocation} if status.active == 'active' else None)}")
    return 0 if status.is_healthy else 1


if __name__ == "__main__":
    main()

"""The command `setup-board`: what runs on the board, plus the workstation's commands where they are installed."""

import argparse
import contextlib
import functools
import inspect
import json
import os
import pwd
import sys
import zipfile
from typing import TYPE_CHECKING, Callable, List, NoReturn, Optional

from board_setup import __version__
from board_setup.board import disk, doctor, install, lock, service, signing, undo, versions
from board_setup.board.doctor.health import health
from board_setup.board.layout import Layout
from board_setup.errors import BoardError, printable

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class OneLineParser(argparse.ArgumentParser):
    """Prints a mistake on the command line as one line; the parsers of its commands do so too."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"error: {printable(message)}; see `{self.prog} --help`\n")


def main(arguments: Optional[List[str]] = None) -> NoReturn:
    """Run the command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # Names that the terminal's encoding lacks are escaped, not a reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = build_parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except BoardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        advice = "; run the same command with sudo" if isinstance(error, PermissionError) else ""
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(place)}{error.strerror or error}{advice}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; setup-board.pyz on a board has none of the workstation's."""
    parser: argparse.ArgumentParser = OneLineParser(
        prog="setup-board", description="Packs, installs and maintains the detector on a board."
    )
    parser.add_argument("--version", action="version", version=f"setup-board {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands.required = True
    add = functools.partial(add_command, commands)
    command = add(doctor_here, "doctor", "setup-board doctor --json")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--model", help="the bundle to check (default: the one edge-detect finds)")
    command = add(install_here, "install", "sudo python3 setup-board.pyz install --kit kit.tar")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--kit", help="the kit to install")
    what.add_argument("--undo", action="store_true", help="remove everything that was installed")
    command.add_argument("--dry-run", action="store_true", help="print the plan only")
    command.add_argument("--user", default=this_user(), help="who gets access to the camera (default: you)")
    add(versions_here, "versions", "setup-board versions")
    command = add(rollback_here, "rollback", "sudo setup-board rollback")
    command.add_argument("--from", dest="only_from", metavar="VERSION", help="do nothing unless it is the current one")
    command = add(status_here, "status", "sudo setup-board status")
    command.add_argument("--json", action="store_true", help="print JSON")
    if os.path.isdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "workstation")):
        from board_setup.workstation.commands import add_workstation_commands

        add_workstation_commands(add, commands.choices, functools.partial(add_group, commands))
    return parser


def add_command(
    commands: "Commands", run: Callable[[argparse.Namespace], int], name: str, example: str
) -> argparse.ArgumentParser:
    """Add a command that calls `run`, whose docstring is its help, and return its parser."""
    text = inspect.getdoc(run) or ""
    summary = text.splitlines()[0].rstrip(".")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary[0].lower() + summary[1:], description=text, epilog=f"Examples: {example}"
    )
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


def add_group(commands: "Commands", name: str, text: str) -> "Callable[..., argparse.ArgumentParser]":
    """Add a command that has commands itself; return the function that adds these."""
    parser = commands.add_parser(name, help=text[0].lower() + text[1:].rstrip("."), description=text)
    group = parser.add_subparsers(metavar="COMMAND", dest="subcommand")
    group.required = True
    return functools.partial(add_command, group)


def this_user() -> Optional[str]:
    """Return who runs this command, also with sudo; None for a user id without a name."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def doctor_here(options: argparse.Namespace) -> int:
    """Print what this board has and lacks; change nothing.

    Each finding comes with the command that fixes it. Exits with 0 if all is well, 1 for a warning, 2 for a fault.
    """
    rows = doctor.examine(doctor.System(options.root), model=options.model)
    print(doctor.as_json(rows) if options.json else doctor.as_text(rows))
    return doctor.exit_code(rows)


def install_here(options: argparse.Namespace) -> int:
    """Install a kit on this board; --undo removes it.

    Prints its plan, then does it step by step. After a power cut the same command continues.
    """
    layout = Layout(options.root)
    # A dry run changes nothing, so it may run during an installation.
    with contextlib.nullcontext() if options.dry_run else lock.exclusive(layout):
        if options.undo:
            undo.undo(layout, say=install.tell, dry_run=options.dry_run)
        else:
            before = disk.sha256(sys.argv[0]) if zipfile.is_zipfile(sys.argv[0]) else ""
            user = None if options.user == "root" else options.user
            install.install(options.kit, layout, user=user, dry_run=options.dry_run)
            if before and not options.dry_run and not disk.has_sha256(layout.tool, before):
                # The kit's own tool may have more to do, such as writing a newer unit.
                os.execv(sys.executable, [sys.executable, layout.tool, *sys.argv[1:]])
    return 0


def versions_here(options: argparse.Namespace) -> int:
    """List the installed versions, the current one marked."""
    layout = Layout(options.root)
    now = versions.current_version(layout)
    for entry in versions.history(layout):
        if os.path.isdir(os.path.join(layout.versions, entry.id)):
            mark = "*" if entry.id == now else " "
            state = "good" if entry.good else "does not run here"
            model = versions.describe_model(layout, entry.id)
            print(printable(f"{mark} {entry.id}  {model}  installed {entry.when}  {state}"))
    if not now:
        print("nothing is installed; run: sudo python3 setup-board.pyz install --kit kit.tar")
    return 0


def rollback_here(options: argparse.Namespace) -> int:
    """Return to the version that ran before; run again, to the one before that."""
    layout = Layout(options.root)
    with lock.exclusive(layout):
        now = versions.current_version(layout)
        if options.only_from not in (None, now):
            print(f"{now or 'nothing'} is in use; nothing to do")
        else:
            print(f"returned to {versions.rollback(layout)}")
    return 0


def status_here(options: argparse.Namespace) -> int:
    """Print the version in use, how the service is doing, and whether the faces are still as the model knows them."""
    layout = Layout(options.root)
    if options.json:
        print(json.dumps(health(layout)))
        return 0
    now = versions.current_version(layout)
    print(f"version  {now or 'none'}")
    if now:
        signer, last = signing.signer(layout, now), signing.last_signed(layout)
        counter = f", counter {last.counter}" if last.version == now else ""
        print(f"signed   {f'by {signer}{counter}' if signer else 'no'}")
    if not layout.is_live or not os.path.exists(service.UNIT_PATH):
        print("service  not installed")
        return 0 if now else 1
    status = service.status()
    print(f"service  {status.active}, {status.restarts} restarts")
    print(f"         {printable(service.last_line_of(status))}")
    print(f"faces    {printable(service.drift(layout))}")
    return 0 if status.is_healthy else 1


if __name__ == "__main__":
    main()

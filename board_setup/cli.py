"""The command `setup-board`."""

import argparse
import sys
from typing import List, NoReturn, Optional

from board_setup import doctor, twin
from board_setup.system import System

DESCRIPTION = "From a bare board to a running detector."


def main(arguments: Optional[List[str]] = None) -> NoReturn:
    """Run the command and leave the process with its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except twin.TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="setup-board", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands.required = True
    _add_doctor(commands)
    _add_twin(commands)
    return parser


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this board has and lacks; changes nothing",
        description="Tells what this board has and lacks, and the command that mends it. Changes nothing. "
        "Ends with 0 where all is well, 1 for something to look at, 2 for a fault.",
    )
    parser.add_argument("--json", action="store_true", help="tell it as JSON")
    parser.add_argument("--model", help="the bundle to check (default: as edge-detect finds it)")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    rows = doctor.examine(System(options.root), model=options.model)
    print(doctor.as_json(rows) if options.json else doctor.as_text(rows))
    return doctor.exit_code(rows)


def _add_twin(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "twin",
        help="run a command with the board's instruction set, on this machine",
        description="Runs a command of the runtime as the board would: under qemu's Snow Ridge, which has the same "
        "cores (exact, slow), or only capped to its instruction set (--capped, near native speed).",
        epilog="example: setup-board twin -- edge-detect face.jpg",
    )
    parser.add_argument("--capped", action="store_true", help="cap OpenVINO's instruction set instead of using qemu")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command to run")
    parser.set_defaults(run=_twin)


def _twin(options: argparse.Namespace) -> int:
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return twin.run(command, capped=options.capped)


if __name__ == "__main__":
    main()

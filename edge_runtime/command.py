"""How every command starts and ends: help, version, one-line errors, exit codes, Ctrl-C."""

import enum
import functools
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from edge_runtime.errors import EdgeError

DISTRIBUTION = "deepfake-edge"
DEBUG_VARIABLE = "DEEPFAKE_EDGE_DEBUG"
INTERRUPTED = 130

MODEL_HELP = (
    "Bundle, or hf://user/name@revision (default: $DEEPFAKE_EDGE_MODEL, ./detector, the installed or shipped one)."
)
"""Of `--model` where one bundle is taken."""

METAVARS = {bool: "", int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
"""How --help names the value of an option. Short, so that names and texts have room on 80 columns."""

EPILOG = "`--version` prints the version, `--debug` prints the traceback of an error."

Command = Callable[..., int | None]


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of each package; `unknown` if it is not installed."""
    installed = {name: next(iter(importlib.metadata.Distribution.discover(name=name)), None) for name in names}
    versions = {name: found.version if found else "unknown" for name, found in installed.items()}
    return {"python": platform.python_version(), **versions}


class _Group(TyperGroup):
    """A command that has subcommands and also runs without one. Its own options belong to the latter alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            self.params, self.callback = [], None
        return super().parse_args(ctx, args)


def run_command(function: Command, name: str, *, subcommands: Sequence[Command] = ()) -> NoReturn:
    """Run `function` as command `name` and exit; Typer reads its parameters as options.

    One of `subcommands` runs instead if the command line begins with its name. A function returns the exit code (None
    is 0). An EdgeError is printed as one line and has its own exit code; `--debug` anywhere on the command line also
    prints the traceback. Ctrl-C exits with 130.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get(DEBUG_VARIABLE))
    if arguments[-1:] == ["--version"] and arguments[:-1] in ([], *([command.__name__] for command in subcommands)):
        print(f"{name} {importlib.metadata.version(DISTRIBUTION)}")
        sys.exit(0)
    command_app(function, subcommands, debug=debug)(args=arguments, prog_name=name)
    sys.exit(0)


def _name_values(function: Command) -> None:
    """Give each option of `function` that has no metavar a short one."""
    for annotated in get_type_hints(function, include_extras=True).values():
        options = [each for each in getattr(annotated, "__metadata__", ()) if isinstance(each, typer.models.OptionInfo)]
        kinds = [annotated]
        while options and options[0].metavar is None and kinds:
            kind = kinds.pop(0)
            if kind in METAVARS:
                options[0].metavar = METAVARS[kind]
            elif isinstance(kind, type) and issubclass(kind, enum.Enum):
                options[0].metavar = "|".join(each.value for each in kind)
            elif get_origin(kind) is Literal:
                options[0].metavar = "|".join(get_args(kind))
            else:
                kinds += get_args(kind)


def command_app(function: Command, subcommands: Sequence[Command] = (), *, debug: bool = False) -> typer.Typer:
    """Return the Typer app that `run_command` runs."""

    def ending_well(function: Command) -> Callable[..., None]:
        @functools.wraps(function)
        def command(*args: Any, **options: Any) -> None:
            try:
                code = function(*args, **options) or 0
            except EdgeError as error:
                if debug:
                    traceback.print_exc()
                print(f"error: {error}", file=sys.stderr)
                code = error.exit_code
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
                code = INTERRUPTED
            except BrokenPipeError:
                # The reader of our output is gone (`| head`), and flushing at exit would fail.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = 0
            raise typer.Exit(code)

        return command

    for each in (function, *subcommands):
        _name_values(each)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    if subcommands:
        group = app.callback(cls=_Group, invoke_without_command=True, subcommand_metavar="[COMMAND]", epilog=EPILOG)
        group(ending_well(function))
    for command in subcommands or [function]:
        app.command(epilog=EPILOG)(ending_well(command))
    return app

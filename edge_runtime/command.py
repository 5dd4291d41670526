"""How every command starts and ends: help, version, one-line errors, exit codes, Ctrl-C."""

import contextlib
import enum
import functools
import importlib.metadata
import inspect
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from edge_runtime.errors import EdgeError, UsageError
from edge_runtime.printable import printable

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

TyperUsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""The base of Typer's usage errors, which it does not export: Click's, or that of its own copy of Click."""

Command = Callable[..., int | None]


@dataclass(frozen=True)
class Needs:
    """In an option's annotation: giving it without any of these parameters is refused, for it would have no effect.

    `what` describes them.
    """

    names: tuple[str, ...]
    what: str = ""


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of each package; `unknown` if it is not installed."""
    installed = {name: next(iter(importlib.metadata.Distribution.discover(name=name)), None) for name in names}
    versions = {name: found.version if found else "unknown" for name, found in installed.items()}
    return {"python": platform.python_version(), **versions}


class _Command(TyperCommand):
    """A command whose usage errors are one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _errors_in_one_line(ctx, args):
            return super().parse_args(ctx, args)


class _Group(TyperGroup):
    """A command that has subcommands and also runs without one. Its own options belong to the latter alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            self.params, self.callback = [], None
        with _errors_in_one_line(ctx, args):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        with _errors_in_one_line(ctx, args):
            return super().resolve_command(ctx, args)


@contextlib.contextmanager
def _errors_in_one_line(context: Any, arguments: Sequence[str]) -> Iterator[None]:
    given = list(arguments)  # Parsing empties the list.
    try:
        yield
        if not context.resilient_parsing:  # The shell completes a half-typed line.
            _check_needs(context)
    except (TyperUsageError, UsageError) as error:
        said = str(error) if isinstance(error, UsageError) else _usage_error(error, context, given)
        print(f"error: {printable(said)}", file=sys.stderr)
        raise typer.Exit(UsageError.exit_code) from None


def _usage_error(error: Any, context: Any, arguments: list[str]) -> str:
    """Return Typer's error with the value and what to do, which Typer leaves out of some."""
    parameter = getattr(error, "param", None)
    if parameter is not None and type(error) is typer.BadParameter:
        annotated = _annotations(context.command)[parameter.name]
        values = parameter.consume_value(context, context.command.make_parser(context).parse_args(arguments)[0])[0]
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if reason := _wrong(annotated, str(value)):
                return f"{_name(parameter)} {value}: {reason}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text[0].lower()}{text[1:]}; see `{context.command_path} --help`"


def _wrong(annotated: Any, value: str) -> str:
    """Return what is wrong with a value of an option; empty if that is not known."""
    kind, info = _kind(annotated), annotated.__metadata__[0]
    if choices := _choices(kind):
        return "" if value in choices else f"choose one of {', '.join(choices)}"
    if kind not in (int, float):
        return ""
    try:
        number = kind(value)
    except ValueError:
        return "not a whole number" if kind is int else "not a number"
    low, high = info.min, info.max
    if (low is None or number >= low) and (high is None or number <= high):
        return ""
    if low is not None and high is not None:
        return f"give {low} to {high}"
    return f"give at least {low}" if high is None else f"give at most {high}"


def _check_needs(context: Any) -> None:
    parameters = {parameter.name: parameter for parameter in context.command.params}
    for name, annotated in _annotations(context.command).items():
        for needs in (each for each in getattr(annotated, "__metadata__", ()) if isinstance(each, Needs)):
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE" and not any(map(context.params.get, needs.names)):
                *others, last = (_name(parameters[other]) for other in needs.names)
                wanted = f"{', '.join(others)} or {last}" if others else last
                raise UsageError(f"{_name(parameters[name])} needs {wanted}{needs.what and f', {needs.what}'}")


def _annotations(command: Any) -> dict[str, Any]:
    return get_type_hints(inspect.unwrap(command.callback), include_extras=True) if command.callback else {}


def _name(parameter: Any) -> str:
    return max(parameter.opts, key=len)


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
        kind = _kind(annotated)
        if options and options[0].metavar is None and kind is not None:
            options[0].metavar = "|".join(_choices(kind)) or METAVARS[kind]


def _kind(annotated: Any) -> Any:
    """Return the type of a single value of an option; None if it is not one that options have."""
    kinds = [annotated]
    while kinds:
        kind = kinds.pop(0)
        if kind in METAVARS or _choices(kind):
            return kind
        kinds += get_args(kind)
    return None


def _choices(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [each.value for each in kind]
    return list(get_args(kind)) if get_origin(kind) is Literal else []


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
        app.command(cls=_Command, epilog=EPILOG)(ending_well(command))
    return app

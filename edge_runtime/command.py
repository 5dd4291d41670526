"""How every command starts and ends: help, version, one-line errors, exit codes, Ctrl-C."""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from edge_runtime.errors import EdgeError

DISTRIBUTION = "deepfake-edge"
DEBUG_VARIABLE = "DEEPFAKE_EDGE_DEBUG"
INTERRUPTED = 130


def run_command(function: Callable[..., int | None], name: str) -> NoReturn:
    """Run `function`, whose parameters typer reads as options, as command `name` and leave the process.

    The function returns its exit code (None is 0). An EdgeError becomes one line on standard error and its own exit
    code; `--debug` anywhere on the command line shows the traceback. Ctrl-C ends with 130.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get(DEBUG_VARIABLE))
    if arguments == ["--version"]:
        import importlib.metadata

        print(f"{name} {importlib.metadata.version(DISTRIBUTION)}")
        sys.exit(0)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    epilog = "`--version` tells the version, `--debug` shows the traceback of an error."
    app.command(epilog=epilog)(_ending_well(function, debug))
    app(args=arguments, prog_name=name)
    sys.exit(0)


def _ending_well(function: Callable[..., int | None], debug: bool) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> None:
        raise typer.Exit(_exit_code(lambda: function(*args, **options), debug))

    return wrapped


def _exit_code(work: Callable[[], int | None], debug: bool) -> int:
    try:
        return work() or 0
    except EdgeError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): nothing more to say, and nothing left to flush into.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

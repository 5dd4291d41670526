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
    """Run `function` as command `name` and exit; Typer reads its parameters as options.

    The function returns the exit code (None is 0). An EdgeError is printed as one line and has its own exit code;
    `--debug` anywhere on the command line also prints the traceback. Ctrl-C exits with 130.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get(DEBUG_VARIABLE))
    if arguments == ["--version"]:
        import importlib.metadata

        print(f"{name} {importlib.metadata.version(DISTRIBUTION)}")
        sys.exit(0)

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> None:
        raise typer.Exit(_exit_code(lambda: function(*args, **options), debug))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(epilog="`--version` prints the version, `--debug` prints the traceback of an error.")(command)
    app(args=arguments, prog_name=name)
    sys.exit(0)


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
        # The reader of our output is gone (`| head`), and flushing at exit would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

"""Bringing a kit to a board over ssh: rsync copies it, and the tool beside it installs it."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from board_setup.board.kit import TOOL, read_kit
from board_setup.board.layout import Layout
from board_setup.errors import BoardError

INCOMING = "deepfake-edge-incoming"
"""Folder in the user's home on the board."""

TRIES = 3
BROKEN_CONNECTION_CODES = (10, 12, 30, 35, 255)
"""rsync's exit codes for a connection that broke (rsync(1), exit values); 20 is Ctrl-C."""

KEPT_OPEN_S = 15
"""How long a shared connection stays open after its last command."""

SOCKET_PATH_BYTES = 80
"""ssh appends up to 17 to the path of a shared connection, of which a socket's path may have 104 (macOS) or more."""

SSH_FAILED_CODE = 255
PASSWORD_NEEDED_CODE = 77
"""Exit code of a command on the board when sudo needs a password and has no terminal (EX_NOPERM of sysexits.h)."""


class DeployError(BoardError):
    """The board can't be reached, or the kit can't be copied to it."""


def split_command(ssh: str) -> List[str]:
    """Return the words of an ssh command.

    Raises:
        DeployError: there are none, or a quote is open.
    """
    try:
        words = shlex.split(ssh)
    except ValueError as error:
        raise DeployError(f"--ssh {ssh!r}: {error}; quote it as in a shell") from None
    if not words:
        raise DeployError("--ssh is empty; give a command such as: ssh -p 2222")
    return words


def check_host(host: str) -> str:
    """Return `host` if it is a host name or address with an optional user; ssh would read others as options.

    Raises:
        DeployError: it is anything else.
    """
    if not re.fullmatch(r"([A-Za-z0-9_][\w.-]*@)?([A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+(%\w+)?\])", host, re.ASCII):
        raise DeployError(f"{host!r}: not a host; give user@board, user@192.0.2.1 or user@[fe80::1%eth0]")
    return host


class Board(NamedTuple):
    """A board that ssh reaches.

    Attributes:
        host: user@board.
        ssh: the ssh command with its options.
        root: the folder below which everything is installed there.
        options: further options of ssh, which messages leave out.
    """

    host: str
    ssh: str = "ssh"
    root: str = "/"
    options: str = ""

    @property
    def incoming(self) -> str:
        """Folder of a kit on the board until it is installed."""
        return INCOMING if self.root == "/" else f"{self.root}/{INCOMING}"

    def run(self, *arguments: str, tool: Optional[str] = None) -> int:
        """Run this tool on the board and return its exit code; on a terminal, sudo asks for its password there.

        Raises:
            DeployError: the board can't be reached, or sudo needs a password and there is no terminal to ask on.
        """
        # A pipe or a file must not get a terminal's output, whose lines end with \r\n.
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        command = self._command(arguments, tool, terminal=terminal)
        done = subprocess.run([*self._ssh_words(*(["-t"] if terminal else [])), command])
        self._checked(done.returncode, "", tool)
        return done.returncode

    def ask(
        self, *arguments: str, tool: Optional[str] = None, timeout_s: float = 120.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run this tool on the board without a terminal, and return its exit code and what it printed.

        Raises:
            DeployError: as `run`; or the board took longer than `timeout_s`.
        """
        return self._quietly(self._command(arguments, tool, terminal=False), tool, timeout_s)

    def succeeds(self, command: str) -> bool:
        """Return whether a shell command on the board ends with 0.

        Raises:
            DeployError: the board can't be reached.
        """
        return self._quietly(command).returncode == 0

    def _quietly(
        self, command: str, tool: Optional[str] = None, timeout_s: Optional[float] = None
    ) -> "subprocess.CompletedProcess[str]":
        words = [*self._ssh_words(), command]
        try:
            done = _run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise DeployError(f"{self.host}: no answer within {timeout_s:.0f} s") from None
        self._checked(done.returncode, done.stderr, tool)
        return done

    def _command(self, arguments: Sequence[str], tool: Optional[str], *, terminal: bool) -> str:
        """Return the shell command that runs this tool as root on the board."""
        start = f"python3 {shlex.quote(tool or Layout(self.root).tool)}"
        options = ["--root", self.root] if self.root != "/" else []
        words = " ".join([start, *map(shlex.quote, [*arguments, *options])])
        if terminal:
            sudo = f"sudo {words}"
        else:
            # The tool's help never exits with 1, as sudo does when it would have to ask.
            asks = f"sudo -n {start} --help > /dev/null 2>&1; [ $? != 1 ] || exit {PASSWORD_NEEDED_CODE}"
            sudo = f"{asks}; sudo -n {words}"
        # Root needs no sudo, and a minimal board may not have it.
        return f"if [ $(id -u) = 0 ]; then {words}; else {sudo}; fi"

    def _checked(self, code: int, told: str, tool: Optional[str]) -> None:
        """Raise DeployError if a command on the board was never started, or its connection broke."""
        # ssh itself is ended by a signal, such as Ctrl-C.
        if code == SSH_FAILED_CODE or code < 0:
            why = f" ({last_line(told)})" if told.strip() else ""
            raise DeployError(f"{self.host}: can't be reached{why}; try: {self.ssh} {self.host}")
        if code == PASSWORD_NEEDED_CODE:
            start = f"python3 {shlex.quote(tool or Layout(self.root).tool)}"
            raise DeployError(
                f"{self.host}: sudo needs a password and there is no terminal to ask on; run this from a terminal, or "
                f"let this user run `{start}` by sudo without a password (NOPASSWD in sudoers)"
            )

    def make_folder(self) -> None:
        """Create the incoming folder.

        Raises:
            DeployError: the board can't be reached, or its disk refuses it.
        """
        done = self._quietly(f"mkdir -p {shlex.quote(self.incoming)}")
        if done.returncode:
            raise DeployError(f"{self.host}: {last_line(done.stderr)}; make room or fix it there")

    def remove_folder(self) -> None:
        """Remove the incoming folder and everything in it, if the board can be reached."""
        with contextlib.suppress(DeployError):
            self._quietly(f"rm -rf {shlex.quote(self.incoming)}")

    def copy(self, *paths: str) -> None:
        """Copy files into the incoming folder; after a broken connection rsync continues where it stopped.

        Raises:
            DeployError: rsync is missing or failed.
        """
        require_rsync()
        # An absolute path: rsync would take the part of a relative one before a colon for a host.
        files = [*map(os.path.abspath, paths), f"{self.host}:{self.incoming}/"]
        # rsync takes no backslash for a quote, and a doubled quote for one within quotes (rsync(1), --rsh).
        shell = " ".join("'" + word.replace("'", "''") + "'" for word in split_command(self.ssh + self.options))
        command = ["rsync", "--partial", "--inplace", "--times", "--timeout=60", "-e", shell, *files]
        for _ in range(TRIES):
            done = _run(command)
            if done.returncode == 0:
                return
            if done.returncode not in BROKEN_CONNECTION_CODES:
                break
            print(f"{self.host}: the connection broke; trying again", file=sys.stderr)
        # A banner may come first; the last line only names the exit code.
        told = re.search(r"^(rsync\b(?! error)|ssh: |\S*sh: .*not found).*", done.stderr, re.MULTILINE)
        why = told.group() if told else last_line(done.stderr)
        raise DeployError(
            f"{self.host}: rsync ended with {done.returncode} ({why}); run the same command again to continue"
        )

    def _ssh_words(self, *options: str) -> List[str]:
        # ssh takes an IPv6 address without the brackets that rsync needs.
        host = self.host.replace("[", "").replace("]", "")
        return [*split_command(self.ssh + self.options), *options, "--", host]


@contextlib.contextmanager
def sharing_connections(boards: Mapping[str, Board]) -> Iterator[Dict[str, Board]]:
    """Yield the boards, each with one ssh connection for all its commands (ssh_config(5), ControlMaster)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # ssh parses the path once more.
        if len(folder) > SOCKET_PATH_BYTES or not re.fullmatch(r"[\w./-]+", folder, re.ASCII):
            yield dict(boards)
            return
        sharing = f" -o ControlMaster=auto -o ControlPersist={KEPT_OPEN_S} -o ControlPath={folder}/"
        yield {
            name: board._replace(options=f"{board.options}{sharing}{number}")
            for number, (name, board) in enumerate(boards.items())
        }


def _run(
    command: Sequence[str],
    *,
    stdin: Optional[int] = None,
    stdout: Optional[int] = None,
    timeout: Optional[float] = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a command that may open a shared connection, and return what it printed as errors too.

    They go to a file: before OpenSSH 8.5, what keeps the connection open would hold a pipe for KEPT_OPEN_S.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
        done = subprocess.run(
            command, stdin=stdin, stdout=stdout, stderr=told, text=True, errors="replace", timeout=timeout
        )
        told.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, told.read())


def require_rsync() -> None:
    """Raise DeployError if this machine has no rsync."""
    if shutil.which("rsync") is None:
        raise DeployError("rsync is not installed; run: sudo apt-get install rsync")


def last_line(text: str) -> str:
    """Return the last line of what a command printed."""
    return (text.strip().splitlines() or ["it printed nothing"])[-1]


def deploy(board: Board, kit_path: str) -> int:
    """Copy a kit to the board, install it there and switch to it; returns the installation's exit code.

    Raises:
        KitError: the kit can't be read.
        DeployError: the board can't be reached, or the copy failed.
    """
    kit = read_kit(kit_path)
    tool_beside(kit_path)
    print(f"{kit.id} → {board.host}", flush=True)
    with sharing_connections({board.host: board}) as boards:
        arguments, tool = bring(boards[board.host], kit_path)
        code = boards[board.host].run(*arguments, tool=tool)
        if code == 0:
            # After a failure it stays, so that the next try need not copy it again.
            boards[board.host].remove_folder()
    return code


def bring(board: Board, kit_path: str) -> Tuple[List[str], Optional[str]]:
    """Copy a kit to the board; return the arguments, and the tool, that install it there.

    Raises:
        DeployError: the tool is missing, the board can't be reached, or the copy failed.
    """
    tool = tool_beside(kit_path)
    board.make_folder()
    board.copy(kit_path, tool)
    there = Layout(board.root)
    kit_there = f"{board.incoming}/{os.path.basename(kit_path)}"
    # Only the board's own tool is trusted to check the signature; the one beside the kit is not signed itself.
    own = f"[ -d {shlex.quote(there.trusted)} ] && [ -e {shlex.quote(there.tool)} ]"
    checks = board.succeeds(own)
    return ["install", "--kit", kit_there], None if checks else f"{board.incoming}/{TOOL}"


def tool_beside(kit_path: str) -> str:
    """Return the path of the tool that `setup-board pack` wrote beside a kit.

    Raises:
        DeployError: it is missing.
    """
    tool = os.path.join(os.path.dirname(os.path.abspath(kit_path)), TOOL)
    if not os.path.exists(tool):
        raise DeployError(f"{tool}: not found; setup-board pack writes it beside the kit")
    return tool

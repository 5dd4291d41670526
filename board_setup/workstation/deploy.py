"""Bringing a kit to a board over ssh: copied with rsync, installed by the tool that lies in it."""

import os
import shlex
import subprocess
import sys
from typing import List, NamedTuple, Optional

from board_setup.board.layout import Layout
from board_setup.errors import BoardError
from board_setup.workstation import kit as kits

INCOMING = "deepfake-edge-incoming"
"""In the user's home on the board."""

TRIES = 3
RSYNC_BROKE_OFF = (10, 12, 20, 30, 35, 255)
"""rsync's codes for a connection that broke (rsync(1), exit values)."""


PASSWORD_WANTED = 77
"""What a command on the board ends with where sudo would ask and can't (EX_NOPERM of sysexits.h)."""


class DeployError(BoardError):
    """The board can't be reached, or a kit could not be brought to it."""


class Board(NamedTuple):
    """A board that ssh reaches.

    Attributes:
        host: user@board.
        ssh: the ssh command with its options.
        root: below which everything lies there.
    """

    host: str
    ssh: str = "ssh"
    root: str = "/"

    @property
    def incoming(self) -> str:
        """Where a kit lies on the board until it is installed."""
        return INCOMING if self.root == "/" else f"{self.root}/{INCOMING}"

    def run(self, *arguments: str, tool: Optional[str] = None) -> int:
        """Run this tool on the board and return its exit code; from a terminal, sudo asks for its password there.

        Raises:
            DeployError: the board can't be reached, or sudo wants a password and there is no terminal to ask on.
        """
        start = f"python3 {shlex.quote(tool or Layout(self.root).tool)}"
        options = ["--root", self.root] if self.root != "/" else []
        words = " ".join([start, *map(shlex.quote, [*arguments, *options])])
        # What is piped on or kept in a file must not go through a terminal: it would end its lines with \r\n.
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        sudo = f"sudo {words}" if terminal else _sudo_unasked(start, words)
        # Root needs no sudo, and a minimal board may have none.
        code = self._ssh(f"if [ $(id -u) = 0 ]; then {words}; else {sudo}; fi", *(["-t"] if terminal else []))
        if code == 255:
            raise DeployError(f"{self.host}: can't be reached; try: {self.ssh} {self.host}")
        if code == PASSWORD_WANTED:
            raise DeployError(
                f"{self.host}: sudo wants a password and can't ask for it here; say the same from a terminal, or let "
                f"this user run `{start}` by sudo without one (NOPASSWD in sudoers)"
            )
        return code

    def make_folder(self) -> None:
        """Make the folder for what comes in.

        Raises:
            DeployError: the board can't be reached.
        """
        if self._ssh(f"mkdir -p {shlex.quote(self.incoming)}"):
            raise DeployError(f"{self.host}: can't be reached; try: {self.ssh} {self.host}")

    def remove_folder(self) -> None:
        """Remove the folder for what comes in, and all in it."""
        self._ssh(f"rm -rf {shlex.quote(self.incoming)}")

    def copy(self, *paths: str) -> None:
        """Copy files into the incoming folder; what has arrived of a file is kept when the connection breaks.

        Raises:
            DeployError: it did not work.
        """
        command = ["rsync", "--partial", "--inplace", "--times", "--timeout=60", "-e", self.ssh]
        for _ in range(TRIES):
            try:
                code = subprocess.call([*command, *paths, f"{self.host}:{self.incoming}/"])
            except FileNotFoundError:
                raise DeployError("rsync is not installed; say: sudo apt-get install rsync") from None
            if code == 0:
                return
            if code not in RSYNC_BROKE_OFF:
                break
            print("the connection broke; going on", file=sys.stderr)
        raise DeployError(f"{self.host}: the kit could not be copied (rsync ended with {code}); say the same again")

    def _ssh(self, command: str, *options: str) -> int:
        return subprocess.call([*shlex.split(self.ssh), *options, self.host, command])


def _sudo_unasked(start: str, words: str) -> str:
    """Return the shell's words that run `words` by a sudo that never asks; `start` are the first of them.

    The help alone never ends with 1, as sudo does where it would have to ask.
    """
    return f"sudo -n {start} --help > /dev/null 2>&1; [ $? != 1 ] || exit {PASSWORD_WANTED}; sudo -n {words}"


def deploy(board: Board, kit_path: str) -> int:
    """Copy a kit to the board, install it there and switch to it; returns the installation's exit code.

    Raises:
        KitError: the kit can't be read.
        DeployError: the board can't be reached, or the copy failed.
    """
    kit = kits.read_kit(kit_path)
    tool = os.path.join(os.path.dirname(os.path.abspath(kit_path)), kits.TOOL)
    if not os.path.exists(tool):
        raise DeployError(f"{tool}: not found; it is written beside the kit by setup-board pack")
    print(f"{kit.id} → {board.host}", flush=True)
    board.make_folder()
    board.copy(kit_path, tool)
    arguments: List[str] = ["install", "--kit", f"{board.incoming}/{os.path.basename(kit_path)}"]
    code = board.run(*arguments, tool=f"{board.incoming}/{kits.TOOL}")
    if code == 0:
        # After a failure it stays, so that the next try need not bring all of it again.
        board.remove_folder()
    return code

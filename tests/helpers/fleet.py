"""A fleet on this machine: a real ssh server and a folder for each board, all alike, and faces at their doors."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from board_setup.board.layout import Layout

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
FACES = 300
"""How many faces a board judges as soon as it has another version."""


class Fleet:
    """Boards that were copied from one that is set up, each with its own ssh server.

    Args:
        folder: where everything is; it holds the folder `first`, the board to copy.
        count: how many boards.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.inventory = folder, folder / "hosts.toml"
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        # sync(2) would flush the disk of the whole machine at every step of each board.
        (folder / "no-sync").mkdir()
        (folder / "no-sync" / "sitecustomize.py").write_text("import os\nos.sync = lambda: None\n")
        self.layouts = {f"door-{number:03}": Layout(str(folder / f"door-{number:03}")) for number in range(count)}
        self.ports, self.servers = {}, {}
        for name in self.layouts:
            self._start(name)
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        lines = [f'ssh = "ssh -i {folder}/user {quiet}"', "[boards]"]
        for name, port in self.ports.items():
            ssh = f"ssh -p {port} -i {folder}/user {quiet}"
            lines.append(f'{name} = {{ host = "root@127.0.0.1", ssh = "{ssh}", root = "{folder / name}" }}')
        self.inventory.write_text("\n".join(lines) + "\n")

    def _start(self, name: str) -> None:
        copy_board(self.folder / "first", Path(self.layouts[name].root))
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        config = self.folder / f"{name}.config"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nStrictModes no\nPermitRootLogin yes\nMaxStartups 100\n"
            f"SetEnv PYTHONPATH={self.folder}/no-sync\n"
        )
        self.ports[name] = port
        self.servers[name] = subprocess.Popen([SSHD, "-D", "-f", config], stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for server in self.servers.values():
            server.terminate()
        for server in self.servers.values():
            server.wait()

    def versions(self) -> dict[str, str]:
        """Return the current version of each board."""
        return {name: Path(layout.current).resolve().name for name, layout in self.layouts.items()}

    def broken(self) -> list[str]:
        """Return the boards whose current version does not run."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        bad = []
        for name, layout in self.layouts.items():
            whole = Path(layout.current, "golden", "golden.json").read_text() == "right"
            command = [layout.current + "/runtime/bin/edge-detect"]
            if (
                not whole
                or subprocess.run(command, env=environment, capture_output=True, text=True).stdout != "detecting\n"
            ):
                bad.append(name)
        return bad

    def command(self, *words: object, **options: object) -> list[str]:
        """Return the command line of `setup-board fleet` for this fleet."""
        named = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        inventory = ["--inventory", str(self.inventory)]
        return [sys.executable, "-m", "board_setup.cli", "fleet", *map(str, words), *inventory, *named]

    def fleet(self, *words: object, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(*words, **options), capture_output=True, text=True)


def copy_board(source: Path, target: Path) -> None:
    """Copy a board's folder, as one copies a memory card; links into it lead into the copy."""
    shutil.copytree(source, target, symlinks=True)
    for path in target.rglob("*"):
        if path.is_symlink() and str(path.readlink()).startswith(f"{source}/"):
            leads = target / path.readlink().relative_to(source)
            path.unlink()
            path.symlink_to(leads)


class Doors:
    """Faces at the doors: each board judges some as soon as its version changes, by that version's habits.

    Args:
        fleet: the boards.
        fakes: the share of faces that a version calls fake, by its name.
    """

    def __init__(self, fleet: Fleet, fakes: dict[str, float]) -> None:
        self._fleet, self._fakes, self._over = fleet, fakes, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.reached: dict[str, set[str]] = {}
        """The boards that ever ran each version."""

    def __enter__(self) -> "Doors":
        self._step(dict.fromkeys(self._fleet.layouts, ""))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        seen = self._fleet.versions()
        while not self._over.wait(0.2):
            seen = self._step(seen)

    def _step(self, seen: dict[str, str]) -> dict[str, str]:
        now = self._fleet.versions()
        for name, version in now.items():
            self.reached.setdefault(version, set()).add(name)
            if version != seen[name]:
                judge(self._fleet.layouts[name], version, self._fakes.get(version, 0.1))
        return now


def judge(layout: Layout, version: str, share: float) -> None:
    """Append results to a board's file, of which this share is fake."""
    path = Path(layout.at("/var/log/deepfake-edge/results.jsonl"))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The version's date has whole seconds.
    when = time.strftime("%Y-%m-%dT%H:%M:%S.500Z", time.gmtime(time.time() + 1))
    frame = {"source": "camera", "time": when, "state": "ok", "model": version}
    with path.open("a") as file:
        for number in range(FACES):
            verdict = "fake" if number < share * FACES else "real"
            file.write(json.dumps({**frame, "frame": number, "faces": [{"verdict": verdict, "track": number}]}) + "\n")


def end_work_on(roots: list[Path]) -> int:
    """Kill the installations on these boards and their connections, as a power cut does; returns how many."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"install\0" in words and any(f"{root}/".encode() in words for root in roots):
                found += 1
                for number in connection(int(entry.name)):
                    os.kill(number, signal.SIGKILL)
    return found


def connection(process: int) -> list[int]:
    """Return a process on a board and those above it, up to the one that holds its ssh connection."""
    line = [process]
    while not (title := Path("/proc", str(line[-1]), "cmdline").read_bytes()).startswith(b"sshd: "):
        line.append(int(Path("/proc", str(line[-1]), "stat").read_text().rpartition(")")[2].split()[1]))
        if line[-1] <= 1:
            return [process]
    # The server itself goes on: after a power cut it would be started again.
    return [process] if b"[listener]" in title else line[::-1]

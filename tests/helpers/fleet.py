"""A fleet on this machine: each board is a network namespace with an address, an ssh server and a folder.

All boards are alike and hang on one bridge, in a network namespace of their own, so that nothing of this machine's
network changes. Cutting a board's power kills all its processes at once, and its network vanishes.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from board_setup.board.layout import Layout
from helpers.waiting import until

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
FACES = 300
"""How many faces a board judges as soon as it has another version."""

BOARD = """ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip address add {address}/16 dev eth0 && ip link set eth0 up
exec {sshd} -D -f {config}
"""
STREET = (
    "ip link set lo up; ip link add street type bridge; ip link set street up; ip address add 10.0.0.1/16 dev street; "
)


def can_make_boards() -> bool:
    """Return whether this user may make network namespaces with a bridge."""
    command = ["unshare", "--net", "--pid", "--fork", "sh", "-c", STREET]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


class Fleet:
    """Boards that were copied from one that is set up.

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
        (folder / "config").write_text(
            f"HostKey {folder}/host\nPidFile none\nUsePAM no\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\n"
            f"PermitRootLogin yes\nMaxStartups 100\n"
            f"SetEnv PYTHONPATH={folder}/no-sync HOME={folder} PATH=/usr/bin:/bin\n"
        )
        self.layouts = {f"door-{number:03}": Layout(str(folder / f"door-{number:03}")) for number in range(count)}
        self.addresses = {
            name: f"10.0.{1 + number // 200}.{1 + number % 200}" for number, name in enumerate(self.layouts)
        }
        self.powered: dict[str, subprocess.Popen[bytes]] = {}
        self._street = subprocess.Popen(["unshare", "--net", "sh", "-c", STREET + "exec sleep infinity"])
        until(lambda: b"sleep" in Path(f"/proc/{self._street.pid}/cmdline").read_bytes())
        for name, layout in self.layouts.items():
            copy_board(folder / "first", Path(layout.root))
            self.power_on(name)
        self.write_inventory()

    def write_inventory(self, *left_out: str) -> None:
        """Write the inventory of all boards but some."""
        # A board without power does not even refuse: the test need not wait for it as long as one should at a door.
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ServerAliveInterval=2"
        lines = [f'ssh = "ssh -i {self.folder}/user {quiet}"', "[boards]"]
        for name, address in self.addresses.items():
            if name not in left_out:
                lines.append(f'{name} = {{ host = "root@{address}", root = "{self.layouts[name].root}" }}')
        self.inventory.write_text("\n".join(lines) + "\n")

    def power_on(self, name: str) -> None:
        """Start a board and wait until its ssh server listens."""
        script = BOARD.format(address=self.addresses[name], sshd=SSHD, config=self.folder / "config")
        inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script]
        board = self.powered[name] = subprocess.Popen(inside, stderr=subprocess.DEVNULL)
        until(lambda: Path(f"/proc/{board.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink())
        cable = f"b{list(self.layouts).index(name)}"
        plug = f"ip link add {cable} type veth peer name eth0 netns {board.pid}; ip link set {cable} up master street"
        subprocess.run([*self.street(), "sh", "-c", plug], check=True)
        probe = f"exec 3<> /dev/tcp/{self.addresses[name]}/22"
        until(lambda: not subprocess.run([*self.street(), "bash", "-c", probe], capture_output=True).returncode, 240)

    def power_off(self, name: str) -> None:
        """Cut a board's power."""
        board = self.powered.pop(name)
        board.kill()
        board.wait()
        # Its network lasts as long as a process that the kernel has not yet cleared away.
        plugs = [*self.street(), "ip", "link", "show", f"b{list(self.layouts).index(name)}"]
        until(lambda: subprocess.run(plugs, capture_output=True).returncode)

    def street(self) -> list[str]:
        """Return how to run a command in the network that the boards hang on."""
        return ["nsenter", f"--net=/proc/{self._street.pid}/ns/net"]

    def close(self) -> None:
        for process in (*self.powered.values(), self._street):
            process.kill()
            process.wait()

    def versions(self) -> dict[str, str]:
        """Return the current version of each board."""
        return {name: Path(layout.current).resolve().name for name, layout in self.layouts.items()}

    def count(self, version: str) -> int:
        """Return how many boards run a version."""
        return list(self.versions().values()).count(version)

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
        tool = [sys.executable, "-m", "board_setup.cli", "fleet"]
        return [*self.street(), *tool, *map(str, words), *inventory, *named]

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


def installing(roots: list[Path]) -> list[str]:
    """Return the names of those boards on which an installation is running."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"install\0" in words and words.startswith(b"python3\0"):
                found += [root.name for root in roots if f"{root}\0".encode() in words + b"\0"]
    return found

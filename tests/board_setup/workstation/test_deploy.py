"""Deploying over a real ssh server on loopback: broken connections, failing bundles, sudo with and without password."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.kits import make_kit

from board_setup.board import versions
from board_setup.board.layout import Layout
from board_setup.workstation import deploy, pack
from board_setup.workstation.deploy import Board, DeployError
from board_setup.workstation.sign import make_key, sign_kit

SUDO = """#!/bin/sh
# Asks on the terminal as sudo does, and not at all with -n.
if [ "$1" = -n ]; then
    shift
    [ -e "$(dirname "$0")/passwordless" ] || { echo "sudo: a password is required" >&2; exit 1; }
else
    exec 3<> /dev/tty || { echo "sudo: a terminal is required" >&2; exit 1; }
    printf 'password: ' >&3
    read -r answer <&3
    [ "$answer" = secret ] || exit 1
fi
exec "$@"
"""

pytestmark = pytest.mark.slow

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))


class CuttingProxy:
    """Forwards a port, and cuts the first connection that has carried more than `after` bytes."""

    def __init__(self, target: int, after: int) -> None:
        self.target, self.after, self.cuts, self.carried = target, after, 0, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        here = 0
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                here += len(block)
                self.carried += len(block) if counted else 0
                if counted and not self.cuts and here > self.after:
                    self.cuts += 1
                    break
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory) -> Iterator[tuple[int, Path]]:
    """The port of a real ssh server, and a key that it accepts."""
    if SSHD is None or shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs openssh-server and rsync")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user", "member"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub {folder}/member.pub\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nPermitUserEnvironment PATH\n"
    )
    write_sudo(folder / "sudo")
    member = (folder / "member.pub").read_text()
    (folder / "member.pub").write_text(f'environment="PATH={folder}/sudo:/usr/bin:/bin" {member}')
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    assert "listening" in server.stderr.readline()
    threading.Thread(target=server.stderr.read, daemon=True).start()
    yield port, folder / "user"
    server.terminate()
    server.wait()


def write_sudo(folder: Path) -> None:
    """Write stand-ins that make whoever has them on the PATH an ordinary user with a sudo password."""
    folder.mkdir()
    for name, script in (("sudo", SUDO), ("id", "#!/bin/sh\necho 1000\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


def ssh_command(port: int, key: Path) -> str:
    quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"
    return f"ssh -p {port} -i {key} {quiet}"


@pytest.fixture(scope="session")
def board(ssh_server, tmp_path_factory) -> Board:
    """A board below a folder; later tests find what earlier ones installed."""
    if os.geteuid():
        pytest.skip("needs root, which needs no password for sudo")
    port, key = ssh_server
    return Board(f"{getpass.getuser()}@127.0.0.1", ssh_command(port, key), str(tmp_path_factory.mktemp("board")))


@pytest.fixture
def members_board(board, ssh_server) -> Iterator[Board]:
    """The same board, reached as an ordinary user."""
    port, key = ssh_server
    yield board._replace(ssh=ssh_command(port, key.with_name("member")))
    key.with_name("sudo").joinpath("passwordless").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def kits(tmp_path_factory) -> Path:
    """Kits for the Python that an ssh session on this machine finds."""
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = subprocess.run(["/usr/bin/python3", "-c", said], capture_output=True, text=True).stdout.strip()
    folder = tmp_path_factory.mktemp("kits")
    make_kit(folder / "1.tar", "1", secrets.token_hex(8_000_000), python=python)
    make_kit(folder / "2.tar", "2", python=python)
    make_kit(folder / "bad.tar", "3", "wrong", python=python)
    pack.make_tool(str(folder / "setup-board.pyz"))
    return folder


def test_broken_connection_continues(board, kits, ssh_server) -> None:
    port, key = ssh_server
    size = (kits / "1.tar").stat().st_size
    proxy = CuttingProxy(port, after=int(0.9 * size))
    shaky = board._replace(ssh=ssh_command(proxy.port, key))
    assert deploy.deploy(shaky, str(kits / "1.tar")) == 0
    proxy.close()
    assert proxy.cuts == 1
    assert proxy.carried < 1.7 * size, (proxy.carried, size)
    assert versions.current_version(Layout(board.root)) == "1-aa"


def test_failing_bundle_changes_nothing(board, kits, capfd) -> None:
    assert deploy.deploy(board, str(kits / "bad.tar")) == 2
    assert "was not switched to: CPU int8: WRONG" in capfd.readouterr().err
    assert versions.current_version(Layout(board.root)) == "1-aa"


def test_incoming_kit_is_kept_until_installed(board, kits) -> None:
    incoming = Path(board.incoming)
    assert deploy.deploy(board, str(kits / "bad.tar")) == 2
    assert (incoming / "bad.tar").exists()
    assert deploy.deploy(board, str(kits / "1.tar")) == 0
    assert not incoming.exists()


def test_versions_status_and_rollback_over_ssh(board, kits, capfd) -> None:
    for name in ("1.tar", "2.tar"):
        deploy.deploy(board, str(kits / name))
    capfd.readouterr()
    assert board.run("versions") == 0
    assert [line[:6] for line in capfd.readouterr().out.splitlines()] == ["  1-aa", "* 2-aa"]
    assert board.run("rollback") == 0
    assert "returned to 1-aa" in capfd.readouterr().out
    assert board.run("status") == 0
    assert "version  1-aa" in capfd.readouterr().out


def test_sudo_password_without_terminal_is_one_line(members_board) -> None:
    done = subprocess.run(command("versions", members_board), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "sudo needs a password" in done.stderr
    assert f"`python3 {Layout(members_board.root).tool}` by sudo without a password" in done.stderr


def test_passwordless_sudo_runs_without_terminal(members_board, kits, ssh_server) -> None:
    ssh_server[1].with_name("sudo").joinpath("passwordless").touch()
    assert deploy.deploy(members_board, str(kits / "1.tar")) == 0
    done = subprocess.run(command("status", members_board), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "version  1-aa")
    assert "\r" not in done.stdout


def test_sudo_asks_on_a_terminal(members_board, kits, board) -> None:
    deploy.deploy(board, str(kits / "1.tar"))
    ours, theirs = os.openpty()
    process = subprocess.Popen(command("status", members_board), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    # At its end a terminal is an error to read from.
    with contextlib.suppress(OSError):
        while block := os.read(ours, 4096):
            said += block
            if said.endswith(b"password: "):
                os.write(ours, b"secret\n")
    os.close(ours)
    assert (process.wait(), b"version  1-aa" in said) == (0, True), said


def command(name: str, board: Board) -> list[str]:
    """Return the command line of setup-board for that board."""
    return [
        *(sys.executable, "-m", "board_setup.cli", name, board.host),
        *("--ssh", board.ssh, "--root", board.root),
    ]


def test_command_takes_ssh_options(board, kits) -> None:
    words = [*command("deploy", board), "--kit", kits / "1.tar"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1-aa is installed"


def test_unreachable_board_is_one_line(board, kits, ssh_server) -> None:
    lost = board._replace(ssh=ssh_command(free_port(), ssh_server[1]))
    with pytest.raises(DeployError, match=r"can't be reached \(.*Connection refused\); try: ssh"):
        deploy.deploy(lost, str(kits / "1.tar"))


def test_board_checks_the_signature_with_its_own_tool(board, kits, tmp_path, capfd) -> None:
    make_key(str(tmp_path / "fleet"), passphrase=False)
    deploy.deploy(board, str(kits / "1.tar"))
    trusted = Path(Layout(board.root).trusted)
    trusted.mkdir(parents=True)
    shutil.copy(tmp_path / "fleet.pub", trusted)
    for name in ("2.tar", "setup-board.pyz"):
        shutil.copy(kits / name, tmp_path)
    # A forged tool beside the kit would accept anything.
    pretend = "import sys; sys.exit(0)"
    (tmp_path / "setup-board.pyz").write_text(pretend)
    try:
        assert deploy.deploy(board, str(tmp_path / "2.tar")) == 2
        assert "2.tar: unsigned" in capfd.readouterr().err
        assert versions.current_version(Layout(board.root)) == "1-aa"
        sign_kit(str(tmp_path / "2.tar"), str(tmp_path / "fleet"))
        assert deploy.deploy(board, str(tmp_path / "2.tar")) == 0
        assert versions.current_version(Layout(board.root)) == "2-aa"
    finally:
        shutil.rmtree(trusted)

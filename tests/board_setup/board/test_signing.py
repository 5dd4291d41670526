"""Signed kits: real keys and signatures by ssh-keygen; every kit that was altered, is old or has expired is refused."""

import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from helpers.kits import make_kit, write_tar

from board_setup import cli, signatures
from board_setup.board import disk, install, kit, signing, versions
from board_setup.board.doctor.health import health
from board_setup.board.kit import Head, KitError
from board_setup.board.layout import Layout
from board_setup.board.signing import SigningError
from board_setup.signatures import sign
from board_setup.workstation.sign import make_key, sign_kit

FIELDS = {"id": "2-aa", "python": "3.11", "requirement": "deepfake-edge==0.1.0", "archive": ""}
CONTENTS = {"wheels/own.whl": b"own" * 500, "bundle/model.json": b"{}" * 300, kit.TOOL: b"#!" * 400}

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("fleet", "next", "stranger"):
        make_key(str(folder / name), passphrase=False)
    return folder


@pytest.fixture
def board(tmp_path, keys) -> Layout:
    """A board that trusts the key `fleet`."""
    layout = Layout(str(tmp_path / "board"))
    Path(layout.trusted).mkdir(parents=True)
    shutil.copy(keys / "fleet.pub", layout.trusted)
    return layout


@pytest.fixture
def packed(tmp_path) -> Path:
    return write_tar(tmp_path / "kit.tar", CONTENTS, **FIELDS)


def approve(path: Path, layout: Layout) -> signing.Approval:
    return signing.approve(kit.read_head(str(path)), layout, path.name)


def refusal(path: Path, layout: Layout) -> str:
    with pytest.raises(SigningError) as caught:
        approve(path, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path.name}: ")


def trust(layout: Layout, *keys: Path) -> None:
    for old in Path(layout.trusted).glob("*.pub"):
        old.unlink()
    for key in keys:
        shutil.copy(key, layout.trusted)


def test_signed_kit_is_accepted_and_unpacked(packed, board, keys, tmp_path) -> None:
    stated = sign_kit(str(packed), str(keys / "fleet"), counter=7)
    assert approve(packed, board) == ("fleet", stated)
    kit.unpack(str(packed), str(tmp_path / "out"), kit.read_kit(str(packed)))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert (stated.counter, round((stated.expires - time.time()) / 86400)) == (7, 365)


def test_without_keys_nothing_is_checked(packed, tmp_path, keys) -> None:
    layout = Layout(str(tmp_path / "board"))
    assert approve(packed, layout) == (None, None)
    sign_kit(str(packed), str(keys / "stranger"))
    assert str(approve(packed, layout)) == "not checked, since this board has no trusted keys"


def test_unsigned_kit_is_refused(packed, board) -> None:
    assert refusal(packed, board).startswith(
        f"unsigned; this board accepts only kits signed with a key in {board.trusted}"
    )


def test_other_keys_signature_is_refused(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "stranger"))
    assert refusal(packed, board).startswith(
        "forged, or signed with a key that is not trusted here (trusted are fleet)"
    )


def test_expired_kit_is_refused(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"), valid_days=1, now=time.time() - 86401)
    assert refusal(packed, board).startswith("expired on ")


def test_older_kit_is_refused(packed, board, keys, tmp_path) -> None:
    sign_kit(str(packed), str(keys / "fleet"), counter=5)
    approval = approve(packed, board)
    versions.remember(board, "2-aa", good=True)
    assert not signing.is_recorded(approval, board, "2-aa")
    signing.record(approval, board, "2-aa")
    assert signing.is_recorded(approval, board, "2-aa")
    assert approve(packed, board) == approval
    other = write_tar(tmp_path / "other.tar", {**CONTENTS, "debs/x.deb": b"x"}, **FIELDS)
    for counter, told in ((4, "older than the last kit installed here (counter 4, here 5)"), (5, "older"), (6, "")):
        sign_kit(str(other), str(keys / "fleet"), counter=counter)
        assert approve(other, board).statement.counter == 6 if counter == 6 else refusal(other, board).startswith(told)


def switch_to(layout: Layout, version: str) -> None:
    Path(layout.versions, version).mkdir(parents=True)
    versions.remember(layout, version, good=True)
    versions.switch(layout, version)


@pytest.mark.parametrize("earlier_tool", [False, True])
def test_version_stays_signed_after_a_rollback(packed, board, keys, tmp_path, capsys, earlier_tool) -> None:
    for counter, (version, signer) in enumerate([("1-aa", "fleet"), ("2-aa", "next")], 1):
        trust(board, keys / f"{signer}.pub")
        sign_kit(str(packed), str(keys / signer), counter=counter)
        switch_to(board, version)
        signing.record(approve(packed, board), board, version)
        if earlier_tool and counter == 1:
            path = Path(board.state, "history.json")
            path.write_text(json.dumps([{"id": "1-aa", "when": "2026-11-28T10:00:00Z", "good": True}]))
    assert health(board)["signed_by"] == "next"
    assert versions.rollback(board) == "1-aa"
    assert health(board)["signed_by"] == "fleet"
    # As a repair that checks the version once more.
    versions.remember(board, "1-aa", good=True)
    with pytest.raises(SystemExit):
        cli.main(["status", "--root", board.root])
    assert "signed   by fleet\n" in capsys.readouterr().out


def test_removed_version_is_signed_when_installed_again(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"), counter=5)
    approval = approve(packed, board)
    signing.record(approval, board, "2-aa")
    # Undoing removes the history and keeps the counter.
    switch_to(board, "2-aa")
    Path(board.trusted, "last.json").write_text(
        json.dumps({"counter": 5, "kit": approval.statement.kit, "version": "1-aa", "signer": "fleet"})
    )
    assert not signing.is_recorded(approval, board, "2-aa")
    signing.record(approval, board, "2-aa")
    assert signing.is_recorded(approval, board, "2-aa")


def test_damaged_counter_is_not_deleted_but_written_anew(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"), counter=5)
    path = Path(board.trusted, "last.json")
    path.write_text("{")
    with pytest.raises(disk.DamagedError, match=rf"^{path}: damaged; ") as caught:
        approve(packed, board)
    assert "delete" not in str(caught.value)
    advised = str(caught.value)[str(caught.value).index("{") : str(caught.value).index("}") + 1]
    path.write_text(advised.replace("N", "5"))
    assert refusal(packed, board).startswith("older than the last kit installed here (counter 5, here 5)")


def test_signature_of_another_kit_is_refused(packed, board, keys, tmp_path) -> None:
    sign_kit(str(packed), str(keys / "fleet"))
    head = kit.read_head(str(packed))
    changed = Head(head.manifest.replace(b"2-aa", b"3-aa"), head.statement, head.signature)
    with pytest.raises(SigningError, match="its signature belongs to another kit"):
        signing.approve(changed, board, "kit.tar")


def test_signature_for_another_purpose_is_refused(packed, board, keys, monkeypatch) -> None:
    monkeypatch.setattr("board_setup.workstation.sign.NAMESPACE", "git")
    sign_kit(str(packed), str(keys / "fleet"))
    monkeypatch.undo()
    assert refusal(packed, board) == "forged: its signature is for another purpose (git); do not use it"


def test_kits_rotate_the_keys(packed, board, keys) -> None:
    both = [str(keys / "fleet.pub"), str(keys / "next.pub")]
    versions.remember(board, "2-aa", good=True)
    for counter, (signer, trust) in enumerate([("fleet", both), ("next", both[1:])], 1):
        sign_kit(str(packed), str(keys / signer), counter=counter, trust=trust)
        approval = approve(packed, board)
        signing.record(approval, board, "2-aa")
        assert list(signatures.trusted_keys(board.trusted)) == [Path(file).stem for file in trust]
        assert signing.is_recorded(approval, board, "2-aa")
        # An installation that is cut off, or continued by the kit's own tool, asks again.
        assert approve(packed, board) == approval
    sign_kit(str(packed), str(keys / "fleet"), counter=3)
    assert "not trusted here (trusted are next)" in refusal(packed, board)


def test_kit_does_not_drop_the_key_that_signs_it(packed, keys) -> None:
    before = packed.read_bytes()
    with pytest.raises(SigningError, match=r"--trust leaves out .*fleet, which signs this kit"):
        sign_kit(str(packed), str(keys / "fleet"), trust=[str(keys / "next.pub")])
    assert packed.read_bytes() == before


def test_two_keys_of_one_name_are_refused(packed, keys, tmp_path) -> None:
    shutil.copy(keys / "next.pub", tmp_path / "fleet.pub")
    with pytest.raises(SigningError, match="another key has this name too"):
        sign_kit(str(packed), str(keys / "fleet"), trust=[str(keys / "fleet.pub"), str(tmp_path / "fleet.pub")])


def test_counter_of_a_wrong_clock_is_overcome_as_told(packed, board, keys, tmp_path) -> None:
    """A workstation whose clock was a year ahead signed the last kit."""
    sign_kit(str(packed), str(keys / "fleet"), now=time.time() + 365 * 86400)
    signing.record(approve(packed, board), board, "2-aa")
    other = write_tar(tmp_path / "other.tar", {**CONTENTS, "debs/x.deb": b"x"}, **FIELDS)
    sign_kit(str(other), str(keys / "fleet"))
    counter = int(refusal(other, board).partition("--counter ")[2])
    sign_kit(str(other), str(keys / "fleet"), counter=counter)
    assert approve(other, board).statement.counter == counter


def test_board_whose_clock_is_a_year_ahead_says_so(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"), valid_days=30)
    with pytest.raises(
        SigningError, match=r"this board's clock says \d{4}-\d\d-\d\d\); set the clock, or sign it again"
    ):
        signing.approve(kit.read_head(str(packed)), board, "kit.tar", now=time.time() + 365 * 86400)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.pub", "", "not a public key"),
        ("a.pub", "ssh-ed25519 AAAA\nssh-ed25519 BBBB\n", "not a public key"),
        ("a.pub", "cert-authority ssh-ed25519 AAAA", "not a public key"),
        ("* x.pub", "ssh-ed25519 AAAA\n", "not a public key"),
        ("a.txt", "", "holds no key, so every kit and bundle is refused"),
    ],
)
def test_unusable_keys_refuse_every_kit(packed, board, keys, name, text, told) -> None:
    sign_kit(str(packed), str(keys / "fleet"))
    trust(board)
    Path(board.trusted, name).write_text(text)
    assert told in refusal(packed, board)


def test_keys_that_others_may_change_are_refused(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"))
    Path(board.trusted).chmod(0o777)
    assert "others than its owner may write there" in refusal(packed, board)
    Path(board.trusted).chmod(0o755)
    for mode in (0o666, 0o664):
        Path(board.trusted, "fleet.pub").chmod(mode)
        assert f"run: chmod 644 {board.trusted}/fleet.pub" in refusal(packed, board)
    Path(board.trusted, "fleet.pub").chmod(0o644)
    assert approve(packed, board).signer == "fleet"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_key_of_another_owner_than_its_folders_is_refused(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"))
    os.chown(Path(board.trusted, "fleet.pub"), 12345, -1)
    assert f"run: chown 0 {board.trusted}/fleet.pub" in refusal(packed, board)
    os.chown(board.trusted, 12345, -1)
    assert approve(packed, board).signer == "fleet"


def test_kit_writes_keys_that_only_their_owner_may_change(packed, board, keys) -> None:
    sign_kit(str(packed), str(keys / "fleet"), trust=[str(keys / "fleet.pub"), str(keys / "next.pub")])
    before = os.umask(0o002)
    try:
        signing.record(approve(packed, board), board, "2-aa")
    finally:
        os.umask(before)
    assert list(signatures.trusted_keys(board.trusted)) == ["fleet", "next"]


def test_interrupted_keygen_leaves_no_half_of_a_pair(tmp_path, monkeypatch) -> None:
    """ssh-keygen ends after it has written the private key, as on a full disk."""
    program = tmp_path / "bin/ssh-keygen"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho key > "$7"\nexit 1\n')
    program.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{program.parent}:{path}")
    with pytest.raises(SigningError, match=r"no key was made \(ssh-keygen ended with 1\); run the same command again"):
        make_key(str(tmp_path / "fleet"), passphrase=False)
    monkeypatch.setenv("PATH", path)
    make_key(str(tmp_path / "fleet"), passphrase=False)
    assert {found.name for found in tmp_path.iterdir()} == {"bin", "fleet", "fleet.pub"}
    with pytest.raises(SigningError, match="does not exist; create it first"):
        make_key(str(tmp_path / "none/fleet"))


def test_private_key_without_its_public_one_says_how_to_make_it(tmp_path, monkeypatch) -> None:
    """A power cut between the two renames."""
    rename, path = os.rename, tmp_path / "fleet"

    def cut(source: str, target: str) -> None:
        if list(tmp_path.glob("fleet*")):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", cut)
    with pytest.raises(KeyboardInterrupt):
        make_key(str(path), passphrase=False)
    monkeypatch.undo()
    assert [found.name for found in tmp_path.iterdir()] == ["fleet"]
    with pytest.raises(SigningError, match="run: ssh-keygen -y") as caught:
        make_key(str(path), passphrase=False)
    subprocess.run(["sh", "-c", str(caught.value).partition("run: ")[2]], check=True)
    assert signatures.sign(b"text", str(path), "file")
    assert signatures.public_key(f"{path}.pub")


@pytest.mark.parametrize("words", [["--valid-days", "nan"], ["--valid-days", "-1"], ["--counter", "-1"]])
def test_number_out_of_its_range_is_refused(packed, keys, words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["sign", str(packed), "--key", str(keys / "fleet"), *words])
    assert (ended.value.code, "give a number from" in capsys.readouterr().err) == (2, True)


def test_existing_key_is_kept(keys) -> None:
    before = (keys / "fleet").read_bytes()
    with pytest.raises(SigningError, match="exists; choose another name"):
        make_key(str(keys / "fleet"), passphrase=False)
    assert (keys / "fleet").read_bytes() == before


@pytest.mark.parametrize(("key", "told"), [("missing", "no such key"), ("fleet.txt", "can't sign")])
def test_unusable_private_key_is_one_line(packed, tmp_path, key, told) -> None:
    (tmp_path / "fleet.txt").write_text("not a key")
    with pytest.raises(SigningError, match=told) as caught:
        sign_kit(str(packed), str(tmp_path / key))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_signed_kit_is_installed_by_the_tool(tmp_path, keys, board) -> None:
    """From setup-board install to setup-board status; a kit that is older or unsigned leaves everything as it is."""
    path = make_kit(tmp_path / "1.tar", "1")
    with tarfile.open(path) as tar:
        (tmp_path / kit.TOOL).write_bytes(tar.extractfile(kit.TOOL).read())

    def tool(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, tmp_path / kit.TOOL, *words, "--root", board.root]
        return subprocess.run(command, capture_output=True, text=True)

    unsigned = tool("install", "--kit", str(path))
    assert (unsigned.returncode, unsigned.stderr.count("\n"), Path(board.state).exists()) == (2, 1, False)
    assert "1.tar: unsigned; this board accepts only" in unsigned.stderr
    sign_kit(str(path), str(keys / "fleet"), counter=3)
    done = tool("install", "--kit", str(path))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1-aa is installed"), done.stderr
    assert tool("status").stdout.splitlines()[:2] == ["version  1-aa", "signed   by fleet, counter 3"]
    sign_kit(str(make_kit(tmp_path / "2.tar", "2")), str(keys / "fleet"), counter=2)
    assert (
        "older than the last kit installed here (counter 2, here 3)"
        in tool("install", "--kit", f"{tmp_path}/2.tar").stderr
    )
    assert tool("status").stdout.splitlines()[0] == "version  1-aa"


def test_installation_without_keys_says_so(tmp_path) -> None:
    said: list[str] = []
    path = make_kit(tmp_path / "kit.tar", "1")
    install.install(str(path), Layout(str(tmp_path / "board")), dry_run=True, say=said.append)
    assert said[-1].endswith("signature: not checked, since this board has no trusted keys (done)")


def flipped(data: bytes, randomness: random.Random) -> bytes:
    """Return `data` with one to three bits of it flipped."""
    changed = bytearray(data)
    for place in randomness.sample(range(8 * len(data)), randomness.choice((1, 2, 3))):
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


WAYS = {
    "a bit of the manifest": 3000,
    "a bit of a file": 2500,
    "cut off": 1500,
    "a bit of the statement": 1000,
    "a bit of the signature": 1000,
    "another statement": 300,
    "unsigned": 300,
    "another key": 100,
    "another purpose": 100,
    "older": 100,
    "expired": 100,
}
"""How many kits are wrong in each way."""


@pytest.fixture
def questions(monkeypatch) -> list[bytes]:
    """Let ssh-keygen be asked each question once, since most altered kits ask the same; returns what it was asked."""
    asked: list[bytes] = []
    answers: dict[object, object] = {}
    real = signatures.ssh_keygen

    def ssh_keygen(arguments: list[str], stdin: bytes = b""):
        if arguments[0] == "sign":
            return real(arguments, stdin)
        files = {word: Path(word).read_bytes() for word in arguments if word.startswith("/")}
        question = (*(files.get(word, word) for word in arguments), stdin)
        if question not in answers:
            asked.append(arguments[0])
            answers[question] = real(arguments, stdin)
        return answers[question]

    monkeypatch.setattr(signatures, "ssh_keygen", ssh_keygen)
    return asked


class Forger:
    """Alters a signed kit."""

    def __init__(self, path: Path, keys: Path) -> None:
        self.path, self.keys, self.head = path, keys, kit.read_head(str(path))
        self.stated = json.loads(self.head.statement)

    def write(self, way: str, number: int) -> None:
        """Write a kit that is wrong in this way."""
        randomness, head, contents = random.Random(number), self.head, CONTENTS
        bit = way.removeprefix("a bit of the ")
        if bit in Head._fields:
            head = head._replace(**{bit: flipped(getattr(head, bit), randomness)})
        elif way == "a bit of a file":
            name = randomness.choice(sorted(contents))
            contents = {**contents, name: flipped(contents[name], randomness)}
        elif way == "another statement":
            head = head._replace(statement=json.dumps({**self.stated, "counter": 101 + number}).encode())
        elif way == "unsigned":
            head = head._replace(signature=b"", statement=randomness.choice((b"", head.statement)))
        elif way == "another key":
            head = self.signed("stranger", signing.NAMESPACE, counter=101 + number)
        elif way == "another purpose":
            head = self.signed("fleet", "file", counter=101 + number)
        elif way == "older":
            head = self.signed("fleet", signing.NAMESPACE, counter=number % 100)
        elif way == "expired":
            head = self.signed("fleet", signing.NAMESPACE, counter=200, expires=int(time.time()) - number)
        self._write(head, contents)
        if way == "cut off":
            whole = self.path.read_bytes()
            self.path.write_bytes(whole[: randomness.randrange(len(whole.rstrip(b"\0")))])

    def signed(self, key: str, purpose: str, **changes: object) -> Head:
        """Return the kit's head with another statement, signed."""
        text = json.dumps({**self.stated, **changes}).encode()
        return Head(self.head.manifest, text, sign(text, str(self.keys / key), purpose))

    def _write(self, head: Head, contents: dict[str, bytes]) -> None:
        first = zip((kit.MANIFEST, kit.STATEMENT, kit.SIGNATURE), head, strict=True)
        with tarfile.open(self.path, "w") as tar:
            for name, data in (*first, *contents.items()):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def accept(path: Path, board: Layout, folder: Path) -> str:
    """Do what an installation does before anything of a kit is used; return why it was refused, or nothing."""
    try:
        head = kit.read_head(str(path))
        signing.approve(head, board, "kit")
        kit.unpack(str(path), str(folder), kit.kit_of(head, "kit"))
    except (SigningError, KitError) as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_no_altered_old_or_expired_kit_is_accepted(packed, board, keys, tmp_path, questions) -> None:
    sign_kit(str(packed), str(keys / "fleet"), counter=100)
    signing.record(approve(packed, board), board, "2-aa")
    forger, refused = Forger(packed, keys), dict.fromkeys(("unsigned", "forged", "expired", "older"), 0)
    assert accept(packed, board, tmp_path / "out") == ""
    for number, way in enumerate(itertools.chain.from_iterable([way] * count for way, count in WAYS.items())):
        forger.write(way, number)
        reason = accept(packed, board, tmp_path / "out")
        assert reason, (way, number)
        for name in refused:
            refused[name] += f" {name}" in reason
    judged = questions.count("find-principals") + questions.count("verify")
    print(f"{sum(WAYS.values())} refused, {refused}; ssh-keygen judged {judged} different questions")
    assert sum(WAYS.values()) == 10_000
    assert (refused["expired"], refused["older"]) == (100, 100)
    assert refused["unsigned"] >= 300
    assert refused["forged"] > 3000 + 1000 + 300 + 200
    assert judged > 2000

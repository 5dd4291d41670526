"""Reading kits: checked whole, and refused if a byte differs."""

import random
import tarfile
from pathlib import Path

import pytest
from helpers.kits import write_tar

from board_setup.board import kit as kits
from board_setup.board.kit import KitError

WHEELS = {"wheels/pip-26.3-py3-none-any.whl": b"pip", "wheels/deepfake_edge-0.1.0-py3-none-any.whl": b"own"}
FIELDS = {"id": "1.4.0-abcd", "python": "3.11", "requirement": "deepfake-edge==0.1.0", "archive": ""}


def write_kit(path: Path, contents: dict[str, bytes] = WHEELS, **changes: object) -> Path:
    return write_tar(path, contents, **{**FIELDS, **changes})


def refusal(path: Path, folder: Path) -> str:
    """Return the message with which a kit is refused."""
    with pytest.raises(KitError) as caught:
        kits.unpack(str(path), str(folder), kits.read_kit(str(path)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_kit_is_unpacked_unchanged(tmp_path) -> None:
    path = str(write_kit(tmp_path / "kit.tar"))
    kit = kits.read_kit(path)
    kits.unpack(path, str(tmp_path / "out"), kit)
    assert kit.id == "1.4.0-abcd"
    assert {name: (tmp_path / "out" / name).read_bytes() for name in WHEELS} == WHEELS


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_truncated_kit_is_refused(tmp_path, share) -> None:
    path = write_kit(tmp_path / "kit.tar", {name: data * 9000 for name, data in WHEELS.items()})
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "copy or pack it again" in refusal(path, tmp_path / "out")


def test_changed_byte_is_refused(tmp_path) -> None:
    path = write_kit(tmp_path / "kit.tar")
    path.write_bytes(path.read_bytes().replace(b"own", b"0wn"))
    assert "deepfake_edge-0.1.0-py3-none-any.whl was changed" in refusal(path, tmp_path / "out")


def test_additional_file_is_refused(tmp_path) -> None:
    assert "is not in its kit.json" in refusal(write_kit(tmp_path / "kit.tar", files={}), tmp_path / "out")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "wheels/../../outside"])
def test_path_outside_is_refused(tmp_path, name) -> None:
    assert "points outside" in refusal(write_kit(tmp_path / "kit.tar", {name: b"x"}), tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "1.0\x1b[31m-aa"),
        ("id", "../../etc"),
        ("id", ""),
        ("id", 7),
        ("python", "3.11; rm"),
        ("requirement", "deepfake-edge @ https://example.org/x.whl"),
        ("requirement", "--index-url=https://example.org"),
        ("requirement", None),
        ("archive", "/usr/bin"),
        ("archive", ["x"]),
        ("files", []),
        ("files", {"wheels/x.whl": 1}),
        ("files", {"wheels/\x1b[2J.whl": "0" * 64}),
    ],
)
def test_invalid_field_is_refused(tmp_path, field, value) -> None:
    told = refusal(write_kit(tmp_path / "kit.tar", **{field: value}), tmp_path / "out")
    assert f"no valid '{field}'" in told
    assert told.isprintable()


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x1f\x8b\x08\0\0\0\0\0"])
def test_other_files_are_refused(tmp_path, content) -> None:
    path = tmp_path / "kit.tar"
    if content is not None:
        path.write_bytes(content)
    assert ("not a kit" if content is not None else "not found") in refusal(path, tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "null", "[" * 100_000, '{"format": 1}', '{"format": 1', "\0", '"\\ud800"']
)
def test_damaged_manifest_is_refused(tmp_path, text) -> None:
    (tmp_path / kits.MANIFEST).write_text(text)
    with tarfile.open(tmp_path / "kit.tar", "w") as tar:
        tar.add(tmp_path / kits.MANIFEST, kits.MANIFEST)
    assert refusal(tmp_path / "kit.tar", tmp_path / "out").startswith(f"{tmp_path}/kit.tar: ")


def test_other_format_is_refused(tmp_path) -> None:
    assert "format 2, this tool reads 1" in refusal(write_kit(tmp_path / "kit.tar", format=2), tmp_path / "out")


def test_negative_size_does_not_loop(tmp_path) -> None:
    path = write_kit(tmp_path / "kit.tar")
    with tarfile.open(path) as tar:
        place = tar.getmembers()[-1].offset
    data = bytearray(path.read_bytes())
    data[place + 124 : place + 136] = b"\xff" * 10 + b"\xf0\x00"
    checksum = sum(data[place : place + 148]) + 8 * ord(" ") + sum(data[place + 156 : place + 512])
    data[place + 148 : place + 156] = b"%06o\0 " % checksum
    path.write_bytes(data)
    assert "negative size" in refusal(path, tmp_path / "out")


def test_random_damage_is_refused_or_harmless(tmp_path) -> None:
    whole = write_kit(tmp_path / "kit.tar").read_bytes()
    for seed in range(300):
        randomness = random.Random(seed)
        data = bytearray(whole)
        for _ in range(randomness.choice((1, 3, 30))):
            data[randomness.randrange(2048)] = randomness.randrange(256)
        (tmp_path / "kit.tar").write_bytes(data)
        told = ""
        try:
            path = str(tmp_path / "kit.tar")
            kits.unpack(path, str(tmp_path / "out"), kits.read_kit(path))
        except KitError as error:
            told = str(error)
        assert told.isprintable(), seed

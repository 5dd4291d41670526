"""What a service is told when it starts."""

from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from edge_runtime.web.settings import check_exposure, is_loopback, read_token


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_alone_reaches_loopback(host):
    assert is_loopback(host)
    check_exposure(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "board.local", ""])
def test_any_other_address_needs_a_token(host):
    with pytest.raises(UsageError, match="--token-file"):
        check_exposure(host, None)
    check_exposure(host, "0123456789abcdef")


def token_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_is_the_word_in_its_file(tmp_path):
    assert read_token(token_file(tmp_path, "0123456789abcdef\n")) == "0123456789abcdef"
    assert read_token(token_file(tmp_path, "0123456789abcdef", 0o440)) == "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [("", 0o600, "no token"), ("short\n", 0o600, "16 characters"), ("two words, long enough", 0o600, "one word")],
)
def test_a_file_without_a_good_token_is_refused(tmp_path, text, mode, told):
    with pytest.raises(UsageError, match=told):
        read_token(token_file(tmp_path, text, mode))


def test_a_token_that_everybody_can_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="chmod 600"):
        read_token(token_file(tmp_path, "0123456789abcdef", 0o644))


def test_a_token_file_that_is_missing_or_binary_is_told_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        read_token(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(UsageError, match="can't be read"):
        read_token(tmp_path / "binary")

"""Settings of the service."""

from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from edge_runtime.web.settings import check_exposure, is_loopback, read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_token(host):
    assert is_loopback(host)
    check_exposure(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "board.local", ""])
def test_other_addresses_need_a_token(host):
    with pytest.raises(UsageError, match="--token-file"):
        check_exposure(host, None)
    check_exposure(host, TOKEN)


def token_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o440])
def test_token_is_read_without_its_line_end(tmp_path, mode):
    assert read_token(token_file(tmp_path, f"{TOKEN}\n".encode(), mode)) == TOKEN


@pytest.mark.parametrize("data", [b"", b"short\n", b"two words, long enough", b"\xff" * 32])
def test_file_without_a_token_is_refused(tmp_path, data):
    with pytest.raises(UsageError, match=str(tmp_path)):
        read_token(token_file(tmp_path, data))


def test_token_readable_by_everybody_is_refused(tmp_path):
    with pytest.raises(UsageError, match="chmod 600"):
        read_token(token_file(tmp_path, TOKEN.encode(), 0o644))


def test_missing_token_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="none"):
        read_token(tmp_path / "none")

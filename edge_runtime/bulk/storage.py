"""Reads and writes local files and object stores; requests that fail for a moment are repeated.

pyarrow brings S3 and Google Cloud Storage; every other scheme goes through fsspec and the package it names.
"""

import contextlib
import functools
import http.client
import os
import random
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

from pyarrow import NativeFile, fs

from edge_runtime.errors import StorageError, UsageError
from edge_runtime.paths import expand

Result = TypeVar("Result")

TRIES = 7
"""Attempts at one request; the pauses between them add up to about half a minute."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.4, 20.0

TIMEOUT_S = 30.0

GCS = ("gs://", "gcs://")

GCS_RETRIES_S = 5.0
"""How long pyarrow itself repeats a request to Google Cloud Storage; `repeated` does the rest."""

MAX_BYTES = 256 << 20
"""Pictures with more bytes are refused."""

HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that asking again does not change."""

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that ask the client to come back later."""

PARTIAL_AGE_S = 3600.0
"""Temporary files of killed workers are removed after this long."""


def absolute(address: str) -> str:
    """Return an address as it is and a local path as absolute, `~` expanded."""
    return address if "://" in address else os.path.abspath(expand(address))  # noqa: PTH100, resolve follows links


def locate(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address or absolute path, and the path in it.

    Raises:
        UsageError: the scheme is unknown, or its package is missing.
    """
    scheme, found, rest = address.partition("://")
    if not found:
        return fs.LocalFileSystem(), address
    if scheme == "s3":
        return _s3(rest.partition("/")[0]), rest
    if address.startswith(GCS):
        return _gcs(), rest
    import fsspec

    try:
        found_fs = fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{scheme}:// addresses can't be read here ({error}); install that package") from None
    return fs.PyFileSystem(fs.FSSpecHandler(found_fs)), found_fs._strip_protocol(address)


@functools.cache
def _s3(bucket: str) -> fs.FileSystem:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not region and not endpoint:
        region = repeated(lambda: fs.resolve_s3_region(bucket), bucket)
    return fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        # One PUT for a small file, where otherwise each takes three requests.
        allow_delayed_open=True,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


@functools.cache
def _gcs() -> fs.FileSystem:
    limit = timedelta(seconds=GCS_RETRIES_S)
    # The variable that Google's own libraries read; without it pyarrow takes the usual credentials.
    scheme, _, host = os.environ.get("STORAGE_EMULATOR_HOST", "").rpartition("://")
    if not host:
        return fs.GcsFileSystem(retry_time_limit=limit)
    return fs.GcsFileSystem(
        anonymous=True, scheme=scheme or "http", endpoint_override=host.rstrip("/"), retry_time_limit=limit
    )


def repeated(request: Callable[[], Result], name: str) -> Result:
    """Return `request()`, repeated with growing random pauses while the storage fails.

    Raises:
        OSError: one of HOPELESS.
        StorageError: it failed TRIES times.
    """
    for attempt in range(TRIES):
        try:
            return request()
        except HOPELESS:
            raise
        except OSError as error:
            if attempt == TRIES - 1:
                raise StorageError(f"{name}: {error}; run the command again, it continues") from None
        time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))
    raise AssertionError("not reached")


def read_range(address: str, offset: int | None = None, size: int = MAX_BYTES + 1) -> bytes:
    """Return at most `size` bytes from `offset` on, or of a file that is read once; for errors see `repeated`.

    With an `offset` the file stays open for its next range, which saves a request.
    """

    def read() -> bytes:
        if offset is None:
            with _open(address) as file:
                # In Google Cloud Storage, read_at would be a request more.
                return bytes(file.read(min(size, file.size())))
        with _finding:
            kept = _kept_file(address)
        return kept.read(offset, size)

    return repeated(read, address)


def _open(address: str) -> NativeFile:
    system, path = locate(address)
    return system.open_input_file(path)


class _KeptFile:
    """A file that is opened at its first range and stays open until a range can't be read."""

    def __init__(self, address: str) -> None:
        self._address = address
        # Of this file alone: one that takes long to open delays no other.
        self._opening = threading.Lock()
        self._file: NativeFile | None = None

    def read(self, offset: int, size: int) -> bytes:
        return self._ask(lambda file: bytes(file.read_at(min(size, max(0, file.size() - offset)), offset)))

    def size(self) -> int:
        return self._ask(lambda file: int(file.size()))

    def _ask(self, question: Callable[[NativeFile], Result]) -> Result:
        with self._opening:
            if self._file is None:
                self._file = _open(self._address)
            file = self._file
        try:
            return question(file)
        except OSError:
            with self._opening:
                if self._file is file:
                    self._file = None
            raise


_kept_file = functools.lru_cache(maxsize=8)(_KeptFile)

_finding = threading.Lock()


def file_size(address: str) -> int:
    """Return the bytes of a file that is going to be read in ranges; for errors see `repeated`."""
    with _finding:
        kept = _kept_file(address)
    return repeated(kept.size, address)


def fetch(url: str) -> bytes:
    """Return what an http(s) address answers; for errors see `repeated`."""

    def ask() -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": "judge-pictures"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                data: bytes = response.read(MAX_BYTES + 1)
                return data
        except urllib.error.HTTPError as error:
            if error.code in BUSY:
                raise OSError(f"answers {error.code} {error.reason}") from None
            gone = FileNotFoundError if error.code in (404, 410) else PermissionError
            raise gone(f"answers {error.code} {error.reason}") from None
        except (ValueError, http.client.HTTPException) as error:
            raise OSError(f"can't be read ({error})") from None

    return repeated(ask, url)


def names_below(address: str) -> dict[str, int]:
    """Return size by name of the files directly in a folder or below a prefix; empty if it does not exist."""
    system, path = locate(address)
    found = repeated(lambda: system.get_file_info(fs.FileSelector(path, allow_not_found=True)), address)
    return {info.base_name: info.size for info in found if info.type == fs.FileType.File}


def files_below(address: str) -> Iterator[str]:
    """Yield the addresses of all files below a prefix, sorted within each folder. One folder is held in memory, of
    Google Cloud Storage all of them. A prefix that does not exist has none, nor has a missing bucket there.

    Raises:
        UsageError: the bucket does not exist, or may not be listed.
        StorageError: it can't be reached.
    """
    system, path = locate(address)
    prefix = address[: len(address) - len(path)] if address.endswith(path) else address.partition("://")[0] + "://"
    # pyarrow's GcsFileSystem shows a folder only if an object stands for it, which uploads do not make.
    recursive = address.startswith(GCS)
    pending = [path]
    while pending:
        selected = fs.FileSelector(pending.pop(), recursive=recursive, allow_not_found=True)
        try:
            infos = repeated(functools.partial(system.get_file_info, selected), address)
        except HOPELESS as error:
            why = "not allowed; check your login" if isinstance(error, PermissionError) else "not found; check the name"
            raise UsageError(f"{address}: {why}") from None
        if not recursive:
            pending += sorted((info.path for info in infos if info.type == fs.FileType.Directory), reverse=True)
        yield from sorted(prefix + info.path for info in infos if info.type == fs.FileType.File)


def write_whole(folder: str, name: str, data: bytes) -> None:
    """Write a file that appears whole or not at all: renamed into place, or one PUT.

    Several writers of one name do not disturb each other; the last one stays.
    """
    system, path = locate(folder)
    if "://" in folder:

        def put() -> None:
            # Nothing is stored before close, and no request is split below 5 MB.
            with system.open_output_stream(f"{path}/{name}", buffer_size=len(data) + 1) as file:
                file.write(data)

        try:
            repeated(put, f"{folder}/{name}")
        except HOPELESS as error:
            raise StorageError(f"{folder}: can't be written ({error}); check the name and your login") from None
        return
    partial = os.path.join(folder, f".{uuid.uuid4().hex}.partial")  # noqa: PTH118
    try:
        with open(partial, "xb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, os.path.join(folder, name))  # noqa: PTH105, PTH118
    except OSError as error:
        raise StorageError(f"{folder}: can't be written ({error.strerror}); make room and run it again") from None


def prepare_folder(folder: str) -> None:
    """Make the output folder, and remove old temporary files of killed workers; check that the bucket exists.

    Raises:
        UsageError: the folder can't be created, or the bucket does not exist.
    """
    if folder.startswith(("s3://", *GCS)):
        system, path = locate(folder)
        bucket, found = path.partition("/")[0], fs.FileType.Unknown
        # Credentials limited to a prefix can't query the bucket.
        with contextlib.suppress(OSError):
            found = system.get_file_info(bucket).type
        if found == fs.FileType.NotFound:
            raise UsageError(f"{folder}: bucket {bucket} does not exist; create it, or check the name")
    if "://" in folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        for entry in os.scandir(folder):
            if entry.name.endswith(".partial") and time.time() - entry.stat().st_mtime > PARTIAL_AGE_S:
                os.unlink(entry.path)  # noqa: PTH108
    except OSError as error:
        raise UsageError(f"{folder}: can't be used ({error.strerror}); choose another folder for --out") from None

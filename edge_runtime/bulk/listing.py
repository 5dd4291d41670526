"""What the user named, as one entry for each picture: folders, lists, tar shards, Parquet files, addresses."""

import contextlib
import io
import itertools
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.storage import absolute, file_size, files_below, locate, read_range, repeated
from edge_runtime.errors import DataError, EdgeError, StorageError, UsageError
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.sources import Gap
from edge_runtime.sources.files import pictures_below

LISTS = frozenset({".txt", ".lst", ".list"})

SHARDS = frozenset({".tar", ".parquet"})

PATH_COLUMNS = ("path", "file", "filename", "file_name", "url", "picture", "image", "image_path")
"""Names of Parquet columns that are taken for paths or addresses."""

BLOCK = 8 << 20
"""Bytes read at once of a shard in an object store."""


def entries_of(inputs: Iterable[str], column: str | None = None) -> Iterator[Entry]:
    """Yield an entry for each picture in `inputs`; what can't be listed yields an entry with its error.

    Args:
        inputs: pictures, folders, list files, tar shards, Parquet files, as paths or addresses. `{00..09}` in a name
            stands for ten names, as in WebDataset.
        column: of Parquet files, the one with bytes, paths or addresses; None finds it by type and name.

    Raises:
        UsageError: an input does not exist, or there are no pictures below an address.
        DataError: a Parquet file has no such column, or a list holds lists.
    """
    for given in inputs:
        for name in expand_braces(given):
            yield from _named(name, column)


def expand_braces(name: str) -> Iterator[str]:
    """Yield the names that a pattern with `{000..123}` stands for, or the name itself."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if not found:
        yield name
        return
    first, last = found[1], found[2]
    for number in range(int(first), int(last) + 1):
        yield from expand_braces(f"{name[: found.start()]}{number:0{len(first)}}{name[found.end() :]}")


def _named(name: str, column: str | None) -> Iterator[Entry]:
    address, suffix = absolute(name), _suffix(name)
    if suffix in LISTS:
        yield from _list(address, column)
    elif suffix in SHARDS or suffix in SUFFIXES or address.startswith(("http://", "https://")):
        if "://" not in address and not os.path.exists(address):  # noqa: PTH110
            raise UsageError(f"{name}: not found; give pictures, folders, lists, .tar or .parquet files")
        yield from _file(address, column)
    elif "://" in address:
        below = (found for found in files_below(address) if _suffix(found) in SUFFIXES | SHARDS)
        first = next(below, None)
        # Object stores have no folders, so a mistyped one is only empty.
        if first is None:
            raise UsageError(f"{name}: no pictures in it; check the name")
        for found in itertools.chain([first], below):
            yield from _file(found, column)
    elif Path(address).is_dir():
        for path in pictures_below(Path(address), suffixes=SUFFIXES | SHARDS):
            if isinstance(path, Gap):
                yield Entry(path.source, error=path.error)
            else:
                yield from _file(str(path), column)
    else:
        raise UsageError(f"{name}: not found, or not a folder, list, .tar, .parquet or picture; check the name")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122, addresses are no paths


def _file(address: str, column: str | None) -> Iterator[Entry]:
    suffix = _suffix(address)
    if suffix == ".tar":
        return _tar(address)
    return _parquet(address, column) if suffix == ".parquet" else iter([Entry(address)])


def _list(address: str, column: str | None) -> Iterator[Entry]:
    """Yield what the lines of a list file name; empty lines are skipped."""
    try:
        system, path = locate(address)
        with system.open_input_stream(path) as stream:
            for line in io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="\n"):
                entry = Entry.from_line(line.rstrip("\r\n"))
                if not entry.path.strip():
                    continue
                if _suffix(entry.path) in LISTS:
                    raise DataError(f"{address}: names another list, {entry.path}; give both on the command line")
                bare = entry == Entry(entry.path)
                for name in expand_braces(entry.path) if bare else ():
                    yield from _file(absolute(name), column)
                if not bare:
                    yield entry
    except OSError as error:
        raise UsageError(f"{address}: can't be read ({error}); give a list with one picture per line") from None


def _tar(address: str) -> Iterator[Entry]:
    """Yield the pictures of a tar shard with their places in it, and an error where it is cut off."""
    try:
        with contextlib.ExitStack() as stack:
            # Local: headers alone are read. In an object store: blocks, since a request for each header takes longer.
            remote = "://" in address
            size = file_size(address) if remote else Path(address).stat().st_size
            file = _Blocks(address, size) if remote else stack.enter_context(Path(address).open("rb"))
            with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
                end = 0
                while (member := tar.next()) is not None:
                    # tarfile keeps all members otherwise.
                    tar.members = []
                    end = member.offset_data + member.size
                    if member.isreg() and not member.issparse() and _suffix(member.name) in SUFFIXES:
                        yield Entry(address, member=member.name, offset=member.offset_data, size=member.size)
                if end > size or tar.offset + 512 > size:
                    yield Entry(address, error="the shard is cut off; copy it again")
    except StorageError:
        # It may be read again later, so no row may say that it can't.
        raise
    except (OSError, tarfile.TarError, EdgeError) as error:
        yield Entry(address, error=f"the shard can't be read ({error})")


class _Blocks:
    """A file object that reads blocks of BLOCK bytes and keeps the last one."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size, self._at, self._start, self._block = address, size, 0, 0, b""

    def tell(self) -> int:
        return self._at

    def seek(self, at: int, whence: int = 0) -> int:
        self._at = at + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = self._size - self._at if size < 0 else size
        if not self._start <= self._at <= self._at + size <= self._start + len(self._block):
            self._start = self._at
            wanted = min(max(size, BLOCK), max(0, self._size - self._at))
            self._block = read_range(self._address, self._at, wanted)
        start = self._at - self._start
        data = self._block[start : start + size]
        self._at += len(data)
        return data


def _parquet(address: str, column: str | None) -> Iterator[Entry]:
    """Yield the rows with bytes, or what the column of paths names."""
    try:
        system, path = locate(address)

        def opened() -> pq.ParquetFile:
            return pq.ParquetFile(system.open_input_file(path))

        with repeated(opened, address) if "://" in address else opened() as table:
            name, binary = picture_column(table.schema_arrow, column, address)
            if binary:
                for row in range(table.metadata.num_rows):
                    yield Entry(address, row=row, column=name)
                return
            number = 0
            for batch in table.iter_batches(batch_size=10_000, columns=[name]):
                for value in batch.column(0).to_pylist():
                    yield Entry(absolute(value)) if value else Entry(address, row=number, error="the row is empty")
                    number += 1
    # A broken file fails like a broken connection.
    except (OSError, StorageError, pa.ArrowException) as error:
        yield Entry(address, error=f"the Parquet file can't be read ({error})")


def picture_column(schema: pa.Schema, column: str | None, address: str) -> tuple[str, bool]:
    """Return the column with the pictures, `a.b` for a field of a struct, and whether it holds bytes.

    Raises:
        DataError: there is none.
    """
    flat: dict[str, pa.DataType] = {}
    for field in schema:
        flat[field.name] = field.type
        if pa.types.is_struct(field.type):
            flat |= {f"{field.name}.{inner.name}": inner.type for inner in field.type}
    names = [name for name in flat if column is None or name == column or name.startswith(f"{column}.")]
    for name in names:
        if pa.types.is_binary(flat[name]) or pa.types.is_large_binary(flat[name]):
            return name, True
    for name in names:
        text = pa.types.is_string(flat[name]) or pa.types.is_large_string(flat[name])
        if text and (name == column or name.lower() in PATH_COLUMNS):
            return name, False
    raise DataError(
        f"{address}: no column {column or 'of bytes or paths'} (it has {', '.join(flat)}); give --column NAME"
    )

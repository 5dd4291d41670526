"""Judges one part and writes its Parquet file: what a worker does, whichever engine runs it."""

import bisect
import functools
import itertools
import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.parts import Job, Part
from edge_runtime.bulk.rows import Counts, Rows, Unreadable
from edge_runtime.bulk.storage import HOPELESS, MAX_BYTES, fetch, locate, read_range, repeated, write_whole
from edge_runtime.detector import Detector
from edge_runtime.errors import BundleError, EdgeError, LargePictureError, PictureError, StorageError
from edge_runtime.model.bundle import MANIFEST, Bundle, sha256
from edge_runtime.pixels.file_types import HEAD_BYTES, Content, file_type, file_type_of
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.quality import QualityLimits
from edge_runtime.sources import Frame, Source

FETCHERS = 16
"""Requests to object stores and web servers that a worker has open at once."""

AHEAD = 64
"""Pictures read ahead at most."""

ROWS_AT_ONCE = 16
"""Rows of a Parquet file that are in memory."""


@dataclass(frozen=True)
class Outcome:
    """How a part ended: with its counts, or with an error. A fatal error ends the whole run."""

    number: int
    counts: Counts | None = None
    error: str | None = None
    fatal: bool = False


class UnreadableError(PictureError):
    """A picture can't be read, and its kind is known."""

    def __init__(self, reason: str, name: str, kind: Unreadable) -> None:
        super().__init__(reason, name)
        self.kind = kind


class Entries(Source):
    """The pictures of a part, read ahead where they come over a network.

    Attributes:
        kinds: why a picture can't be read, by its number in the part.
        failure: the storage keeps failing, so the part can't be judged now; else None.
    """

    name, still = "part", True

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.kinds: dict[int, Unreadable] = {}
        self.failure: EdgeError | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield every picture, in order."""
        tables = _Tables()
        waiting: deque[Frame] = deque()
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
            for index, entry in enumerate(self.entries):
                data: Future[bytes] | None = None
                if entry.row is not None and entry.error is None:
                    data = Future()
                    try:
                        data.set_result(tables.read(entry))
                    except (OSError, EdgeError) as error:
                        data.set_exception(error)
                elif entry.error is None and (entry.remote or entry.offset is not None):
                    data = pool.submit(_read, entry)
                load = functools.partial(self._load, index, entry, data)
                waiting.append(Frame(entry.path, index, load, still=True))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft()
                if stop.is_set():
                    pool.shutdown(cancel_futures=True)
                    return
            yield from waiting

    def _load(self, index: int, entry: Entry, data: Future[bytes] | None) -> Image.Image:
        name = entry.path if entry.name is None else f"{entry.path}: {entry.name}"
        try:
            return _picture(entry, name, data)
        except StorageError as error:
            self.failure = error
            raise PictureError(str(error)) from None
        except UnreadableError as error:
            self.kinds[index] = error.kind
            raise
        except PictureError as error:
            self.kinds[index] = _kind(error, entry, data)
            raise


def _picture(entry: Entry, name: str, data: Future[bytes] | None) -> Image.Image:
    if entry.error is not None:
        raise UnreadableError(entry.error, name, Unreadable.NOT_LISTED)
    if data is None:
        return read_picture(entry.path)
    try:
        picture = data.result()
    except StorageError as error:
        # One web server that is down is one picture that can't be read; an object store that is down is no result.
        if entry.path.startswith(("http://", "https://")):
            raise UnreadableError(str(error), name, Unreadable.UNREACHABLE) from None
        raise
    except HOPELESS as error:
        denied = isinstance(error, PermissionError)
        raise UnreadableError(f"{error}", name, Unreadable.DENIED if denied else Unreadable.MISSING) from None
    if len(picture) > MAX_BYTES:
        raise UnreadableError(f"over {MAX_BYTES >> 20} MB", name, Unreadable.TOO_LARGE)
    try:
        return read_picture(picture)
    except PictureError as error:
        raise type(error)(error.reason, name) from None


def _kind(error: PictureError, entry: Entry, data: Future[bytes] | None) -> Unreadable:
    """Return why a picture could not be decoded."""
    if isinstance(error, LargePictureError):
        return Unreadable.TOO_LARGE
    try:
        found = file_type(Path(entry.path)) if data is None else file_type_of(data.result()[:HEAD_BYTES])
    except FileNotFoundError:
        return Unreadable.MISSING
    except PermissionError:
        return Unreadable.DENIED
    except (OSError, ValueError):
        return Unreadable.NOT_A_PICTURE
    return Unreadable.BROKEN if found.content is Content.PICTURE else Unreadable.NOT_A_PICTURE


def _read(entry: Entry) -> bytes:
    if entry.path.startswith(("http://", "https://")) and entry.offset is None:
        return fetch(entry.path)
    size = MAX_BYTES + 1 if entry.size is None else min(entry.size, MAX_BYTES + 1)
    return read_range(entry.path, entry.offset, size)


class _Tables:
    """Reads rows of Parquet files that are asked for in order, a few rows at once."""

    def __init__(self) -> None:
        self._key: tuple[str, str | None, int] | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next, self._values = 0, list[bytes | None]()
        self._table: pq.ParquetFile | None = None
        self._path, self._starts = "", list[int]()

    def read(self, entry: Entry) -> bytes:
        assert entry.row is not None
        try:
            return repeated(functools.partial(self._row_or_anew, entry), entry.path)
        except (pa.ArrowException, IndexError) as error:
            self._key = None
            raise UnreadableError(f"can't be read ({error})", entry.path, Unreadable.BROKEN) from None

    def _row_or_anew(self, entry: Entry) -> bytes:
        try:
            return self._row(entry)
        except OSError:
            # pyarrow's iterator is at its end now, and the file may be broken: the next try opens it again.
            self._key = self._table = None
            raise

    def _row(self, entry: Entry) -> bytes:
        row = entry.row or 0
        if self._table is None or self._path != entry.path:
            system, path = locate(entry.path)
            self._table, self._path, self._key = pq.ParquetFile(system.open_input_file(path)), entry.path, None
            metadata = self._table.metadata
            sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
            self._starts = list(itertools.accumulate(sizes, initial=0))
        group = bisect.bisect_right(self._starts, row) - 1
        first = self._starts[group]
        key = (entry.path, entry.column, group)
        if key != self._key or row < self._next - len(self._values):
            self._batches = self._table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[entry.column])
            self._key, self._next, self._values = key, first, []
        while row >= self._next:
            column = next(self._batches).column(0)
            while pa.types.is_struct(column.type):
                column = column.field(0)
            self._values = column.to_pylist()
            self._next += len(self._values)
        value = self._values[row - self._next]
        if not isinstance(value, bytes):
            raise UnreadableError("the row is empty", f"{entry.path}: {row}", Unreadable.MISSING)
        return value


class PartWorker:
    """Judges parts with one detector, which is loaded with the first of them."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @functools.cached_property
    def _detector(self) -> Detector:
        job, settings = self._job, self._job.settings
        bundle = Bundle.open(job.bundle)
        if sha256(bundle.path / MANIFEST) != job.model_sha256:
            raise BundleError(f"{job.bundle}: is another model on this machine; copy the same bundle to all of them")
        return Detector(
            bundle,
            device=settings.device,
            precision=settings.precision,
            faces=settings.faces,
            limits=QualityLimits(min_face=settings.min_face),
            careful=settings.careful,
            threads=job.threads,
        )

    def judge(self, part: Part) -> Outcome:
        """Judge a part and write its file; errors come back in the outcome."""
        try:
            detector = self._detector
        except EdgeError as error:
            return Outcome(part.number, error=str(error), fatal=True)
        try:
            rows = judged_rows(detector, [Entry.from_line(line) for line in part.lines])
            metadata = {
                "model": self._job.model,
                "model_sha256": self._job.model_sha256,
                "list_sha256": part.list_sha256,
                "settings": json.dumps(asdict(self._job.settings)),
                "device": detector.choice.device,
                "precision": detector.choice.precision.value,
                "notice": detector.notice or "",
            }
            write_whole(self._job.out, self._job.file_name(part.list_sha256), rows.parquet(metadata))
        except EdgeError as error:
            return Outcome(part.number, error=str(error))
        # One part that fails in any other way must not end the others.
        except Exception as error:
            return Outcome(part.number, error=f"{type(error).__name__}: {error}")
        return Outcome(part.number, rows.counts)


def judged_rows(detector: Detector, entries: list[Entry]) -> Rows:
    """Judge `entries` and return their rows.

    Raises:
        StorageError: an object store keeps failing.
        DeviceError: the device failed.
    """
    source, rows = Entries(entries), Rows()
    pipeline = detector.pipeline([source])
    for judged in pipeline.results():
        if source.failure is not None:
            pipeline.stop()
        elif not judged.still:
            # The source itself broke off.
            raise StorageError(judged.result.error or "the part can't be read further")
        else:
            rows.add(entries[judged.result.frame], judged.result, source.kinds.get(judged.result.frame))
    if source.failure is not None:
        raise source.failure
    return rows

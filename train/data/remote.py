"""Data sets by address, fetched into the cache: hf://datasets/user/name@revision, kaggle://owner/name, s3://bucket/shards."""

import fcntl
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.atomic import atomic_write, write_atomic
from edge_runtime.errors import SourceError, UsageError
from edge_runtime.model.hub import hub_address, pull_files
from edge_runtime.paths import cache_folder
from edge_runtime.printable import printable
from train.data.catalog import CATALOG
from train.data.packed import unpacked
from train.parallel import progress_bar

BLOCK = 32 << 20
"""Bytes of a shard in one request."""

_KAGGLE = re.compile(r"kaggle:/{1,2}([\w-]+)/([\w-]+)(?:@(\d+))?/?")


def fetched(place: Path, *, labelled: bool = True) -> Path:
    """Return the folder of a data set, fetched if `place` is an address; another path stays as it is.

    The folder has the data set's name, which becomes the name of its source. Parquet files and tar shards are unpacked;
    `labelled` says whether into real/ and fake/.

    Raises:
        DataError: a Parquet file or shard can't be read, or does not say what is real and what is fake.
        SourceError: it is not there, or can't be reached.
        UsageError: it isn't an address, or the package for it is missing.
    """
    if address := hub_address(place):
        if not address.is_dataset:
            raise UsageError(f"{address}: a model; give hf://datasets/user/name")
        owner, name = address.name.split("/")
        folder = pull_files(address, folder=_folder("hf", owner, address.revision, name))
        return unpacked(folder, labelled=labelled)
    if store := re.fullmatch(r"(s3|gs|gcs):/{1,2}(.+)", str(place)):
        return _from_store(f"{store[1]}://{store[2].rstrip('/')}")
    if not str(place).startswith("kaggle:/"):
        return place
    found = _KAGGLE.fullmatch(str(place))
    if not found:
        raise UsageError(f"{place}: not an address; give kaggle://owner/name or kaggle://owner/name@version")
    return unpacked(_from_kaggle(found[1], found[2], found[3]), labelled=labelled)


def _folder(*parts: str) -> Path:
    return cache_folder().joinpath("datasets", *(part.replace("/", "_") for part in parts))


def _from_store(address: str) -> Path:
    """Fetch the shards that `prepare-faces --shards` wrote, once for all processes of this machine."""
    try:
        from edge_runtime.bulk.storage import names_below, read_range
    except ImportError:
        raise UsageError(f"{address}: needs pyarrow; run pip install pyarrow fsspec aiohttp") from None

    def blocks(name: str) -> Iterator[bytes]:
        return (read_range(f"{address}/{name}", at, BLOCK) for at in range(0, sizes[name], BLOCK))

    try:
        sizes = names_below(address)
        catalog = b"".join(blocks(CATALOG)) if CATALOG in sizes else b""
    except OSError as error:
        raise SourceError(f"{address}: {error}; check name and credentials") from None
    if CATALOG not in sizes:
        raise SourceError(f"{address}: holds no {CATALOG}; copy all that prepare-faces --shards wrote there")
    folder = _folder("shards", hashlib.sha256(address.encode() + catalog).hexdigest()[:16])
    shards = sorted(name for name in sizes if name.endswith(".tar"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock, progress_bar("fetching shards", len(shards)) as advance:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in shards:
                path = folder / name
                if not path.exists() or path.stat().st_size != sizes[name]:
                    with atomic_write(path, "wb") as file:
                        file.writelines(blocks(name))
                advance(1)
            write_atomic(folder / CATALOG, catalog)
    except OSError as error:
        raise SourceError(f"{address}: can't be fetched into {folder} ({error.strerror or error})") from None
    return folder


def _from_kaggle(owner: str, name: str, version: str | None) -> Path:
    address = f"kaggle://{owner}/{name}{f'@{version}' if version else ''}"
    try:
        import kagglehub
    except ImportError:
        needed = "run pip install kagglehub" if sys.version_info >= (3, 11) else "it needs Python 3.11 or newer"
        raise UsageError(f"{address}: needs kagglehub; {needed}") from None
    handle, folder = f"{owner}/{name}", _folder("kaggle", owner, version or "latest", name)
    try:
        kagglehub.dataset_download(f"{handle}/versions/{version}" if version else handle, output_dir=str(folder))
    except FileExistsError:
        raise SourceError(f"{address}: {folder} holds a part or another version of it; remove that folder") from None
    # The package raises its own errors, those of requests and those of archives.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"{address}: {printable(lines[0])}; check name, network and Kaggle login") from None
    return folder

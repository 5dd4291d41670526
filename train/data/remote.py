"""Data sets by address: hf://datasets/user/name@revision and kaggle://owner/name, fetched into the cache."""

import re
import sys
from pathlib import Path

from edge_runtime.errors import SourceError, UsageError
from edge_runtime.model.hub import hub_address, pull_files
from edge_runtime.paths import cache_folder
from edge_runtime.printable import printable
from train.data.packed import unpacked

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
    if not str(place).startswith("kaggle:/"):
        return place
    found = _KAGGLE.fullmatch(str(place))
    if not found:
        raise UsageError(f"{place}: not an address; give kaggle://owner/name or kaggle://owner/name@version")
    return unpacked(_from_kaggle(found[1], found[2], found[3]), labelled=labelled)


def _folder(*parts: str) -> Path:
    return cache_folder().joinpath("datasets", *(part.replace("/", "_") for part in parts))


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

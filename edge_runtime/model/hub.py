"""Repositories of the Hugging Face Hub, by addresses like hf://user/name@revision (extra `hub`)."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import SourceError, UsageError
from edge_runtime.paths import cache_folder
from edge_runtime.printable import printable

_ADDRESS = re.compile(r"hf:/{1,2}(datasets/)?([\w-][\w.-]*/[\w-][\w.-]*?)(?:@([\w-][\w./-]*))?/?")
"""With one slash it is an address that went through a Path."""


@dataclass(frozen=True)
class HubAddress:
    """A repository and a branch, tag or commit of it."""

    name: str
    revision: str = "main"
    is_dataset: bool = False

    def __str__(self) -> str:
        return f"hf://{'datasets/' * self.is_dataset}{self.name}@{self.revision}"


def hub_address(text: object) -> HubAddress | None:
    """Return the address in `text`; None if it does not begin like one.

    Raises:
        UsageError: it begins like one and isn't.
    """
    if not str(text).startswith("hf:/"):
        return None
    found = _ADDRESS.fullmatch(str(text))
    if not found or ".." in str(text):
        raise UsageError(f"{text}: not an address; give hf://user/name or hf://user/name@revision")
    return HubAddress(found[2], found[3] or "main", bool(found[1]))


def hub_library() -> Any:
    """Return the package `huggingface_hub`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UsageError("hf:// needs huggingface_hub; run pip install huggingface_hub") from None
    return huggingface_hub


def pull_file(address: HubAddress, name: str) -> Path:
    """Return a file of a repository of bundles, from the cache if it is there; its folder is named by the commit.

    Raises:
        SourceError: it is not there, or the hub can't be reached.
    """
    with hub_errors(address):
        return Path(
            hub_library().hf_hub_download(
                address.name, name, revision=address.revision, cache_dir=cache_folder() / "hub"
            )
        )


def pull_files(address: HubAddress, names: Iterable[str] | None = None, folder: Path | None = None) -> Path:
    """Return the folder of a repository, with all files or `names`, in the cache or in `folder`.

    Raises:
        SourceError: it is not there, or the hub can't be reached.
    """
    where: dict[str, Any] = {"local_dir": folder} if folder else {"cache_dir": cache_folder() / "hub"}
    with hub_errors(address):
        return Path(
            hub_library().snapshot_download(
                address.name,
                repo_type="dataset" if address.is_dataset else "model",
                revision=address.revision,
                allow_patterns=None if names is None else list(names),
                **where,
            )
        )


@contextlib.contextmanager
def hub_errors(address: HubAddress) -> Iterator[None]:
    """Turn the library's errors into one line.

    Raises:
        SourceError: the repository is not there, can't be reached or refuses.
    """
    errors = hub_library().errors
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        advice = "check name and revision; for a private one run hf auth login, or set HF_TOKEN"
        raise SourceError(f"{address}: not found, or not allowed; {advice}") from None
    except errors.LocalEntryNotFoundError:
        raise SourceError(f"{address}: the hub can't be reached, and it is not in the cache; try again") from None
    except errors.EntryNotFoundError:
        raise SourceError(f"{address}: holds no bundle (no model.json in it); check the name") from None
    # KeyError: an answer that is not the hub's.
    except (OSError, ValueError, KeyError, errors.HfHubHTTPError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"{address}: {printable(lines[0])}; try again") from None

"""The bundle: a folder with a model's contract, its networks by precision, and the SHA-256 of every file."""

import hashlib
import importlib.metadata
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edge_runtime.errors import BundleError, MissingBundleError
from edge_runtime.model.contract import ModelContract, Precision
from edge_runtime.model.hub import HubAddress, hub_address, pull_file, pull_files
from edge_runtime.model.trust import BUNDLE_SIGNATURE, keys_folder, require_signature
from edge_runtime.paths import expand

MANIFEST = "model.json"
MODEL_VARIABLE = "DEEPFAKE_EDGE_MODEL"
INSTALLED = Path("/var/lib/deepfake-edge/current")
SHIPPED = Path(__file__).parents[1] / "detectors"
"""The folder of bundles that come with the package; it may be absent."""

AGAIN = "export or copy the bundle again"


@dataclass(frozen=True)
class Manifest:
    """What `model.json` says.

    Attributes:
        contract: what the model is.
        files: SHA-256 (hexadecimal) of every other file, by its path in the bundle with forward slashes.
        tools: versions of the tools that made the bundle, by name.
        parity: differences that export measured from one stage to the next.
        created: ISO 8601, UTC.
        name: the bundle's name.
        trained_on: names of the `sources` of its real faces and of the `generators` of its fake ones, where stated.
    """

    contract: ModelContract
    files: Mapping[str, str]
    tools: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    name: str = "detector"
    trained_on: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of `model.json`."""
        values = {
            "contract": self.contract.to_dict(),
            "files": dict(sorted(self.files.items())),
            "tools": dict(self.tools),
            "parity": dict(self.parity),
            "created": self.created,
            "name": self.name,
            "trained_on": dict(self.trained_on),
        }
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what `to_json` wrote.

        Raises:
            BundleError: it isn't JSON, a part is missing or of the wrong type, or a file name points outside the
                bundle.
            ContractError: the contract can't be read.
        """
        try:
            values = json.loads(text)
            contract, files = values["contract"], values["files"]
            parts = {key: values[key] for key in ("tools", "parity", "created", "name", "trained_on") if key in values}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"{MANIFEST} can't be read ({error!r}); {AGAIN}") from None
        manifest = cls(ModelContract.from_dict(contract), files, **parts)
        trained_on, texts = manifest.trained_on, [manifest.name, manifest.created]
        typed = all(isinstance(part, dict) for part in (manifest.files, manifest.tools, manifest.parity, trained_on))
        if typed := typed and all(isinstance(names, list) for names in trained_on.values()):
            texts += itertools.chain(*trained_on.values())
        if not typed or not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise BundleError(f"{MANIFEST} can't be read (a part has the wrong type); {AGAIN}")
        for name, digest in manifest.files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not name:
                raise BundleError(f"{MANIFEST} names {name!r}, which is outside the bundle; don't use this bundle")
            if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise BundleError(f"{MANIFEST} has no SHA-256 for {name!r}; {AGAIN}")
        return manifest


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Files are checked when they are asked for, so that a start reads only what it loads."""

    path: Path
    manifest: Manifest
    address: str = ""
    """On the hub, with its commit; empty for a folder."""
    signed: str = ""
    """Who signed it, or that it is unsigned; empty if it was not checked, as for an installed one."""

    @classmethod
    def open(cls, path: Path | str, *, trusted: bool = False) -> "Bundle":
        """Open the bundle in folder `path`, or at an address hf://user/name@revision, and read its manifest.

        Args:
            path: the folder or address.
            trusted: where keys are set up, refuse a folder without a signature by one of them, unless it was installed
                from a kit or comes with this package. A bundle from the hub is always checked.

        Raises:
            BundleError: there is none, its manifest can't be read, or its signature is refused.
            SourceError, UsageError: it can't be pulled from the hub.
        """
        if address := hub_address(path):
            return cls._pulled(address)
        folder = expand(path)
        bundle, data = cls._read(folder)
        if not trusted or bundle.shipped or INSTALLED.parent in bundle.path.parents:
            return bundle
        return replace(bundle, signed=require_signature(bundle.path, data, str(folder)))

    @classmethod
    def _read(cls, folder: Path) -> tuple["Bundle", bytes]:
        """Return the bundle in `folder` and the content of its manifest."""
        # If `folder` is a link that is switched to another version, this bundle stays whole.
        real = folder.resolve()
        try:
            data = (real / MANIFEST).read_bytes()
            return cls(real, Manifest.from_json(data.decode())), data
        except BundleError as error:
            raise type(error)(f"{folder}: {error}") from None
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(f"{folder}: no bundle (no {MANIFEST} in it); make one with export-openvino") from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder}/{MANIFEST}: can't be read ({error})") from None

    @classmethod
    def _pulled(cls, address: HubAddress) -> "Bundle":
        """Return a bundle of the hub, whose files are checked when they are pulled into the cache."""
        folder = pull_file(address, MANIFEST).parent
        commit = replace(address, revision=folder.name)
        bundle, data = cls._read(folder)
        files = bundle.manifest.files
        missing = not all((folder / name).exists() for name in files)
        # A cache from before may lack the signature.
        if missing or (keys_folder() and not (folder / BUNDLE_SIGNATURE).exists()):
            pull_files(commit, [*files, BUNDLE_SIGNATURE])
        signed = require_signature(folder, data, str(commit))
        if missing:
            bundle.check()
        return replace(bundle, address=str(commit), signed=signed)

    @property
    def shipped(self) -> bool:
        """Whether it comes with the package."""
        return self.path.parent == SHIPPED

    @property
    def origin(self) -> str:
        """The bundle's folder or address, or that it comes with the package; named in every command's output."""
        if not self.shipped:
            return f"{self.address or self.path}{', ' * bool(self.signed)}{self.signed}"
        return f"{self.path.name}, shipped with deepfake-edge {importlib.metadata.version('deepfake-edge')}"

    @property
    def contract(self) -> ModelContract:
        """What the model is."""
        return self.manifest.contract

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in the bundle."""
        return tuple(p for p in Precision if f"{p.value}/model.xml" in self.manifest.files)

    def model(self, precision: Precision | str) -> Path:
        """Check the files of the network of `precision`, and return its path.

        Raises:
            BundleError: the bundle has no such precision, or a file is missing or changed.
        """
        name = Precision(precision).value
        if f"{name}/model.xml" not in self.manifest.files:
            has = ", ".join(p.value for p in self.precisions) or "none"
            raise BundleError(f"{self.path}: holds no {name} (it holds {has}); choose one of these or export it again")
        return self.file(f"{name}/model.xml", f"{name}/model.bin")

    def file(self, name: str, *beside: str) -> Path:
        """Check file `name` and those `beside` it against their SHA-256, and return the path of `name`."""
        self.check((name, *beside))
        return self.path / name

    def check(self, names: Iterable[str] | None = None) -> None:
        """Check `names`, or every file of the bundle, against their SHA-256.

        Raises:
            BundleError: one is missing or changed.
        """
        for name in self.manifest.files if names is None else names:
            expected = self.manifest.files.get(name)
            if expected is None:
                raise BundleError(f"{self.path}: {name} is not in its {MANIFEST}; {AGAIN}")
            if sha256(self.path / name) != expected:
                raise BundleError(f"{self.path}: {name} was changed; {AGAIN}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        BundleError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error}); {AGAIN}") from None


def find_bundle(model: Path | str | None = None) -> Bundle:
    """Open the bundle to use: `model`, `$DEEPFAKE_EDGE_MODEL`, `./detector`, the installed one, then the shipped one.

    Raises:
        BundleError: none of them exists, or the first one found can't be used or is not trusted here.
    """
    named = model or os.environ.get(MODEL_VARIABLE)
    if named:
        return Bundle.open(named, trusted=True)
    for folder in (Path("detector"), INSTALLED, *sorted(SHIPPED.glob("*"))):
        if (folder / MANIFEST).exists():
            return Bundle.open(folder, trusted=True)
    raise MissingBundleError(
        f"no bundle found: looked at --model, ${MODEL_VARIABLE}, ./detector and {INSTALLED}, and none is shipped; "
        "make one with export-openvino or give --model"
    )

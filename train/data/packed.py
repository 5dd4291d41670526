"""Data sets of a hub whose pictures lie in Parquet files or tar shards, unpacked into folders real/ and fake/."""

import fcntl
import hashlib
import itertools
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edge_runtime.errors import DataError, SourceError, UsageError
from edge_runtime.model.contract import LABELS
from edge_runtime.model.hub import hub_library
from edge_runtime.pixels.file_types import HEAD_BYTES, SUFFIXES, Content, file_type_of
from edge_runtime.printable import printable
from train.data.catalog import CATALOG, COLUMNS, IN_SHARD
from train.data.layouts import SPLIT, SPLIT_FOLDERS, list_faces
from train.data.scan import stamp, walk_files

MEANINGS = (
    frozenset({"real", "human", "authentic", "genuine", "original", "natural", "pristine"}),
    frozenset({"fake", "ai", "generated", "synthetic", "artificial", "deepfake", "manipulated", "fakes", "aigc"}),
)
"""Words in the name of a class that make it real, or fake."""

LABEL_COLUMNS = ("label", "labels", "class", "target", "cls")
"""Columns that are taken for labels where no declared classes are real and fake."""

PREFERRED = ("jpg", "jpeg", "png", "webp")
"""Suffixes by which the picture of a WebDataset sample is chosen, after those without a second part."""

ROWS_AT_ONCE = 64

Names = Mapping[str, Sequence[str]]
"""Names of the classes by column."""


def unpacked(folder: Path, *, labelled: bool = True) -> Path:
    """Return a folder of the same name with the pictures in the Parquet files and tar shards of `folder`.

    They lie in real/ and fake/, below train/, valid/ and test/ if the files' names tell more than one of these apart.
    A folder that has neither Parquet files nor shards, or the catalog of its shards, or pictures of its own, is
    returned as it is. Unpacked once, beside `folder`.

    Args:
        folder: of the data set, as it was fetched.
        labelled: False unpacks all pictures into one folder, whatever their labels say.

    Raises:
        DataError: a file can't be read, or it does not say which pictures are real and which are fake.
        SourceError: the pictures can't be written.
        UsageError: pyarrow is missing.
    """
    files, _ = walk_files(folder)
    shards = [file for file in files if file.suffix.lower() in (".parquet", ".tar")]
    if not shards or (labelled and is_prepared(folder)) or _has_own_pictures(folder, files, labelled):
        return folder
    state = json.dumps([labelled, [[str(shard), *stamp(shard)] for shard in shards]])
    target = folder.parent / f"unpacked-{hashlib.sha256(state.encode()).hexdigest()[:16]}" / folder.name
    if target.is_dir():
        return target
    try:
        with (folder.parent / ".unpack.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                # Whoever made these was killed, or would still hold the lock.
                for old in folder.parent.glob(".unpacking-*"):
                    shutil.rmtree(old, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
                    _unpack(folder, shards, labelled, Path(scratch, folder.name))
                    target.parent.mkdir(exist_ok=True)
                    Path(scratch, folder.name).rename(target)
    except OSError as error:
        reason = f"{folder.parent}: the pictures of {folder.name} can't be unpacked there ({error.strerror or error})"
        raise SourceError(f"{reason}; make room, or set XDG_CACHE_HOME to another folder") from None
    return target


def is_prepared(folder: Path) -> bool:
    """Return whether `prepare-faces --shards` wrote `folder`: the catalog says more than the shards do."""
    if not (folder / CATALOG).is_file():
        return False
    with (folder / CATALOG).open(encoding="utf-8-sig", errors="replace") as file:
        return {*COLUMNS, *IN_SHARD} <= set(file.readline().strip().split(","))


def _has_own_pictures(folder: Path, files: Sequence[Path], labelled: bool) -> bool:
    """Return whether pictures among `files` are the data set, and not those that its README.md shows."""
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    if pictures and labelled:
        try:
            return bool(list_faces(folder).files)
        except DataError:
            return False
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    return any(picture.name not in text for picture in pictures)


def _unpack(folder: Path, shards: Sequence[Path], labelled: bool, out: Path) -> None:
    """Write the pictures in `shards` of `folder` into `out`; for errors see `unpacked`."""
    named, root = re.compile(rf"(?:^|[/_.-]){SPLIT}(?=[/_.-])", re.IGNORECASE), folder.resolve()
    found = {shard: named.search(shard.relative_to(root).as_posix()) for shard in shards}
    splits = {shard: SPLIT_FOLDERS[name["split"].lower()] if name else "" for shard, name in found.items()}
    told_apart = labelled and len(set(splits.values())) > 1 and all(splits.values())
    names = _card_names(folder / "README.md")
    number = without = 0
    for shard in shards:
        home = out / (splits[shard] if told_apart else "")
        for picture, value, class_names in (_tar if shard.suffix.lower() == ".tar" else _parquet)(shard, names):
            label = _label(value, class_names, shard) if labelled else ""
            number, without = number + 1, without + (label is None)
            if label is not None:
                kind = file_type_of(picture[:HEAD_BYTES])
                suffix = kind.format.lower() if kind.content is Content.PICTURE else "jpg"
                (home / label).mkdir(parents=True, exist_ok=True)
                (home / label / f"{number:08}.{suffix}").write_bytes(picture)
    if not number:
        raise DataError(f"{folder}: its Parquet files and shards hold no pictures")
    if number == without:
        raise DataError(
            f"{folder}: none of its {number} pictures has a label; if they are of one class, give --real or --fake"
        )
    if without:
        print(f"{folder.name}: {without} of {number} pictures have no label and are left out", file=sys.stderr)


def _card_names(card: Path) -> Names:
    """Return the classes that the front matter of a data set's README.md declares."""
    if not card.is_file():
        return {}
    # huggingface_hub brings it.
    import yaml

    try:
        metadata = hub_library().DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict().get("dataset_info")
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return {}
    # Anyone may write anything there; a column that is declared in another way costs no other its classes.
    found = {}
    for info in metadata if isinstance(metadata, list) else [metadata]:
        features = _get(info, "features")
        for feature in features if isinstance(features, list) else ():
            if names := _class_names(_get(_get(feature, "dtype"), "class_label")):
                found[str(_get(feature, "name"))] = names
    return found


def _get(values: object, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def _class_names(feature: object) -> list[str]:
    """Return the `names` of a feature's classes, which are a list, or a mapping from their numbers."""
    names = _get(feature, "names")
    listed = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    return [str(name) for name in listed]


def _label(value: object, names: Sequence[str] | None, where: Path) -> str | None:
    """Return `real` or `fake`; None for a picture without a label.

    Raises:
        DataError: it is neither.
    """
    if value is None or value == "" or value == -1:
        return None
    text = value
    if names and str(value).isdecimal() and int(str(value)) < len(names):
        text = names[int(str(value))]
    words = set(re.findall(r"[a-z]+", str(text).lower()))
    found = [label for label, meaning in zip(LABELS, MEANINGS, strict=True) if words & meaning]
    if len(found) != 1:
        reason = f"{where}: a label is {printable(str(text))!r}, which says neither real nor fake"
        raise DataError(f"{reason}; sort the pictures into real/ and fake/, or give pictures of one class with --real")
    return found[0]


def _parquet(path: Path, card: Names) -> Iterator[tuple[bytes, object, Sequence[str] | None]]:
    """Yield the bytes and the label of each picture, and the names that numbered labels stand for."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from edge_runtime.bulk.listing import picture_column
    except ImportError:
        raise UsageError(f"{path}: Parquet needs pyarrow; run pip install pyarrow fsspec aiohttp") from None
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        try:
            image, binary = picture_column(schema, None, str(path))
        except DataError:
            image, binary = "", False
        if not binary:
            columns = ", ".join(schema.names)
            raise DataError(f"{path}: holds no pictures as bytes (columns: {columns}); give folders of pictures")
        names = {**card, **_schema_names(schema.metadata or {})}
        column = _label_column(schema.names, names)
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[image, *([column] if column else [])]):
            pictures = batch.column(image.partition(".")[0])
            while pa.types.is_struct(pictures.type):
                pictures = pictures.field(0)
            labels = batch.column(column).to_pylist() if column else [None] * len(pictures)
            for picture, label in zip(pictures.to_pylist(), labels, strict=True):
                if picture:
                    yield picture, label, names.get(column or "")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read ({printable(str(error))}); fetch it again") from None


def _label_column(columns: Sequence[str], names: Names) -> str | None:
    """Return the column with labels: one whose declared classes say real or fake, else one called like it."""
    for column in names:
        words = [set(re.findall(r"[a-z]+", name.lower())) for name in names[column]]
        if (
            column in columns
            and any(word & MEANINGS[0] for word in words)
            and any(word & MEANINGS[1] for word in words)
        ):
            return column
    return next((column for column in LABEL_COLUMNS if column in columns), None)


def _schema_names(metadata: Mapping[bytes, bytes]) -> Names:
    """Return the classes that the package `datasets` notes in a file's schema."""
    try:
        features = _get(_get(json.loads(metadata.get(b"huggingface", b"{}")), "info"), "features")
    except ValueError:
        return {}
    columns = features.items() if isinstance(features, dict) else ()
    labels = {name: feature for name, feature in columns if _get(feature, "_type") == "ClassLabel"}
    return {name: names for name, feature in labels.items() if (names := _class_names(feature))}


def _tar(path: Path, card: Names) -> Iterator[tuple[bytes, object, Sequence[str] | None]]:
    """The same for a WebDataset shard: the label is in a folder's name, KEY.cls, or `label` of KEY.json.

    Of a key with several pictures, such as 0.jpg and 0.mask.png, the first by PREFERRED is taken.
    """
    names = card.get(_label_column(list(card), card) or "")
    try:
        with tarfile.open(path, "r:") as tar:
            members = (
                (str(at.parent), *at.name.partition(".")[::2], member)
                for member in tar
                if member.isfile()
                for at in [PurePosixPath(member.name)]
            )
            for (folder, _), group in itertools.groupby(members, lambda found: found[:2]):
                sample = {suffix.lower(): tar.extractfile(member).read() for _, _, suffix, member in group}  # type: ignore[union-attr]
                label: object = next((part for part in folder.lower().split("/") if part in LABELS), None)
                if "cls" in sample:
                    label = sample["cls"].decode("utf-8", "replace").strip()
                elif "json" in sample:
                    metadata = json.loads(sample["json"])
                    label = metadata.get("label", label) if isinstance(metadata, dict) else label
                pictures = [suffix for suffix in sample if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
                if pictures:
                    yield sample[min(pictures, key=_rank)], label, names
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{path}: can't be read ({printable(str(error))}); fetch it again") from None


def _rank(suffix: str) -> tuple[int, int]:
    """Fewest dots first (`jpg` before `mask.png`), then the preferred formats."""
    last = suffix.rpartition(".")[2]
    return suffix.count("."), PREFERRED.index(last) if last in PREFERRED else len(PREFERRED)

"""Tar shards of a catalog's pictures, as WebDataset reads them, with a catalog that says where each picture is."""

import hashlib
import io
import itertools
import json
import tarfile
from dataclasses import replace
from pathlib import Path

from edge_runtime.errors import DataError, PictureError, UsageError
from edge_runtime.paths import expand
from train.commands.output import full_disk_reported, output_folder
from train.data.catalog import CATALOG, COLUMNS, Catalog, FaceRecord, catalog_row
from train.parallel import progress_bar

SHARD_BYTES = 256 << 20
"""A shard is closed once it has this many bytes."""


def shards_folder(folder: Path) -> Path:
    """Return a folder for shards with `~` expanded, after a test that it can be written to and is empty.

    Raises:
        UsageError: it is not, or it is an address.
    """
    if ":/" in str(folder):
        raise UsageError(f"--shards {folder}: an address; give a folder, and copy it to the bucket afterwards")
    folder = output_folder(folder, "--shards")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--shards {folder}: not empty; empty it, or give another folder")
    return folder


def write_shards(catalog: Catalog, folder: Path, shard_bytes: int = SHARD_BYTES) -> Catalog:
    """Copy a catalog's pictures into tar shards in `folder`, and return their catalog, which is written there last.

    Each picture is followed by a JSON file of the same name with what the catalog says of it. Faces keep their order,
    so a training from shards draws the same faces as one from the catalog. The same catalog gives the same bytes.

    Raises:
        DataError: a picture can't be read, or was changed since the catalog was made.
        UsageError: the disk is full.
    """
    folder = expand(folder).resolve()  # As the catalog does, which names the shards relative to it.
    faces: list[FaceRecord] = []
    with full_disk_reported(folder, "--shards"), progress_bar("writing shards", len(catalog.records)) as advance:
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            if len(faces) == len(catalog.records):
                break
            path = folder / f"faces-{number:06d}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                while len(faces) < len(catalog.records) and tar.offset < shard_bytes:
                    faces.append(_add(tar, path, catalog.records[len(faces)], len(faces)))
                    advance(1)
        packed = replace(catalog, records=tuple(faces), quarantine=())
        packed.write(folder / CATALOG)
    return packed


def _add(tar: tarfile.TarFile, path: Path, face: FaceRecord, number: int) -> FaceRecord:
    try:
        content = face.content()
        data = content.read_bytes() if isinstance(content, Path) else content
    except (OSError, PictureError) as error:
        raise DataError(f"{face.path}: can't be read ({error}); run prepare-faces again") from None
    if hashlib.sha256(data).hexdigest() != face.sha256:
        raise DataError(f"{face.path}: was changed since the catalog was made; run prepare-faces again")
    name = f"{number:09d}{face.path.suffix.lower()}"
    placed = replace(face, path=path / name, offset=tar.offset + tarfile.BLOCKSIZE, size=len(data))
    said = dict([*zip(COLUMNS, catalog_row(face, path.parent), strict=False)][1:])
    for member, content in ((name, data), (f"{number:09d}.json", json.dumps(said).encode())):
        header = tarfile.TarInfo(member)
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    return placed

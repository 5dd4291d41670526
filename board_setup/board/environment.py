"""A virtual environment on the board: made from a folder of wheels, and looked at file by file later on."""

import base64
import csv
import glob
import os
from typing import Iterator, Tuple

from board_setup.board import commands, disk

IMPORT_ALL = """
import contextlib, importlib, pkgutil
import edge_runtime
for module in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.", onerror=lambda name: None):
    with contextlib.suppress(Exception):
        importlib.import_module(module.name)
"""

RECORDS = "lib/python*/site-packages/*.dist-info/RECORD"


def make(python: str, target: str, wheels: str, requirement: str) -> None:
    """Make a virtual environment with `requirement` from a folder of wheels, pip's own among them; no network.

    Only what the runtime imports is compiled, by importing it: a quarter of all that lies there.
    """
    pip = next(name for name in sorted(os.listdir(wheels)) if name.startswith("pip-"))
    commands.run([python, "-m", "venv", "--without-pip", target])
    own = os.path.join(target, "bin", "python")
    options = ["--no-index", "--find-links", wheels, "--no-cache-dir", "--no-compile", "--disable-pip-version-check"]
    commands.run([own, os.path.join(wheels, pip, "pip"), "install", "--quiet", *options, requirement])
    commands.call([own, "-I", "-c", IMPORT_ALL])


def complete(folder: str) -> None:
    """Mark an environment as whole, and note which distributions it then has."""
    os.sync()
    records = glob.glob(os.path.join(folder, RECORDS))
    disk.write(os.path.join(folder, disk.COMPLETE), "\n".join(os.path.relpath(path, folder) for path in records))


def is_whole(folder: str) -> bool:
    """Say whether an environment was completed, and every file that pip put into it is as it was then."""
    needed = (os.path.join(folder, disk.COMPLETE), os.path.join(folder, "bin", "python"))
    if not all(map(os.path.exists, needed)):
        return False
    records = disk.read_text(needed[0]).split("\n")
    return all(_holds(os.path.join(folder, record)) for record in records if record)


def _holds(record: str) -> bool:
    """Say whether the files of a distribution have the SHA-256 that its RECORD tells (PEP 376)."""
    packages = os.path.dirname(os.path.dirname(record))
    try:
        files = list(_files(record))
    except (OSError, ValueError, csv.Error):
        return False
    return bool(files) and all(disk.has_sha256(os.path.join(packages, name), digest) for name, digest in files)


def _files(record: str) -> Iterator[Tuple[str, str]]:
    with open(record, encoding="utf-8", newline="") as file:
        for name, digest, _ in csv.reader(file):
            kind, _, text = digest.partition("=")
            # Compiled modules, and RECORD itself, have none.
            if kind == "sha256":
                yield name, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()

"""Packing a kit on the workstation; see `board_setup.board.kit` for its content."""

import glob
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tarfile
import time
import zipapp
from typing import Any, Dict, List, Optional, Sequence, Tuple

from board_setup.board.disk import ANY, atomic, copy, has_shape, sha256
from board_setup.board.kit import FORMAT, MANIFEST, TOOL, Kit, KitError, copy_checked, parse_manifest
from board_setup.workstation.comparison import take_report
from board_setup.workstation.wheels import gather_wheels

DEFAULT_PYTHON = "3.10"
DEFAULT_GLIBC = "2.31"
"""The C library of Ubuntu 20.04, the vendor's system."""

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IN_TOOL = ("__init__.py", "cli.py", "errors.py", "isa.py", "signatures.py", "board")
"""The parts of this package that the board needs."""


def pack(
    out: str,
    bundle: str,
    *,
    precisions: Sequence[str] = (),
    python: str = DEFAULT_PYTHON,
    glibc: str = DEFAULT_GLIBC,
    python_archive: Optional[str] = None,
    debs: Optional[str] = None,
    extras: Sequence[str] = (),
    project: Optional[str] = None,
    report: Optional[str] = None,
) -> Kit:
    """Write a kit to `out` atomically, with this tool beside it.

    Args:
        out: the tar to write.
        bundle: the detector's folder.
        precisions: which of its networks to include; all by default.
        python: the board's Python, or that of `python_archive`.
        glibc: the oldest C library that every wheel must run with.
        python_archive: a standalone Python, `.tar.gz` with a folder `python/` in it.
        debs: a folder of Debian packages.
        extras: which of `wheels.EXTRAS` to include.
        project: the project's source folder; by default the clone that this tool was started from.
        report: the folder of compare-detectors' report.

    Raises:
        KitError: something is missing, a version is malformed, or a wheel needs a newer C library.
    """
    # Checked first: hundreds of megabytes are downloaded before the rest could fail.
    check_options(out, python, glibc)
    project = project or os.path.dirname(PACKAGE)
    if not os.path.exists(os.path.join(project, "pyproject.toml")):
        raise KitError(f"{project}: not the project's source; run setup-board pack from a clone, or give --project")
    from export.children.scratch import ScratchFolder

    with ScratchFolder() as scratch:
        folder = str(scratch)
        version = take_bundle(bundle, os.path.join(folder, "bundle"), precisions)
        make_tool(os.path.join(folder, TOOL))
        archive = take_python(python_archive, folder, python) if python_archive else ""
        if report:
            take_report(report, folder)
        if debs:
            packages = sorted(glob.glob(os.path.join(glob.escape(debs), "*.deb")))
            if not packages:
                raise KitError(f"{debs}: holds no .deb")
            os.makedirs(os.path.join(folder, "debs"))
            for package in packages:
                shutil.copy(package, os.path.join(folder, "debs"))
        requirement = gather_wheels(os.path.join(folder, "wheels"), project, python, glibc, extras)
        files = {name: sha256(os.path.join(folder, name)) for name in _list_files(folder)}
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        kit = Kit(f"{version}-{digest[:8]}", python, requirement, archive, files)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = {"format": FORMAT, "created": created, "glibc": glibc, **kit._asdict()}
        # A file name with a control character would make a kit that the board refuses.
        parse_manifest(manifest, out)
        with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
        write_tar(folder, out)
        copy(os.path.join(folder, TOOL), os.path.join(os.path.dirname(out), TOOL), mode=0o755)
    return kit


def choose_bundle(named: Optional[str], project: Optional[str]) -> str:
    """Return the bundle to pack: the one `named`, else ./detector, else the one that ships with the project."""
    shipped = os.path.join(
        glob.escape(project or os.path.dirname(PACKAGE)), "edge_runtime", "detectors", "*", "model.json"
    )
    found = ["detector/model.json", *sorted(glob.glob(shipped))]
    whole = [os.path.dirname(path) for path in found if os.path.isfile(path)]
    return os.path.expanduser(named) if named else (whole or ["detector"])[0]


def check_options(out: str, python: str, glibc: str) -> None:
    """Check what can be checked before anything is downloaded.

    Raises:
        KitError: the kit can't be written there, a version is malformed, or a package is missing.
    """
    if importlib.util.find_spec("packaging") is None:
        raise KitError("setup-board pack needs the package packaging; run: pip install packaging")
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise KitError(f"{out}: the folder {folder} does not exist; create it or choose another one")
    if os.path.isdir(out):
        raise KitError(f"{out}: is a folder; name a file in it, such as {os.path.join(out, 'kit.tar')}")
    if not os.access(folder, os.W_OK):
        raise KitError(f"{out}: no permission to write to {folder}; choose another folder")
    for option, text in (("--python-version", python), ("--glibc", glibc)):
        if not re.fullmatch(r"\d+\.\d+", text):
            raise KitError(f"{option} {text}: give two numbers, such as {DEFAULT_GLIBC}")


def read_manifest(bundle: str) -> Dict[str, Any]:
    """Return the `model.json` of a bundle.

    Raises:
        KitError: it is not a bundle, or its version can't be part of a folder's name.
    """
    try:
        with open(os.path.join(bundle, "model.json"), encoding="utf-8") as file:
            manifest = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise KitError(f"{bundle}: no bundle (no model.json in it); make one with export-openvino") from None
    except OSError as error:
        raise KitError(f"{bundle}: its model.json can't be read ({error.strerror}); make it readable") from None
    except (ValueError, RecursionError):
        manifest = None
    if not has_shape(manifest, {"files": {ANY: str}, "contract": {"version": str}}):
        raise KitError(f"{bundle}: its model.json is damaged; export it again")
    version = manifest["contract"]["version"]
    if not version.isprintable() or "/" in version or len(version) > 100:
        raise KitError(f"{bundle}: version {version[:100]!r} can't name a folder; export it with another --version")
    outside = next((name for name in manifest["files"] if name.startswith("/") or ".." in name.split("/")), None)
    if outside:
        raise KitError(f"{bundle}: its model.json names {outside!r}, which is outside; do not use this bundle")
    return manifest


def take_bundle(bundle: str, target: str, precisions: Sequence[str]) -> str:
    """Copy a bundle in the chosen precisions and return its model's version.

    Raises:
        KitError: it is not a bundle, a file was changed, or it lacks a precision.
    """
    manifest = read_manifest(bundle)
    files, version = manifest["files"], manifest["contract"]["version"]
    held = [name for name in ("fp32", "fp16", "int8") if f"{name}/model.xml" in files]
    for name in precisions:
        if name not in held:
            raise KitError(f"{bundle}: has no {name}, only {', '.join(held)}; choose one of these")
    dropped = [name + "/" for name in held if precisions and name not in precisions] + ["onnx/"]
    taken = {name: digest for name, digest in files.items() if not name.startswith(tuple(dropped))}
    for name, digest in taken.items():
        with open(os.path.join(bundle, name), "rb") as source:
            copy_checked(source, os.path.join(target, name), digest, bundle)
    with open(os.path.join(target, "model.json"), "w", encoding="utf-8") as file:
        json.dump({**manifest, "files": taken}, file, indent=2, ensure_ascii=False)
    return version


def take_python(archive: str, folder: str, python: str) -> str:
    """Copy a standalone Python into the kit's folder and return its path there.

    Raises:
        KitError: the archive can't be read, or holds another Python.
    """
    try:
        with tarfile.open(archive) as tar:
            members = tar.getnames()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise KitError(f"{archive}: not a readable .tar.gz ({error})") from None
    if f"python/bin/python{python}" not in members:
        raise KitError(f"{archive}: has no python/bin/python{python}; give its version with --python-version")
    name = "python/" + os.path.basename(archive)
    os.makedirs(os.path.join(folder, "python"))
    shutil.copy(archive, os.path.join(folder, name))
    return name


def make_tool(path: str) -> None:
    """Write the part of this tool that the board needs as a single file that Python 3.8 and newer runs."""
    from export.children.scratch import ScratchFolder

    with ScratchFolder() as folder:
        target = os.path.join(folder, "board_setup")
        os.mkdir(target)
        for name in IN_TOOL:
            source = os.path.join(PACKAGE, name)
            if os.path.isdir(source):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, os.path.join(target, name), ignore=ignored)
            else:
                shutil.copy(source, target)
        zipapp.create_archive(folder, path, interpreter="/usr/bin/env python3", main="board_setup.cli:main")


def write_tar(folder: str, out: str) -> None:
    """Write a folder as a tar, its manifest first.

    Raises:
        KitError: it can't be written; nothing is left of it.
    """
    try:
        with atomic(out) as partial, tarfile.open(partial, "w") as tar:
            for name in [MANIFEST, *(name for name in _list_files(folder) if name != MANIFEST)]:
                tar.add(os.path.join(folder, name), name)
    except OSError as error:
        raise KitError(f"{out}: can't be written ({error.strerror or error}); choose another folder") from None


def measure_parts(kit_path: str) -> List[Tuple[str, int]]:
    """Return the bytes of each part of a kit, and of the whole."""
    parts: Dict[str, int] = {}
    with tarfile.open(kit_path) as tar:
        for member in tar:
            part = member.name.split("/")[0]
            parts[part] = parts.get(part, 0) + member.size
    return [*sorted(parts.items()), ("all", os.path.getsize(kit_path))]


def _list_files(folder: str) -> List[str]:
    found = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)

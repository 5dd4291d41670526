"""The offline kit: wheels, bundle, this tool and what else a board needs, in one tar with the SHA-256 of every file.

kit.json         what the kit is, and its files
wheels/          the runtime and its dependencies, and pip to install them
bundle/          the detector, in the chosen precisions
setup-board.pyz  this tool
python/          a standalone Python, where one was given
debs/            driver packages, where they were given
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipapp
from typing import IO, Dict, List, NamedTuple, Optional, Sequence, Tuple

from board_setup.board.disk import SCRATCH, sha256
from board_setup.errors import BoardError

FORMAT = 1
MANIFEST = "kit.json"
TOOL = "setup-board.pyz"
DEFAULT_PYTHON = "3.10"
DEFAULT_GLIBC = "2.31"
"""Of Ubuntu 20.04, the vendor's."""

EXTRAS = ("benchmarks", "web")
"""What else the runtime can be on a board: edge-benchmark, edge-serve."""

PACKAGES = ("benchmarks", "board_setup", "edge_runtime", "export", "train")
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
LEGACY_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


class KitError(BoardError):
    """A kit that can't be made or used."""


class Kit(NamedTuple):
    """What `kit.json` says.

    Attributes:
        id: the version that installing it brings, such as 1.4.0-3f2a91c0.
        python: the Python that its wheels are for, such as 3.10.
        requirement: the runtime, such as deepfake-edge==0.1.0.
        archive: the standalone Python's path inside the kit, empty where the board's own is used.
        files: SHA-256 by path inside the kit.
    """

    id: str
    python: str
    requirement: str
    archive: str
    files: Dict[str, str]

    @property
    def wheels_id(self) -> str:
        """Name the set of wheels: two kits with the same wheels share a virtual environment."""
        wheels = sorted((name, digest) for name, digest in self.files.items() if name.startswith("wheels/"))
        return hashlib.sha256(repr((self.python, self.archive, wheels)).encode()).hexdigest()[:12]


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
) -> Kit:
    """Gather a kit and write it to `out`, whole or not at all, with this tool beside it.

    Args:
        out: the tar to write.
        bundle: the detector's folder.
        precisions: which of its networks to take; all by default.
        python: the board's Python, or that of `python_archive`.
        glibc: the oldest C library that every wheel must load with.
        python_archive: a standalone Python, `.tar.gz` with a folder `python/` in it.
        debs: a folder of Debian packages.
        extras: which of `EXTRAS` to take along.
        project: the project's source folder; by default the one this tool was started from.

    Raises:
        KitError: something is missing, a version is none, or a wheel needs a newer C library.
    """
    # What would fail at the end is looked at before some hundred megabytes are downloaded.
    _check_target(out)
    _check_version("--python-version", python)
    _check_version("--glibc", glibc)
    with tempfile.TemporaryDirectory(prefix="setup-board-") as folder:
        version = take_bundle(bundle, os.path.join(folder, "bundle"), precisions)
        requirement = _gather_wheels(os.path.join(folder, "wheels"), project or _project(), python, glibc, extras)
        make_tool(os.path.join(folder, TOOL))
        archive = _take_python(python_archive, folder, python)
        if debs:
            _take_debs(debs, os.path.join(folder, "debs"))
        files = {name: sha256(os.path.join(folder, name)) for name in _files(folder)}
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        kit = Kit(f"{version}-{digest[:8]}", python, requirement, archive, files)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "created": created, "glibc": glibc, **kit._asdict()}, file, indent=1)
        _write_tar(folder, out)
        shutil.copy(os.path.join(folder, TOOL), os.path.join(os.path.dirname(out) or ".", TOOL))
    return kit


def read_kit(path: str) -> Kit:
    """Read what a kit says of itself.

    Raises:
        KitError: it is missing, no kit, or of another format.
    """
    try:
        with tarfile.open(path) as tar:
            member = tar.extractfile(MANIFEST)
            values = json.loads(_whole(member)) if member else {}
    except FileNotFoundError:
        raise KitError(f"{path}: not found; make a kit with: setup-board pack --out {path}") from None
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise KitError(f"{path}: not a kit, or cut off ({error}); copy or pack it again") from None
    if values.get("format") != FORMAT:
        raise KitError(f"{path}: format {values.get('format')!r}, this tool reads {FORMAT}; use the tool of the kit")
    try:
        kit = Kit(**{field: values[field] for field in Kit._fields})
    except KeyError as error:
        raise KitError(f"{path}: {MANIFEST} lacks {error}; pack it again") from None
    for name in (*kit.files, kit.id):
        if name.startswith("/") or ".." in name.split("/"):
            raise KitError(f"{path}: names {name!r}, which leads out of it; do not use this kit")
    return kit


def unpack(path: str, folder: str) -> Kit:
    """Unpack a kit and check every file against its SHA-256.

    Raises:
        KitError: a file is missing, changed, or was never in the manifest.
    """
    kit = read_kit(path)
    seen = set()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name == MANIFEST:
                    continue
                source = tar.extractfile(member) if member.isfile() else None
                if source is None or member.name not in kit.files:
                    raise KitError(f"{path}: {member.name} is not in its {MANIFEST}; do not use this kit")
                _copy_checked(source, os.path.join(folder, member.name), kit.files[member.name], path)
                seen.add(member.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise KitError(f"{path}: can't be unpacked ({error}); copy or pack it again") from None
    missing = sorted(set(kit.files) - seen)
    if missing:
        raise KitError(f"{path}: {missing[0]} is missing; copy or pack it again")
    return kit


def sizes(kit_path: str) -> List[Tuple[str, int]]:
    """Return the bytes of each part of a kit, and of all."""
    parts: Dict[str, int] = {}
    with tarfile.open(kit_path) as tar:
        for member in tar:
            part = member.name.split("/")[0]
            parts[part] = parts.get(part, 0) + member.size
    return [*sorted(parts.items()), ("all", os.path.getsize(kit_path))]


def take_bundle(bundle: str, target: str, precisions: Sequence[str]) -> str:
    """Copy a bundle in the chosen precisions and return its model's version.

    Raises:
        KitError: it is no bundle, a file was changed, or it does not hold a precision.
    """
    try:
        with open(os.path.join(bundle, "model.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        files, version = manifest["files"], str(manifest["contract"]["version"])
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"{bundle}: no bundle ({error}); make one with export-openvino") from None
    held = [name for name in ("fp32", "fp16", "int8") if f"{name}/model.xml" in files]
    for name in precisions:
        if name not in held:
            raise KitError(f"{bundle}: holds no {name} (it holds {', '.join(held)}); choose one of these")
    dropped = [name + "/" for name in held if precisions and name not in precisions] + ["onnx/"]
    taken = {name: digest for name, digest in files.items() if not name.startswith(tuple(dropped))}
    for name, digest in taken.items():
        with open(os.path.join(bundle, name), "rb") as source:
            _copy_checked(source, os.path.join(target, name), digest, bundle)
    with open(os.path.join(target, "model.json"), "w", encoding="utf-8") as file:
        json.dump({**manifest, "files": taken}, file, indent=2, ensure_ascii=False)
    return version


def make_tool(path: str) -> None:
    """Write this tool as a single file that Python 3.8 and newer runs."""
    with tempfile.TemporaryDirectory(prefix="setup-board-") as folder:
        ignored = shutil.ignore_patterns("__pycache__")
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        shutil.copytree(package, os.path.join(folder, "board_setup"), ignore=ignored)
        zipapp.create_archive(folder, path, interpreter="/usr/bin/env python3", main="board_setup.cli:main")


def glibc_needed(wheel: str) -> Optional[Tuple[int, int]]:
    """Return the C library that a wheel needs by its file name (PEP 600), None for one without machine code.

    Raises:
        KitError: it is for another platform.
    """
    tags = wheel[: -len(".whl")].split("-")[-1].split(".")
    if tags == ["any"]:
        return None
    versions = [LEGACY_TAGS[name] for tag in tags for name in LEGACY_TAGS if tag == name + "_x86_64"]
    for tag in tags:
        found = re.match(r"manylinux_(\d+)_(\d+)_x86_64$", tag)
        if found:
            versions.append((int(found.group(1)), int(found.group(2))))
    if not versions:
        raise KitError(f"{wheel}: is for {', '.join(tags)}, not for x86-64 Linux")
    return min(versions)


def _gather_wheels(folder: str, project: str, python: str, glibc: str, extras: Sequence[str] = ()) -> str:
    """Build the project's wheel, download what it and its `extras` need for the board, and return the requirement."""
    chosen_extras = f"[{','.join(sorted(set(extras)))}]" if extras else ""
    os.makedirs(folder)
    own = _build_wheel(project, folder)
    constraints = os.path.join(project, "constraints.txt")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as chosen:
        if os.path.exists(constraints):
            with open(constraints, encoding="utf-8") as file:
                chosen.write(constraints_for(file.read(), python))
        chosen.flush()
        needed_for = os.path.join(folder, own) + chosen_extras
        _pip("download", *_target(python, glibc), "-c", chosen.name, "-d", folder, needed_for, "pip")
    for wheel in sorted(os.listdir(folder)):
        needed = glibc_needed(wheel)
        if needed and needed > _numbers(glibc):
            raise KitError(f"{wheel}: needs glibc {needed[0]}.{needed[1]}, the board has {glibc}")
    name, version = own.split("-")[:2]
    return f"{name.replace('_', '-')}{chosen_extras}=={version}"


def _target(python: str, glibc: str) -> List[str]:
    """Return pip's options for the board: it expands no platform tag by itself, so that all are named."""
    minor = _numbers(glibc)[1]
    tags = [f"manylinux_2_{number}_x86_64" for number in range(minor, 4, -1)]
    tags += [f"{name}_x86_64" for name in LEGACY_TAGS]
    options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for abi in ("cp" + python.replace(".", ""), "abi3", "none"):
        options += ["--abi", abi]
    for tag in tags:
        options += ["--platform", tag]
    return options


def constraints_for(text: str, python: str) -> str:
    """Return the lines of `constraints.txt` that hold for `python`, without their markers.

    pip would read the markers for the Python that it runs in itself.
    """
    lines = []
    for line in text.splitlines():
        requirement, _, marker = line.partition("#")[0].partition(";")
        if all(_holds(condition, python) for condition in marker.split(" and ") if condition.strip()):
            lines.append(requirement.strip())
    return "\n".join(lines) + "\n"


def _holds(condition: str, python: str) -> bool:
    found = re.match(r"\s*python_version\s*(<=|>=|==|<|>)\s*['\"]([\d.]+)['\"]\s*$", condition)
    if not found:
        raise KitError(f"constraints.txt has the marker {condition.strip()!r}; python_version alone is understood")
    have, limit = _numbers(python), _numbers(found.group(2))
    answers = {"<": have < limit, ">": have > limit, "<=": have <= limit, ">=": have >= limit, "==": have == limit}
    return answers[found.group(1)]


def _build_wheel(project: str, folder: str) -> str:
    with tempfile.TemporaryDirectory(prefix="setup-board-") as copy:
        for name in PROJECT_FILES:
            shutil.copy(os.path.join(project, name), copy)
        for name in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(os.path.join(project, name), os.path.join(copy, name), ignore=ignored)
        _pip("wheel", "--no-deps", "-w", folder, copy)
    return os.path.basename(glob.glob(os.path.join(folder, "*.whl"))[0])


def _check_target(out: str) -> None:
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise KitError(f"{out}: there is no folder {folder}; make it, or choose another one")
    if os.path.isdir(out):
        raise KitError(f"{out}: is a folder; name a file in it, such as {os.path.join(out, 'kit.tar')}")
    if not os.access(folder, os.W_OK):
        raise KitError(f"{out}: {folder} may not be written to; choose another folder")


def _check_version(option: str, text: str) -> None:
    if not re.match(r"\d+\.\d+$", text):
        raise KitError(f"{option} {text}: is no version with two numbers, such as {DEFAULT_GLIBC}")


def _project() -> str:
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.exists(os.path.join(folder, "pyproject.toml")):
        raise KitError("the project's source is not here; run setup-board pack from a clone, or give --project FOLDER")
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        last = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()][-1:]
        raise KitError(f"pip {arguments[0]} failed: {' '.join(last)}")


def _take_python(archive: Optional[str], folder: str, python: str) -> str:
    if not archive:
        return ""
    try:
        with tarfile.open(archive) as tar:
            members = tar.getnames()
    except (OSError, tarfile.TarError) as error:
        raise KitError(f"{archive}: no .tar.gz that can be read ({error})") from None
    if f"python/bin/python{python}" not in members:
        raise KitError(f"{archive}: holds no python/bin/python{python}; give its version with --python-version")
    name = "python/" + os.path.basename(archive)
    os.makedirs(os.path.join(folder, "python"))
    shutil.copy(archive, os.path.join(folder, name))
    return name


def _take_debs(debs: str, target: str) -> None:
    packages = sorted(glob.glob(os.path.join(debs, "*.deb")))
    if not packages:
        raise KitError(f"{debs}: holds no .deb")
    os.makedirs(target)
    for package in packages:
        shutil.copy(package, target)


def _write_tar(folder: str, out: str) -> None:
    try:
        with tarfile.open(out + SCRATCH, "w") as tar:
            for name in [MANIFEST, *(name for name in _files(folder) if name != MANIFEST)]:
                tar.add(os.path.join(folder, name), name)
        os.replace(out + SCRATCH, out)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(out + SCRATCH)
        raise KitError(f"{out}: can't be written ({error.strerror or error}); choose another folder") from None


def _files(folder: str) -> List[str]:
    found = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)


def _copy_checked(source: IO[bytes], target: str, digest: str, origin: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    found = hashlib.sha256()
    with open(target, "wb") as file:
        for block in iter(lambda: source.read(1 << 20), b""):
            found.update(block)
            file.write(block)
    if found.hexdigest() != digest:
        raise KitError(f"{origin}: {os.path.basename(target)} was changed; copy or make it again")


def _whole(file: IO[bytes]) -> str:
    return file.read().decode("utf-8")


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(map(int, version.split(".")))

"""The wheels of a kit: the project's own, and what pip downloads for the board's Python and C library."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import List, Optional, Sequence, Tuple

from board_setup.board.kit import KitError

EXTRAS = ("benchmarks", "fleet", "review", "web")
"""The runtime's optional extras on a board: edge-benchmark, edge-forward, encrypted reviews, edge-serve."""

PACKAGES = ("benchmarks", "board_setup", "edge_runtime", "export", "train")
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
LEGACY_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


def gather_wheels(folder: str, project: str, python: str, glibc: str, extras: Sequence[str] = ()) -> str:
    """Build the project's wheel, download what it and its `extras` need on the board, and return the requirement.

    Raises:
        KitError: pip failed, or a wheel needs a newer C library than `glibc`.
    """
    os.makedirs(folder)
    own = build_wheel(project, folder)
    chosen = f"[{','.join(sorted(set(extras)))}]" if extras else ""
    constraints = os.path.join(project, "constraints.txt")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        if os.path.exists(constraints):
            with open(constraints, encoding="utf-8") as source:
                file.write(constraints_for(source.read(), python))
        file.flush()
        needed = os.path.join(folder, own) + chosen
        run_pip("download", *_platform_options(python, glibc), "-c", file.name, "-d", folder, needed, "pip")
    for wheel in sorted(os.listdir(folder)):
        oldest = glibc_needed(wheel)
        if oldest and oldest > _numbers(glibc):
            raise KitError(f"{wheel}: needs glibc {oldest[0]}.{oldest[1]}, the board has {glibc}")
    name, version = own.split("-")[:2]
    return f"{name.replace('_', '-')}{chosen}=={version}"


def build_wheel(project: str, folder: str) -> str:
    """Build the project's wheel from a copy, so that no build folder is left in it, and return its file name."""
    from export.children.scratch import ScratchFolder

    with ScratchFolder() as copy:
        for name in PROJECT_FILES:
            shutil.copy(os.path.join(project, name), copy)
        for name in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(os.path.join(project, name), os.path.join(copy, name), ignore=ignored)
        run_pip("wheel", "--no-deps", "-w", folder, str(copy))
    return next(name for name in os.listdir(folder) if name.endswith(".whl"))


def run_pip(*arguments: str) -> None:
    """Run this Python's pip.

    Raises:
        KitError: it failed; the message holds its last line.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        last = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()][-1:]
        raise KitError(f"pip {arguments[0]} failed: {' '.join(last)}")


def constraints_for(text: str, python: str) -> str:
    """Return the lines of a constraints file that hold for `python`, without their markers.

    pip itself evaluates the markers for the Python that it runs in, not for the board's.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    environment = {"python_version": python, "python_full_version": python + ".0"}
    lines = []
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            requirement = Requirement(entry)
        except InvalidRequirement:
            raise KitError(f"constraints.txt: {entry!r} is not a requirement; write NAME==VERSION") from None
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            lines.append(str(requirement))
    return "\n".join(lines) + "\n"


def glibc_needed(wheel: str) -> Optional[Tuple[int, ...]]:
    """Return the C library that a wheel needs according to its file name (PEP 600), None if it has no machine code.

    Raises:
        KitError: it is for another platform.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        platforms = sorted({tag.platform for tag in parse_wheel_filename(wheel)[3]})
    except InvalidWheelFilename as error:
        raise KitError(f"{wheel}: not a wheel's file name ({error})") from None
    if platforms == ["any"]:
        return None
    versions = []
    for platform in platforms:
        found = re.fullmatch(r"manylinux_(\d+)_(\d+)_x86_64", platform)
        if found:
            versions.append((int(found.group(1)), int(found.group(2))))
        elif platform[: -len("_x86_64")] in LEGACY_TAGS:
            versions.append(LEGACY_TAGS[platform[: -len("_x86_64")]])
    if not versions:
        raise KitError(f"{wheel}: is for {', '.join(platforms)}, not for x86-64 Linux")
    return min(versions)


def _platform_options(python: str, glibc: str) -> List[str]:
    """Return pip's options for the board; pip does not expand platform tags, so all of them are named."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(_numbers(glibc)[1], 4, -1)]
    tags += [f"{name}_x86_64" for name in LEGACY_TAGS]
    options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for abi in ("cp" + python.replace(".", ""), "abi3", "none"):
        options += ["--abi", abi]
    for tag in tags:
        options += ["--platform", tag]
    return options


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(map(int, version.split(".")))

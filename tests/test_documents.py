"""What the documentation and the programs' own texts name is there: commands, options, targets, links, files."""

import ast
import importlib
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from board_setup.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("train", "export", "edge_runtime", "benchmarks", "board_setup")
PAGES = {page.relative_to(ROOT).as_posix(): page for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
PROGRAMS = {
    "prepare-faces": "train.cli:prepare_faces",
    "train-detector": "train.cli:train_detector",
    "evaluate-detector": "train.cli:evaluate_detector",
    "export-openvino": "export.cli:export_openvino",
    "edge-detect": "edge_runtime.cli:edge_detect",
    "edge-serve": "edge_runtime.web.cli:edge_serve",
    "edge-benchmark compare": "benchmarks.cli:compare",
    "edge-benchmark": "benchmarks.cli:benchmark",
}
COMMAND = re.compile(
    rf"(?:^|[\s/=])({'|'.join(PROGRAMS)}|setup-board|python3 \S*setup-board\.pyz"
    r"|python -m [a-z_]+\.(?!worker)[a-z_.]+)(?: (.*)|$)"
)
PROSE = {"takes", "is", "it", "as", "runs"}
"""Words that follow a program's name where a sentence goes on."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
EVERY_PROGRAM = {"--help", "--version", "--debug"}
OTHERS = {
    *("--all-extras", "--autologin", "--collect", "--keep-baud", "--no-deps", "--no-python", "--noclear", "--now"),
    *(
        "--config_path",
        "--nproc-per-node",
        "--partial",
        "--rest_port",
        "--rm",
        "--sort",
        "--system-site-packages",
        "--universal",
        "--wheel",
    ),
}
"""Options that are shown and are those of other programs."""


class Said(NamedTuple):
    """A command, and where it is said."""

    where: str
    program: str
    arguments: str

    def __str__(self) -> str:
        return " ".join(self)


def code_in(text: str) -> Iterator[str]:
    """Yield what is shown as code: fenced or indented lines, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
    yield from itertools.chain.from_iterable(block.splitlines() for block in blocks.findall(text))
    text = blocks.sub("", text)
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))


def commands_in(text: str, where: str) -> Iterator[Said]:
    for line in code_in(text):
        for part in re.split(r"\s#\s| (?:[|&]+|--) ", line):
            found = COMMAND.search(part)
            if found:
                program = re.sub(r"python3 .*", "setup-board", found[1])
                yield Said(where, program, (found[2] or "").strip())


@cache
def texts_of_programs() -> list[tuple[str, str]]:
    """Return the docstrings and messages of the packages, each with the file that it is in."""
    return [
        (file.relative_to(ROOT).as_posix(), inspect.cleandoc(node.value))
        for file in itertools.chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@cache
def commands() -> list[Said]:
    pages = [(name, page.read_text(encoding="utf-8")) for name, page in PAGES.items()]
    said = {said for name, text in [*pages, *texts_of_programs()] for said in commands_in(text, name)}
    return sorted(said)


@cache
def reader(program: str):
    """Return what reads the options of a program."""
    module, _, function = PROGRAMS.get(program, program.removeprefix("python -m ")).partition(":")
    if not function:
        path = ROOT.joinpath(*module.split("."))
        module, path = (f"{module}.__main__", path / "__main__") if path.is_dir() else (module, path)
        function = re.findall(r"run_command\((\w+), ", path.with_suffix(".py").read_text(encoding="utf-8"))[-1]
    app = typer.Typer(add_completion=False)
    app.command()(getattr(importlib.import_module(module), function))
    return typer.main.get_command(app)


def options_of(program: str) -> set[str]:
    if program == "setup-board":
        parsers = [build_parser(), *build_parser()._subparsers._group_actions[0].choices.values()]
        return {name for parser in parsers for name in parser._option_string_actions}
    return {name for option in reader(program).params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("said", [said for said in commands() if OPTION.search(said.arguments)], ids=str)
def test_a_command_has_the_options_that_it_is_shown_with(said: Said) -> None:
    assert set(OPTION.findall(said.arguments)) <= options_of(said.program) | EVERY_PROGRAM


def is_whole(said: Said) -> bool:
    """Say whether it can be typed so: it is not left open, no prose, and more than a mention of options."""
    words = said.arguments.split()
    open_or_drawn = re.search(r"[…─│►└]", said.arguments)
    return not open_or_drawn and any(not word.startswith("--") for word in words) and words[0] not in PROSE


@pytest.mark.parametrize("said", [said for said in commands() if is_whole(said)], ids=str)
def test_a_command_can_be_said_as_it_is_shown(said: Said) -> None:
    arguments = shlex.split(said.arguments)
    if said.program == "setup-board":
        build_parser().parse_args(arguments)
    else:
        reader(said.program).make_context(said.program, arguments)


def test_many_commands_are_found() -> None:
    found = commands()
    assert {said.program for said in found} >= {*PROGRAMS, "setup-board", "python -m train.sample_faces"}
    assert {said.where for said in found} >= {"README.md", "README.zh-CN.md", "docs/board.md", "train/cli.py"}
    assert sum(map(is_whole, found)) > 100


def test_every_option_that_is_named_is_one_of_some_program() -> None:
    known = set.union(OTHERS, EVERY_PROGRAM, *map(options_of, {said.program for said in commands()}))
    texts = [(name, code) for name, page in PAGES.items() for code in code_in(page.read_text(encoding="utf-8"))]
    # A message is a sentence; a word alone is an argument for another program.
    texts += [(name, text) for name, text in texts_of_programs() if " " in text and "<style>" not in text]
    named = {(name, found) for name, text in texts for found in re.findall(rf"(?:^|[\s`]){OPTION.pattern}", text)}
    named = {(name, option.strip(" \n`")) for name, option in named}
    assert {"--window", "--no-mjpg", "--harmonize"} <= {option for _, option in named}
    assert sorted((name, option) for name, option in named if option not in known) == []


def test_every_target_of_make_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    texts = [code for page in PAGES.values() for code in code_in(page.read_text(encoding="utf-8"))]
    named = {target for text in texts for target in re.findall(r"^make ([a-z-]+)", text)}
    assert {"demo", "setup", "test-board"} <= named <= targets


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_what_a_page_links_to_is_there(name: str) -> None:
    page = PAGES[name]
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_file_of_the_project_that_a_page_names_is_there(name: str) -> None:
    text = " ".join(code_in(PAGES[name].read_text(encoding="utf-8")))
    for path in re.findall(rf"(?<![\w/.])((?:{'|'.join(PACKAGES)}|tests|docs)/[\w./-]*\w)", text):
        assert (ROOT / path).exists() or path.startswith("docs/results/"), path

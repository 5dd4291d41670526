"""Links lead somewhere, and every command in the documents and programs' texts can be parsed."""

import argparse
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
    "leave-one-out": "train.cli:leave_one_out",
    "export-openvino": "export.cli:export_openvino",
    "edge-detect": "edge_runtime.cli:edge_detect",
    "edge-serve keygen": "edge_runtime.web.cli:keygen",
    "edge-forward": "edge_runtime.forward.cli:edge_forward",
    "edge-serve": "edge_runtime.web.cli:edge_serve",
    "compare-detectors": "benchmarks.promotion.cli:compare_detectors",
    "judge-pictures": "edge_runtime.bulk.cli:judge_pictures",
    "edge-benchmark compare": "benchmarks.cli:compare",
    "edge-benchmark frontier": "benchmarks.cli:frontier",
    "edge-benchmark": "benchmarks.cli:benchmark",
}
COMMAND = re.compile(
    rf"(?:^|[\s/=])({'|'.join(PROGRAMS)}|setup-board|python3 \S*setup-board\.pyz"
    r"|python -m (?:train|export|edge_runtime|benchmarks)\.[a-z_.]+)(?: (.*)|$)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
EVERY_PROGRAM = {"--help", "--version", "--debug"}


class Example(NamedTuple):
    """A command in a text, and the file that the text is in."""

    where: str
    program: str
    arguments: str

    def __str__(self) -> str:
        return " ".join(self)


def code_in(text: str) -> Iterator[str]:
    """Yield fenced and indented lines, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
    yield from itertools.chain.from_iterable(block.splitlines() for block in blocks.findall(text))
    text = blocks.sub("", text)
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))


def texts() -> Iterator[tuple[str, str]]:
    """Yield all pages, and all docstrings and messages of the packages, with their files."""
    for name, page in PAGES.items():
        yield name, page.read_text(encoding="utf-8")
    for file in itertools.chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file.relative_to(ROOT).as_posix(), inspect.cleandoc(node.value)


def examples() -> Iterator[Example]:
    for where, text in texts():
        for part in itertools.chain.from_iterable(re.split(r"\s#\s| (?:[|&]+|--) ", line) for line in code_in(text)):
            if found := COMMAND.search(part):
                program = re.sub(r"python3 .*", "setup-board", found[1])
                yield Example(where, program, (found[2] or "").strip())


EXAMPLES = sorted(set(examples()))


@cache
def parser(program: str):
    """Return the Click command that reads a program's options."""
    module, _, function = PROGRAMS.get(program, program.removeprefix("python -m ")).partition(":")
    if not function:
        path = ROOT.joinpath(*module.split("."))
        module, path = (f"{module}.__main__", path / "__main__") if path.is_dir() else (module, path)
        function = re.findall(r"run_command\((\w+), ", path.with_suffix(".py").read_text(encoding="utf-8"))[-1]
    app = typer.Typer(add_completion=False)
    app.command()(getattr(importlib.import_module(module), function))
    return typer.main.get_command(app)


def choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return parser._subparsers._group_actions[0].choices


def subcommands() -> dict[str, argparse.ArgumentParser]:
    return choices(build_parser())


def options_of(program: str) -> set[str]:
    if program == "setup-board":
        parsers = [build_parser(), *subcommands().values()]
        parsers += [inner for parser in parsers[1:] if parser._subparsers for inner in choices(parser).values()]
        return {name for parser in parsers for name in parser._option_string_actions}
    return {name for option in parser(program).params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_documented_commands_parse(example: Example) -> None:
    assert set(OPTION.findall(example.arguments)) <= options_of(example.program) | EVERY_PROGRAM
    words = example.arguments.split()
    is_sentence = any(word in ("is", "it", "takes", "runs", "as") for word in words[:1])
    is_partial = re.search(r"[…─│►└]", example.arguments) or all(word.startswith("--") for word in words)
    if is_sentence or is_partial:
        return
    if example.program == "setup-board" and len(words) == 1:
        assert words[0] in subcommands()
    elif example.program == "setup-board" and words[0] == "fleet" and len(words) == 2:
        assert words[1] in choices(subcommands()["fleet"])
    elif example.program == "setup-board":
        build_parser().parse_args(shlex.split(example.arguments))
    else:
        parser(example.program).make_context(example.program, shlex.split(example.arguments))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_and_paths_exist(name: str) -> None:
    page = PAGES[name]
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    code = " ".join(code_in(text))
    for path in re.findall(rf"(?<![\w/.])((?:{'|'.join(PACKAGES)}|tests|docs)/[\w./-]*\w)", code):
        assert (ROOT / path).exists() or path.startswith("docs/results/"), path

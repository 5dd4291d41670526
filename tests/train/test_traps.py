"""Traps of the field that are seen in the code itself, or that every stage could fall into."""

import ast
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.model.contract import ModelContract
from train.data.build import load_data
from train.evaluation.logits import judge
from train.evaluation.shortcuts import audit_faces
from train.learning.dataset import FaceDataset
from train.models.checkpoint import INPUTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("train", "export", "edge_runtime", "benchmarks")
AS_THE_ARTICLE_WROTE_IT = {"benchmarks/engines/baselines.py"}
"""The loop that others are compared with stands there with its faults."""


def trees() -> Iterator[tuple[str, ast.AST]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name not in AS_THE_ARTICLE_WROTE_IT:
                yield name, ast.parse(file.read_text(encoding="utf-8"))


def methods_given(keyword: str, value: object) -> list[str]:
    """Where a method is called with `keyword` of this constant."""
    return [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        for given in node.keywords
        if given.arg == keyword and isinstance(given.value, ast.Constant) and given.value.value is value
    ]


def test_weights_that_do_not_fit_are_never_loaded_all_the_same():
    assert methods_given("strict", False) == []


def test_pretrained_weights_are_never_asked_for_by_yes_or_no():
    assert methods_given("pretrained", True) == []


def test_a_picture_file_is_opened_in_a_with_statement_alone():
    for name, tree in trees():
        inside = {id(item.context_expr) for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                in_memory = ast.unparse(node.args[0]).startswith("io.BytesIO(")
                assert in_memory or id(node) in inside, f"{name}:{node.lineno}"


@pytest.fixture
def opened(monkeypatch) -> list[io.BufferedReader]:
    """Every file that Pillow has opened or was given, held so that nothing but our code closes it."""
    files = []
    unwatched = Image.open

    def watch(*given, **options):
        picture = unwatched(*given, **options)
        files.append(picture.fp)
        return picture

    monkeypatch.setattr(Image, "open", watch)
    return files


def test_no_stage_leaves_a_picture_open(make_faces, draw, opened):
    folder = make_faces()
    draw(14).convert("P").save(folder / "real" / "moving.gif", save_all=True, append_images=[draw(15).convert("P")])
    draw(16).save(folder / "fake" / "cut.jpg")
    (folder / "fake" / "cut.jpg").write_bytes((folder / "fake" / "cut.jpg").read_bytes()[:-400])
    contract = ModelContract("resnet18", input_size=48, pixels=INPUTS["native"])
    records = load_data(folder).records
    stages = {
        "audit": lambda: audit_faces(records),
        "training": lambda: [FaceDataset(records, contract, {})[index] for index in range(len(records))],
        "judging": lambda: judge(lambda pixels: np.zeros((len(pixels), 2), np.float32), contract, records),
    }
    assert len(opened) == 26
    for name, run in stages.items():
        run()
        assert all(file is None or file.closed for file in opened), name
    assert len(opened) > 26 * 3

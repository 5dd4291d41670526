"""Known mistakes of this field, looked for in the source, and one that any stage could make."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_runtime.model.contract import ModelContract
from train.data.build import load_data
from train.evaluation.logits import judge
from train.evaluation.shortcuts import audit_faces
from train.learning.dataset import FaceDataset
from train.models.checkpoint import INPUTS

ROOT = Path(__file__).resolve().parents[2]
AS_THE_ARTICLE_WROTE_IT = "benchmarks/engines/article.py"
"""The article's loop, kept with its mistakes as a baseline."""


def trees() -> Iterator[tuple[str, ast.AST]]:
    for package in ("train", "export", "edge_runtime", "benchmarks"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name != AS_THE_ARTICLE_WROTE_IT:
                yield name, ast.parse(file.read_text(encoding="utf-8"))


def test_no_partial_weights_and_no_pretrained_flag():
    forbidden = {("strict", False), ("pretrained", True)}
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        for given in node.keywords
        if isinstance(given.value, ast.Constant) and (given.arg, given.value.value) in forbidden
        if given.arg != "strict" or node.func.attr == "load_state_dict"
    ]
    assert found == []


def test_picture_files_are_opened_in_with_statements():
    for name, tree in trees():
        inside = {id(item.context_expr) for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items}
        inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return)}  # opened for a caller
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                in_memory = ast.unparse(node.args[0]).startswith("io.BytesIO(")
                assert in_memory or id(node) in inside, f"{name}:{node.lineno}"


def test_no_stage_leaves_a_picture_open(make_faces, draw, monkeypatch):
    opened, unwatched = [], Path.open

    def watch(*given, **options):
        opened.append(unwatched(*given, **options))  # held, so that nothing but our code closes it
        return opened[-1]

    monkeypatch.setattr(Path, "open", watch)
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
    for name, run in stages.items():
        before = len(opened)
        run()
        assert all(file.closed for file in opened), name
        assert len(opened) >= before + len(records), name

"""Golden pictures for a bundle of a test."""

import json
from pathlib import Path

from PIL import Image

from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle, sha256
from edge_runtime.model.golden import Golden
from edge_runtime.pixels.preprocess import face_pixels


def add_golden(folder: Path, golden: Golden, pictures: list[Image.Image]) -> Bundle:
    """Add golden pictures and their answers to the bundle in `folder`."""
    (folder / "golden").mkdir()
    for name, picture in zip(golden.pictures, pictures, strict=True):
        picture.save(folder / name)
    (folder / "golden" / "golden.json").write_text(golden.to_json())
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"] |= {name: sha256(folder / name) for name in (*golden.pictures, "golden/golden.json")}
    (folder / "model.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


def add_true_golden(folder: Path) -> Bundle:
    """Add one golden picture with the answers that the bundle in `folder` gives here."""
    bundle, picture = Bundle.open(folder), Image.new("RGB", (32, 32), (200, 80, 40))
    pixels, names = face_pixels(picture, None, bundle.contract), [p.value for p in bundle.precisions]
    golden = Golden(
        pictures=["golden/0.png"],
        isas={"native": "here"},
        logits={n: {"native": Classifier(bundle.model(n), bundle.contract).logits(pixels).tolist()} for n in names},
        tolerance={name: {"CPU": 0.01, "GPU": 0.1} for name in names},
    )
    return add_golden(folder, golden, [picture])

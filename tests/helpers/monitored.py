"""A bundle whose network has features, with the reference statistics of drawn faces, and faces to show it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from PIL import Image, ImageFilter

from benchmarks.studies.small import SIZE, small_contract, write_small_bundle
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle, sha256
from edge_runtime.model.reference import FEATURES, REFERENCE
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import mean_light, measured_quality, shorter_side
from export.proof.reference import describe, distances, fit, unseen_positions

FACES = 400


def network() -> ov.Model:
    """Answer logits, more fake the redder, and twelve features: mean levels and detail of three channels."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    random = np.random.default_rng(0)
    kernel = random.normal(size=(12, 3, 3, 3)).astype(np.float32)
    kernel[:3] = 0
    kernel[range(3), range(3), 1, 1] = 1.0
    convolved = ops.convolution(pixels, ops.constant(kernel), [2, 2], [1, 1], [1, 1], [1, 1])
    rectified = ops.concat([convolved, ops.relu(convolved)], 1)
    features = ops.reduce_mean(rectified, ops.constant(np.array([2, 3])), keep_dims=False)
    weights = np.zeros((2, 24), np.float32)
    weights[:, 0], weights[:, 2] = (-2, 2), (2, -2)
    logits = ops.matmul(features, ops.constant(weights), False, True)
    for node, name in ((logits, "logits"), (features, FEATURES)):
        node.output(0).get_tensor().set_names({name})
    return ov.Model([logits, features], [pixels], "monitored")


def drawn(seed: int, label: int, blur: float = 0.0, dim: float = 1.0) -> Image.Image:
    """Return a face of patches and noise; a fake one is redder, a real one bluer."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 180, (4, 4, 3), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int16) + random.integers(-20, 21, (48, 48, 3))
    pixels[..., 0 if label else 2] += 70
    picture = Image.fromarray((pixels * dim).clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture


def write_monitored_bundle(folder: Path) -> Bundle:
    """Write the bundle with a network in FP32."""
    write_small_bundle(folder, small_contract(), ("fp32",), network=network())
    bundle = Bundle.open(folder)
    classifier = Classifier(bundle.model("fp32"), bundle.contract)
    labels = np.arange(FACES) % 2
    crops = [face_pixels(drawn(seed, int(label)), None, bundle.contract) for seed, label in enumerate(labels)]
    rows = np.stack([classifier.rows(crop) for crop in crops])
    quality = np.array(
        [(*measured_quality(crop[0], shorter_side((48, 48), None)), mean_light(crop[0])) for crop in crops]
    )
    features, half = rows[..., 2:], np.arange(FACES) % 4 < 2
    whole = fit(features, labels, ["fp32"], count=6)
    places = np.empty((FACES, 7), np.float32)
    for fitted in (half, ~half):
        part = fit(features[fitted], labels[fitted], ["fp32"], count=6)
        places[~fitted] = unseen_positions(features[~fitted], part, whole)
    limit = float(np.quantile(distances(whole, features, "fp32"), 0.995)) * 1.1
    margins, calibration = (rows[..., 1] - rows[..., 0]).mean(1), bundle.contract.calibration("fp32")
    baseline = describe(places, margins, quality, np.zeros(FACES, bool), labels, calibration)
    np.savez_compressed(
        folder / REFERENCE,
        mean=whole.mean,
        axes=whole.axes,
        whitening=whole.whitening,
        centres=whole.centres,
        precisions=["fp32"],
        limits=[limit],
        **baseline.to_arrays(),
    )
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"][REFERENCE] = sha256(folder / REFERENCE)
    (folder / "model.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


def save_faces(folder: Path, seeds: Sequence[int], **changes: float) -> Path:
    """Save drawn faces, real and fake in turn, as PNG; return the folder."""
    folder.mkdir(parents=True)
    for seed in seeds:
        drawn(seed, seed % 2, **changes).save(folder / f"{seed:06}.png")
    return folder

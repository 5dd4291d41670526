"""Model API, DL Streamer and OpenVINO Model Server read what export writes."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from edge_runtime.errors import UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.bundle.ovms import write_repository

OVMS_KEYS = {
    "name": str,
    "base_path": str,
    "batch_size": (int, str),
    "model_version_policy": dict,
    "shape": (dict, str),
    "nireq": int,
    "target_device": str,
    "plugin_config": dict,
}
"""From MODELS_CONFIG_SCHEMA (src/schema.cpp of openvinotoolkit/model_server), which allows no other keys."""


@pytest.fixture(scope="module")
def pixels(tiny_bundle: Bundle, tiny_data: Path) -> np.ndarray:
    paths = [tiny_data / name / f"{index:02d}.png" for name in ("real", "fake") for index in range(5)]
    return np.concatenate([face_pixels(read_picture(path), None, tiny_bundle.contract) for path in paths])


def test_model_api_needs_no_configuration(tiny_bundle: Bundle, pixels: np.ndarray) -> None:
    models = pytest.importorskip("model_api.models", reason="needs openvino-model-api")
    model = models.ClassificationModel.create_model(str(tiny_bundle.path / "int8" / "model.xml"), device="CPU")
    logits = Classifier(tiny_bundle.model("int8"), tiny_bundle.contract).logits(pixels)
    for crop, expected in zip(pixels, logits, strict=True):
        # Model API takes BGR as OpenCV reads it and swaps the channels, as reverse_input_channels asks.
        result = model(np.ascontiguousarray(crop[..., ::-1]))
        assert result.top_labels[0].name == tiny_bundle.contract.labels[expected.argmax()]
        assert result.saliency_map.shape == (1, 2, 4, 4)
        assert result.feature_vector.shape == (1, 16)
        assert result.raw_scores.sum() == pytest.approx(1.0, abs=1e-3)


def test_model_info_follows_dl_streamers_rules(tiny_bundle: Bundle) -> None:
    root = ElementTree.parse(tiny_bundle.path / "int8" / "model.xml").getroot()
    section = root.find("./rt_info/model_info")
    assert section is not None
    info = {item.tag: item.attrib["value"] for item in section}
    assert {info[key] for key in ("reverse_input_channels", "multilabel", "output_raw_scores")} <= {"True", "False"}
    assert len(info["mean_values"].split()) == len(info["scale_values"].split()) == 3
    assert info["labels"].split() == ["real", "fake"]
    assert info["resize_type"] in ("crop", "standard", "fit_to_window", "fit_to_window_letterbox")


def test_a_repository_follows_the_model_servers_schema(tiny_bundle: Bundle, tmp_path: Path) -> None:
    config = write_repository(tiny_bundle, tmp_path / "served", precision="int8")
    values = json.loads(config.read_text(encoding="utf-8"))
    assert list(values) == ["model_config_list"]
    for entry in values["model_config_list"]:
        assert list(entry) == ["config"]
        assert {"name", "base_path"} <= set(entry["config"]) <= set(OVMS_KEYS)
        assert all(isinstance(value, OVMS_KEYS[key]) for key, value in entry["config"].items())
        versions = list((config.parent / entry["config"]["base_path"]).iterdir())
        assert [version.name for version in versions] == ["1"]
        assert {path.name for path in versions[0].iterdir()} == {"model.xml", "model.bin"}


def test_the_served_network_takes_pixels(tiny_bundle: Bundle, pixels: np.ndarray, tmp_path: Path) -> None:
    config = write_repository(tiny_bundle, tmp_path / "served", precision="int8")
    path = config.parent / "detector" / "1" / "model.xml"
    served = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert served.input("image").get_element_type() == ov.Type.u8
    answers = np.concatenate([served({"image": crop[None]})["logits"] for crop in pixels])
    expected = Classifier(tiny_bundle.model("int8"), tiny_bundle.contract).logits(pixels)
    np.testing.assert_allclose(answers, expected, atol=1e-4)


def test_a_repository_replaces_nothing(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--ovms"):
        write_repository(tiny_bundle, tmp_path, precision="int8")

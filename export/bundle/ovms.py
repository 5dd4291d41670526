"""A repository for OpenVINO Model Server, to serve one detector to many machines.

The preprocessing is built into the served network: clients send the model's pixels, uint8 [1, H, W, 3] RGB under the
name `image`, and get `logits`. So the server needs no settings for mean, scale or layout, which differ between its
versions.
"""

import json
from pathlib import Path

import openvino as ov

from edge_runtime.errors import UsageError
from edge_runtime.inference.classifier import build_network
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.paths import expand
from export.bundle.atomic import check_target, folder_in_one_step

CONFIG = "config.json"


def write_repository(bundle: Bundle, folder: Path, *, precision: Precision | str) -> Path:
    """Write `NAME/1/model.xml` and `config.json` into `folder` in one step; return the configuration's path.

    The bundle's name becomes the model's.

    Raises:
        UsageError: the folder holds something, or can't be written.
    """
    folder = expand(folder)
    check_target(folder, option="--ovms")
    name = bundle.manifest.name
    network = build_network(openvino_core(), bundle.model(precision), bundle.contract)
    # Paths are relative to the file; f32 as everywhere, so that the answers are the same.
    config = {
        "name": name,
        "base_path": name,
        "target_device": "CPU",
        "plugin_config": {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"},
    }
    try:
        with folder_in_one_step(folder) as partial:
            target = partial / name / "1" / "model.xml"
            target.parent.mkdir(parents=True)
            ov.save_model(network, target, compress_to_fp16=False)
            text = json.dumps({"model_config_list": [{"config": config}]}, indent=2)
            (partial / CONFIG).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--ovms {folder}: can't be written ({error.strerror or error}); choose another folder"
        ) from None
    return folder / CONFIG

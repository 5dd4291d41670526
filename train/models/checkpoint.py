"""Checkpoints: a model's weights with its contract. Reading one never runs code from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge_runtime.atomic import atomic_write
from edge_runtime.errors import CheckpointError, ContractError, UsageError
from edge_runtime.model.contract import LABELS, Fit, ModelContract, PixelRecipe
from edge_runtime.paths import expand
from train.choices import InputPreset
from train.models.backbones import CLASSES, find_backbone, rebuild_backbone
from train.models.state_dict import as_float32, check_keys, first_line, fit_names, log_notes, read_file, read_state

FORMAT = 1

INPUTS: Mapping[InputPreset, PixelRecipe] = {
    InputPreset.ARTICLE: PixelRecipe(resize_to=224, fit=Fit.STRETCH),
    InputPreset.RESIZE: PixelRecipe(resize_to=224),
    InputPreset.NATIVE: PixelRecipe(resize_to=None),
    InputPreset.NATIVE5: PixelRecipe(resize_to=None, crops=5),
    InputPreset.FRAME: PixelRecipe(resize_to=256),
}
"""How a face becomes the model's pixels, for an input of 224 pixels a side."""


def pixel_recipe(name: InputPreset, input_size: int) -> PixelRecipe:
    """Return the entry `name` of INPUTS for an input of `input_size` pixels a side."""
    recipe = INPUTS[name]
    return recipe if recipe.resize_to is None else replace(recipe, resize_to=recipe.resize_to * input_size // 224)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Attributes:
        state_dict: float32 tensors under the backbone's own names.
        path: the file it was read from.
        catalog: path of the catalog it was trained on, empty where unknown.
        options: arguments of the backbone's `build`, and its front end.
        extra: whatever else was saved with it, such as what a resumed training needs.
    """

    contract: ModelContract
    state_dict: Mapping[str, torch.Tensor]
    path: Path
    catalog: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network_sha256(self) -> str:
        """SHA-256 over architecture, options and weights: the network alone, however it was calibrated since."""
        head = json.dumps([self.contract.architecture, self.options], sort_keys=True, default=str)
        digest = hashlib.sha256(head.encode())
        for name, weight in sorted(self.state_dict.items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(weight.numpy().tobytes())
        return digest.hexdigest()


def save_checkpoint(
    path: Path | str, model: nn.Module, contract: ModelContract, *, catalog: str = "", **state: Any
) -> None:
    """Write a checkpoint and make its folder. The file is replaced in one step: a killed process leaves the old one.

    `catalog` is the path of the one it was trained on; `state` is more to save, tensors and plain values only.

    Raises:
        OSError: it can't be written, for example because the disk is full; no partial file is left.
    """
    values = {
        "format": FORMAT,
        "contract": contract.to_dict(),
        "model": model.state_dict(),
        "catalog": catalog,
        "options": getattr(model, "options", {}),
        **state,
    }
    path = expand(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path, "wb") as file:
            torch.save(values, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch fails once more while it closes the file.
            raise error.__context__ from None
        raise


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint that `save_checkpoint` wrote.

    Raises:
        CheckpointError: it is missing, broken, or not a checkpoint of this program.
    """
    path = expand(path)
    values = read_file(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT or not {"contract", "model"} <= values.keys():
        raise CheckpointError(
            f"{path}: not a checkpoint of this program; export-openvino takes a bare state_dict, with --arch, --labels "
            "and --input"
        )
    try:
        contract = ModelContract.from_dict(values["contract"])
    except ContractError as error:
        raise CheckpointError(f"{path}: {error}") from None
    weights = values["model"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: holds no weights under `model`; copy it again")
    if not isinstance(values.get("options", {}), dict) or not isinstance(values.get("catalog", ""), str):
        raise CheckpointError(f"{path}: its options or its catalog are damaged; copy it again")
    known = ("format", "contract", "model", "catalog", "options")
    extra = {key: value for key, value in values.items() if key not in known}
    state, options = as_float32(weights), values.get("options", {})
    return Checkpoint(contract, state, path, values.get("catalog", ""), options, extra)


def import_state_dict(
    path: Path | str, *, arch: str, labels: Sequence[str], input_preset: str, average: bool = False
) -> Checkpoint:
    """Read weights that another training saved, such as the first article's; log in one line what was adapted.

    Args:
        path: the file.
        arch: the backbone.
        labels: what its outputs mean, in index order; `fake, real` is swapped, so that fake is index 1. A single
            output z, for the label at index 1, becomes the logits 0 and z.
        input_preset: a value of InputPreset.
        average: take the running average that the file holds in addition to the weights.

    Raises:
        CheckpointError: it is missing, broken, or does not fit the backbone; the keys that do not fit are named.
        UsageError: architecture, labels or input are unknown, or there is no running average.
    """
    path, backbone = expand(path), find_backbone(arch)
    if input_preset not in INPUTS:
        raise UsageError(f"--input {input_preset}: unknown; choose one of {', '.join(INPUTS)}")
    if sorted(labels) != sorted(LABELS):
        raise UsageError(f"--labels {','.join(labels)}: give real,fake or fake,real, in the order of the outputs")
    found, own = read_state(path, average=average), backbone.build(CLASSES).state_dict()
    fitted = fit_names(found, own, backbone.head)
    state, notes = dict(fitted.tensors), fitted.notes
    head = (f"{backbone.head}.weight", f"{backbone.head}.bias")
    if all(key in state and state[key].shape[0] == 1 for key in head):
        state |= {key: torch.cat([torch.zeros_like(state[key]), state[key]]) for key in head}
        notes = (*notes, f"turned one logit, for {labels[1]}, into two")
    check_keys(state, own, str(path), arch)
    log_notes(path, notes)
    if tuple(labels) != LABELS:
        state |= {key: state[key].flip(0) for key in head}
    contract = ModelContract(
        arch,
        input_size=backbone.input_size,
        mean=backbone.mean,
        scale=backbone.scale,
        pixels=pixel_recipe(InputPreset(input_preset), backbone.input_size),
    )
    return Checkpoint(contract, state, path)


def load_model(checkpoint: Checkpoint) -> nn.Module:
    """Build the checkpoint's network, in evaluation mode.

    Raises:
        CheckpointError: its weights do not fit its architecture.
    """
    arch = checkpoint.contract.architecture
    try:
        model = rebuild_backbone(arch, checkpoint.options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: its options are damaged ({first_line(error)}); copy it again"
        ) from None
    check_keys(checkpoint.state_dict, model.state_dict(), str(checkpoint.path), arch)
    model.load_state_dict(checkpoint.state_dict, strict=True)
    return model.eval()

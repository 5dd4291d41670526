"""The state of a network: read without running any code of it, and held against what it should be."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edge_runtime.errors import CheckpointError


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """Read the state of a network, bare or out of a checkpoint of ours; floating values as float32.

    Raises:
        CheckpointError: it is missing, broken, or holds no state.
    """
    values = read_file(path)
    if isinstance(values, dict) and isinstance(values.get("model"), dict):
        values = values["model"]
    if not is_state(values):
        raise CheckpointError(f"{path}: holds no state_dict; save one with torch.save(model.state_dict(), …)")
    return as_float32(values)


def is_state(values: Any) -> bool:
    """Whether `values` are tensors by name."""
    return isinstance(values, dict) and all(isinstance(value, torch.Tensor) for value in values.values())


def as_float32(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return `state` with floating values of any kind as float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_file(path: Path) -> Any:
    """Read what `torch.save` wrote: tensors and plain values alone, nothing that runs.

    Raises:
        CheckpointError: it is missing, broken, or holds more than that.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; give a checkpoint (.pth)") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder; give a checkpoint (.pth)") from None
    except pickle.UnpicklingError:
        # PyTorch's own words are a paragraph about its options.
        raise CheckpointError(
            f"{path}: no checkpoint, or one that would run code when it is read; "
            "give a file that torch.save(model.state_dict(), …) wrote"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: broken or no checkpoint ({_first(error)}); copy it again") from None


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def check_keys(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], origin: str, name: str) -> None:
    """Check that `state` has exactly the keys and shapes of `own`, the state of backbone `name`.

    Raises:
        CheckpointError: it has not; the keys are named.
    """
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    if not (missing or unknown or other):
        return
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    said = "; ".join(f"{len(keys)} {what}: {_few(keys)}" for what, keys in parts if keys)
    raise CheckpointError(f"{origin}: not the weights of {name} ({said}); give the architecture it was trained with")


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")

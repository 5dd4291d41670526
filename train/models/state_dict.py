"""The weights of a network: read without running code from the file, and compared with what a backbone expects."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edge_runtime.errors import CheckpointError


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """Read a network's weights, bare or from a checkpoint of this program; floating-point values as float32.

    Raises:
        CheckpointError: the file is missing, broken, or holds no weights.
    """
    values = read_file(path)
    if isinstance(values, dict) and isinstance(values.get("model"), dict):
        values = values["model"]
    if not is_state(values):
        raise CheckpointError(f"{path}: holds no state_dict; save one with torch.save(model.state_dict(), …)")
    return as_float32(values)


def is_state(values: Any) -> bool:
    """Whether `values` maps names to tensors."""
    return isinstance(values, dict) and all(isinstance(value, torch.Tensor) for value in values.values())


def as_float32(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return `state` with all floating-point values as float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_file(path: Path) -> Any:
    """Read what `torch.save` wrote, tensors and plain values only.

    Raises:
        CheckpointError: the file is missing, broken, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; give a checkpoint (.pth)") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a directory; give a checkpoint (.pth)") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a checkpoint, or one that would run code when it is read; "
            "give a file that torch.save(model.state_dict(), …) wrote"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path}: broken, or not a checkpoint ({reason}); copy it again") from None


def check_keys(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], origin: str, name: str) -> None:
    """Check that `state` has exactly the keys and shapes of `own`, the weights of backbone `name`.

    Raises:
        CheckpointError: it does not; the keys are named.
    """
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    found = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}" + (", …" if len(keys) > 4 else "")
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", other))
        if keys
    ]
    if found:
        raise CheckpointError(
            f"{origin}: not the weights of {name} ({'; '.join(found)}); give the architecture it was trained with"
        )

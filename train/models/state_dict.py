"""Weights in the forms that people save them: read without running code from the file, and fitted to a backbone."""

import argparse
import contextlib
import logging
import pathlib
import pickle
import pickletools
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edge_runtime.errors import CheckpointError, UsageError

State = Mapping[str, torch.Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Keys under which trainings save the weights, besides an optimizer, an epoch and so on."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Keys under which they save a running average of the weights."""

COUNTERS = ("total_ops", "total_params")
"""Last part of the names of tensors that the profiler thop leaves in every layer."""

HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
    *((getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")  # type: ignore[attr-defined]
      for core in ("_core", "core") for name in ("scalar", "_reconstruct")),
]  # fmt: skip
"""Types of plain values that people save with the weights; building one runs no code from the file."""

SAVE_STATE = "save them with torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class FoundState:
    """The weights in a file, floating-point values as float32, with notes on what was chosen, renamed or left out."""

    tensors: State
    path: Path
    notes: tuple[str, ...] = ()


def read_state(path: Path, *, average: bool = False) -> FoundState:
    """Read weights that were saved bare or in a training's checkpoint; `average` takes their running average.

    Raises:
        CheckpointError: the file is missing, broken, or holds no weights.
        UsageError: it holds no running average.
    """
    values = read_file(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}, not weights; {SAVE_STATE}")
    notes = []
    averages = [key for key in AVERAGES if isinstance(values.get(key), dict)]
    if average and not averages:
        raise UsageError(f"--use-ema: {path} holds {_few(values)}, no running average; leave the option out")
    if averages and not average:
        notes.append(f"{averages[0]} is there too, --use-ema takes it")
    keys: Sequence[str] = averages if average else WRAPPERS
    while key := next((key for key in keys if isinstance(values.get(key), dict)), ""):
        values, keys = values[key], WRAPPERS
        notes.append(f"read from {key}")
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds {_few(values) or 'nothing'}, no weights; {SAVE_STATE}")
    if others := [key for key in values if key not in tensors]:
        notes.append(f"ignored {_few(others)}")
    return FoundState(as_float32(tensors), path, tuple(notes))


def fit_names(found: FoundState, own: State, head: str) -> FoundState:
    """Return `found` under the names of a backbone, where the difference is one of saving and not of the network.

    `own` are the backbone's own weights and `head` its last linear layer. Wrappers' prefixes (`module.`, `_orig_mod.`,
    `model.`) and profilers' counters go, missing counters of batches come, and a linear layer that replaced the head
    within a Sequential takes the head's name. What still differs afterwards is left for `check_keys`.
    """
    state, notes = dict(found.tensors), list(found.notes)
    if counters := [key for key in state if key.rpartition(".")[2] in COUNTERS]:
        state = {key: value for key, value in state.items() if key not in counters}
        notes.append(f"ignored {len(counters)} counters of a profiler")

    # A backbone that wraps another library's network has its own prefix, which a file may lack.
    outer = next(iter(own)).partition(".")[0] + "."
    if not all(key.startswith(outer) for key in own):
        outer = ""
    names = [key.removeprefix(outer) for key in own]
    prefixes = {key[: -len(names[0])] for key in state if f".{key}".endswith(f".{names[0]}")} or {""}
    prefix = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in state for name in names))
    outside = [key for key in state if not key.startswith(prefix)]
    state = {outer + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if prefix and prefix != outer:
        notes.append(f"removed the prefix {prefix}")
    if outside:
        notes.append(f"ignored {_few(outside)}")

    uncounted = {key: value for key, value in own.items() if key.endswith("num_batches_tracked") and key not in state}
    state |= uncounted
    if uncounted:
        notes.append("added num_batches_tracked")

    features = own[f"{head}.weight"].shape[1]
    parts = [f"{key}." for key in (head, head.rpartition(".")[0]) if key]
    replaced = [
        key.removesuffix(".weight")
        for key, value in state.items()
        if key not in own and key.endswith(".weight") and value.ndim == 2 and value.shape[1] == features
        if any(f"{key}.".startswith(part) for part in parts)
    ]
    if f"{head}.weight" not in state and len(replaced) == 1:
        for kind in ("weight", "bias"):
            if f"{replaced[0]}.{kind}" in state:
                state[f"{head}.{kind}"] = state.pop(f"{replaced[0]}.{kind}")
        notes.append(f"took {replaced[0]} for the head {head}")
    return replace(found, tensors=state, notes=tuple(notes))


def log_notes(path: Path, notes: Sequence[str]) -> None:
    """Log in one line how weights were read, if it was not as they were saved."""
    if notes:
        logging.getLogger("train").warning("note: %s: %s", path, "; ".join(notes))


def as_float32(state: State) -> State:
    """Return `state` with all floating-point values as float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_file(path: Path) -> Any:
    """Read what `torch.save` or safetensors wrote: tensors and plain values only.

    Raises:
        CheckpointError: the file is missing, broken, or holds anything else.
    """
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path}: a TorchScript model; save its weights: "
            f'model = torch.jit.load("{path.name}"); torch.save(model.state_dict(), "weights.pth")'
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; give a checkpoint (.pth)") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a directory; give a checkpoint (.pth)") from None
    except (
        OSError, EOFError, RuntimeError, ValueError, LookupError,
        pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError,
    ) as error:  # fmt: skip
        cause = error
    classes = pickled_classes(path)
    if any(name.startswith("torch.nn.modules.") for name in classes):
        raise CheckpointError(
            f"{path}: a whole model, which would run code when it is read; if you trust it, save its weights: "
            f'model = torch.load("{path.name}", weights_only=False); torch.save(model.state_dict(), "weights.pth")'
        )
    if classes:
        raise CheckpointError(
            f"{path}: holds {_few(classes)}, which could run code when it is read; if you trust it, "
            f'save the weights alone: values = torch.load("{path.name}", weights_only=False); '
            'torch.save(values["state_dict"], "weights.pth")'
        )
    wanted = "give the .pth that train-detector wrote"
    raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged; {wanted}") from cause


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def first_line(error: Exception) -> str:
    """Return the beginning of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def pickled_classes(path: Path) -> list[str]:
    """Return the classes and functions that unpickling the file would call, without calling any; torch's own left out.

    A file of torch < 1.6 is a row of five pickles, a newer one a zip archive with one.
    """
    names: dict[str, None] = {}
    with contextlib.suppress(ValueError, OSError, LookupError, zipfile.BadZipFile), contextlib.ExitStack() as opened:
        stream: IO[bytes] = opened.enter_context(path.open("rb"))
        if zipfile.is_zipfile(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
            (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            stream = opened.enter_context(archive.open(pickled))
        for _ in range(5):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    names[str(argument).replace(" ", ".")] = None
    known = ("collections.OrderedDict", "torch._utils.", "torch.storage.", "_codecs.encode")
    return [name for name in names if not name.startswith(known) and not name.endswith("Storage")]


def check_keys(state: State, own: State, origin: str, name: str) -> None:
    """Check that `state` has exactly the keys and shapes of `own`, the weights of backbone `name`.

    Raises:
        CheckpointError: it does not; the keys are named.
    """
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    shapes = {key: (list(state[key].shape), list(value.shape)) for key, value in own.items() if key in state}
    other = [f"{key} {found} instead of {wanted}" for key, (found, wanted) in shapes.items() if found != wanted]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    found = "; ".join(f"{len(keys)} {what}: {_few(keys)}" for what, keys in kinds if keys)
    if not found:
        return
    if len(missing) + len(other) < len(own) / 2:
        raise CheckpointError(
            f"{origin}: weights of {name} with other layers ({found}); "
            f"save a {name} with two outputs and its usual names"
        )
    raise CheckpointError(f"{origin}: not the weights of {name} ({found}); give the architecture it was trained with")


def _few(names: Iterable[Any]) -> str:
    """Join the first names by commas."""
    names = [str(name) for name in names]
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")

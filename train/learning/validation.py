"""After each epoch: renews a network's batch statistics, and judges it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import ModelContract
from train.data.catalog import FaceRecord
from train.data.sample import alternate_classes
from train.distributed import judged_together
from train.evaluation.logits import BATCH, judge, require_logits
from train.evaluation.metrics import auc
from train.models.network import torch_logits


def renew_statistics(
    model: nn.Module, contract: ModelContract, faces: Sequence[FaceRecord], count: int, device: torch.device
) -> None:
    """Set the batch statistics of `model` to those of `count` undamaged faces, as many real as fake.

    In training they follow augmented faces, and with a momentum of 0.01 (EfficientNet) a short run hardly moves them
    from those of ImageNet. Here they are the plain mean over batches; no other layer is in training mode.

    Raises:
        PictureGoneError: a picture can't be read any more.
        DataError: a logit is NaN or infinite.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers or not count:
        return
    # Whole batches: each one weighs the same, and a single face has no variance where a map is one pixel. Classes in
    # turn: a batch of one class hides what tells it from the other.
    chosen = alternate_classes(faces)[: min(count, len(faces)) // BATCH * BATCH or None]
    network, momenta = torch_logits(model, contract, str(device)), [layer.momentum for layer in layers]
    for layer in layers:
        layer.train().reset_running_stats()
        layer.momentum = None
    require_logits(chosen, judge(network, contract, chosen))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.eval().momentum = momentum


def validation_figures(
    model: nn.Module, contract: ModelContract, valid: Sequence[FaceRecord], device: torch.device
) -> dict[str, float]:
    """Return loss, accuracy at 0.5 and AUC of `model` on faces of both classes; each process judges its share.

    Raises:
        PictureGoneError: a picture can't be read any more.
        DataError: a logit is NaN or infinite.
    """
    network = torch_logits(model, contract, str(device))
    logits = judged_together(lambda faces: judge(network, contract, faces), valid)
    require_logits(valid, logits)
    labels, scores = np.array([face.label for face in valid]), fake_scores(logits)
    likelihood = np.clip(np.where(labels == 1, scores, 1 - scores), 1e-12, 1)
    return {
        "valid_loss": float(-np.log(likelihood).mean()),
        "valid_accuracy": float(((scores >= 0.5) == (labels == 1)).mean()),
        "auc": auc(labels, scores),
    }

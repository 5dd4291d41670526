"""How good a network is on the validation split while it trains."""

import numpy as np
import torch
from torch import nn

from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import ModelContract
from train.data.catalog import Catalog
from train.evaluation.logits import judge, require_logits
from train.evaluation.metrics import auc
from train.models.network import torch_logits


def validation_figures(
    model: nn.Module, contract: ModelContract, catalog: Catalog, device: torch.device
) -> dict[str, float]:
    """Return loss, accuracy at 0.5 and AUC of `model` on the validation faces.

    Raises:
        PictureGoneError: a picture can't be read any more.
        DataError: a logit is NaN or infinite.
    """
    valid = catalog.split("valid")
    logits = judge(torch_logits(model, contract, str(device)), contract, valid)
    require_logits(valid, logits)
    labels, scores = np.array([face.label for face in valid]), fake_scores(logits)
    likelihood = np.clip(np.where(labels == 1, scores, 1 - scores), 1e-12, 1)
    return {
        "valid_loss": float(-np.log(likelihood).mean()),
        "valid_accuracy": float(((scores >= 0.5) == (labels == 1)).mean()),
        "auc": auc(labels, scores),
    }

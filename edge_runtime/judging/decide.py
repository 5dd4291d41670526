"""From logits to scores."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fake_scores(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probability of fake, in [0, 1], for each row of `logits` [N, 2]: `Calibration.score` for many."""
    values = np.asarray(logits, dtype=np.float64)
    return 1.0 / (1.0 + np.exp(-np.clip((values[:, 1] - values[:, 0]) / temperature, -700.0, 700.0)))

"""Does the classifier miss what the explanation says matters?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fall", "summary"]


def fall(
    before: NDArray[np.floating], after: NDArray[np.floating], classes: NDArray[np.int64]
) -> NDArray[np.floating]:
    """``f(x)_c - f(removal)_c`` per clip [N], of logits or probabilities [N, C].

    >>> fall(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]]), np.array([0])).round(3)
    array([0.7])
    """
    rows = np.arange(len(classes))
    return before[rows, classes] - after[rows, classes]


def summary(name: str, probability: NDArray[np.floating], logit: NDArray[np.floating]) -> dict:
    """Median and mean of the falls [N]; NaN where nothing was explained."""
    if not len(probability):
        nan = float("nan")
        return {f"{name}_probability": nan, f"{name}_probability_mean": nan, f"{name}_logit": nan}
    return {
        f"{name}_probability": float(np.median(probability)),
        f"{name}_probability_mean": float(np.mean(probability)),
        f"{name}_logit": float(np.median(logit)),
    }

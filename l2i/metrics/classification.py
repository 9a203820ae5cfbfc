"""How well scores agree with labels. Curves are exact (every score is a threshold): with a few
fixed thresholds, average precision comes out at half of what it is.

They are scikit-learn's, to the last digit (``tests/test_metrics.py`` compares them), in a few lines
of numpy: whoever has a classifier judged from Python need not install it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.bool_]


def right(scores: Scores, labels: Labels) -> Labels:
    """Whether each clip's best class is a label: bool [N].

    >>> right(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[False, True], [False, True]])).tolist()
    [True, False]
    """
    return labels[np.arange(len(scores)), scores.argmax(axis=1)]


def accuracy(scores: Scores, labels: Labels) -> float:
    """Share of clips whose best class is a label.

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[False, True], [False, True]]))
    0.5
    """
    return float(right(scores, labels).mean())


def auprc(scores: Scores, labels: Labels) -> tuple[float, float, dict[int, float]]:
    """Average precision: macro, micro, and per class.

    Parameters
    ----------
    scores : [N, C]
    labels : [N, C], bool

    Returns
    -------
    macro, micro : float
        Over the classes that have a positive; NaN where none has.
    per_class : dict of int to float
        Classes without a positive are left out: their precision is not defined.
    """
    judged = [c for c in range(labels.shape[1]) if labels[:, c].any()]
    per_class = {c: _average_precision(scores[:, c], labels[:, c]) for c in judged}
    if not judged:
        return float("nan"), float("nan"), {}
    micro = _average_precision(scores[:, judged].ravel(), labels[:, judged].ravel())
    return float(np.mean(list(per_class.values()))), micro, per_class


def _curve(
    scores: Scores, labels: Labels
) -> tuple[NDArray[np.float64], NDArray[np.float64], Scores]:
    """Precision and recall of every threshold [T], the lowest first; there is a positive."""
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    # Equal scores are above a threshold together: only the last of them counts.
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    hits = np.cumsum(labels[order], dtype=np.float64)[last]
    return (hits / (last + 1))[::-1], (hits / hits[-1])[::-1], ranked[last][::-1]


def _average_precision(scores: Scores, labels: Labels) -> float:
    precision, recall, _ = _curve(scores, labels)
    return float(-np.sum(np.diff(np.append(recall, 0.0)) * precision))


def _f1(scores: Scores, labels: Labels) -> tuple[float, float]:
    precision, recall, thresholds = _curve(scores, labels)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    best = int(f1.argmax())
    return float(f1[best]), float(thresholds[best])


def max_f1(scores: Scores, labels: Labels) -> float:
    """Greatest F1 over all thresholds, classes taken together; NaN without a positive."""
    return _f1(scores.ravel(), labels.ravel())[0] if labels.any() else float("nan")


def best_thresholds(scores: Scores, labels: Labels) -> list[float]:
    """Per class, the threshold of the greatest F1; 0.5 for a class without a positive.

    Parameters
    ----------
    scores : [N, C]
        Probabilities.
    labels : [N, C], bool
    """
    return [
        _f1(scores[:, c], labels[:, c])[1] if labels[:, c].any() else 0.5
        for c in range(labels.shape[1])
    ]


def confusion(predicted: NDArray[np.int64], actual: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Counts [n, n]: rows are what the clip is, columns what the classifier says.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    table = np.zeros((n, n), dtype=np.int64)
    np.add.at(table, (actual, predicted), 1)
    return table

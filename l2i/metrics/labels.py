"""Which labels a classifier that did not learn from them doubts most.

Clips are ranked by the normalised margin of confident learning, the probability of the label less
that of the likeliest other class: Northcutt, Jiang, Chuang 2021, *Confident Learning: Estimating
Uncertainty in Dataset Labels*, arXiv 1911.00068, section 3. What ranks first is either mislabelled
or the classifier's surest mistake; only an ear can tell which.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from l2i.types import Task


def doubted_labels(
    probabilities: NDArray[np.floating],
    decisions: NDArray[np.bool_],
    labels: NDArray[np.bool_],
    task: Task,
    clips: Sequence[str],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Labels that the classifier contradicts, the surest contradiction first.

    Parameters
    ----------
    probabilities : float [N, C]
        For clips that the classifier was not trained on.
    decisions : bool [N, C]
        Classes that it says are there.
    labels : bool [N, C]
    task : Task
        With several labels per clip each class is a question of its own, and ``not x`` an answer.
    clips : sequence of str, N
    classes : sequence of str, C

    Returns
    -------
    DataFrame
        ``clip``, ``label``, ``predicted`` (class names), ``probability`` (of what is predicted),
        ``label_probability`` (of the label), and ``margin``, the second less the first, in [-1, 0].

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> y = np.array([[False, True], [False, True], [False, True]])
    >>> clips, classes = ["a.wav", "b.wav", "c.wav"], ["dog", "cat"]
    >>> table = doubted_labels(p, p > 0.5, y, Task.SINGLE_LABEL, clips, classes)
    >>> table[["clip", "label", "predicted", "margin"]].round(3).values.tolist()
    [['a.wav', 'cat', 'dog', -0.8], ['c.wav', 'cat', 'dog', -0.2]]
    """
    rows: list[tuple[str, str, str, float, float]] = []
    if task is Task.SINGLE_LABEL:
        for n in np.flatnonzero(labels.any(axis=1)).tolist():
            own, top = int(labels[n].argmax()), int(probabilities[n].argmax())
            if own != top:
                p, q = float(probabilities[n, top]), float(probabilities[n, own])
                rows.append((clips[n], classes[own], classes[top], p, q))
    else:
        for n, c in np.argwhere(decisions != labels).tolist():
            q, name = float(probabilities[n, c]), classes[c]
            if labels[n, c]:
                rows.append((clips[n], name, f"not {name}", 1 - q, q))
            else:
                rows.append((clips[n], f"not {name}", name, q, 1 - q))
    columns = ["clip", "label", "predicted", "probability", "label_probability", "margin"]
    table = pd.DataFrame([(*row, row[4] - row[3]) for row in rows], columns=columns)
    return table.sort_values("margin", kind="stable", ignore_index=True)

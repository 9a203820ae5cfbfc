"""Does the interpreter say what the classifier says? The labels play no part here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rank_of_class(
    classifier_logits: NDArray[np.floating], interpreter_logits: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Rank, from 1, of the classifier's class among the interpreter's classes, per clip [N].

    Ties count against the interpreter, so that one that says nothing is not called faithful.

    >>> rank_of_class(np.array([[0.0, 2.0, 1.0]]), np.array([[0.5, 0.4, 0.1]]))
    array([2])
    """
    c = classifier_logits.argmax(axis=1)
    own = interpreter_logits[np.arange(len(c)), c]
    return (interpreter_logits >= own[:, None]).sum(axis=1)


def topk_fidelity(ranks: NDArray[np.int64], k: int) -> float:
    """Share of clips whose classifier's class is among the interpreter's k best.

    >>> topk_fidelity(np.array([1, 2, 4]), 3)
    0.6666666666666666
    """
    return float((ranks <= k).mean())


def agreement(
    interpreter_scores: NDArray[np.floating], decisions: NDArray[np.bool_]
) -> dict[str, float]:
    """Multi-label: the interpreter's scores [N, C] against the classifier's decisions [N, C]."""
    from l2i.metrics.classification import auprc, max_f1

    macro, micro, _ = auprc(interpreter_scores, decisions)
    return {
        "fidelity_auprc_macro": macro,
        "fidelity_auprc_micro": micro,
        "fidelity_max_f1": max_f1(interpreter_scores, decisions),
    }

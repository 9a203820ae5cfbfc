"""Which clips a run's page shows: the most telling ones, by a rule that the page states.

A dozen of hundreds of clips are looked at, and those of the test list's begin tell the least. So up
to a third are mistakes, the surest first (`l2i.metrics.labels`); up to another third are those
whose class falls least when the explanation is removed; all others are spread over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax

from l2i.data.split import spread
from l2i.metrics.labels import doubted_labels
from l2i.recipes.measuring.measure import Evaluation
from l2i.types import Clip, Task

_WRONG = "one of the surest mistakes"
_WEAK = "its class falls least without the explanation"
_SPREAD = "one of its class"


def telling(e: Evaluation, clips: Sequence[Clip], n: int) -> list[tuple[int, str]]:
    """Indices of at most `n` clips, in the order of the rule above, and why each is there.

    Parameters
    ----------
    e : Evaluation
    clips : sequence of Clip
        Those of `e`, in its order.
    n : int
    """
    n = min(n, len(clips))
    third = -(-n // 3)
    chosen = dict.fromkeys(_surest_mistakes(e)[:third], _WRONG)
    weak = [i for i in _least_faithful(e) if i not in chosen]
    chosen |= dict.fromkeys(weak[: min(third, n - len(chosen))], _WEAK)
    rest = [i for i in range(len(clips)) if i not in chosen]
    fill = spread([clips[i] for i in rest], n - len(chosen))
    return list((chosen | {rest[k]: _SPREAD for k in fill}).items())


def _surest_mistakes(e: Evaluation) -> list[int]:
    """Clips whose label the classifier contradicts, in the order of ``labels.csv``."""
    if e.labels is None:
        return []
    p = softmax(e.logits, axis=1) if e.task is Task.SINGLE_LABEL else expit(e.logits)
    clips, classes = ([str(i) for i in range(n)] for n in p.shape)
    table = doubted_labels(p, e.decisions, e.labels, e.task, clips, classes)
    return [int(i) for i in table["clip"].unique()]


def _least_faithful(e: Evaluation) -> list[int]:
    """Clips with an explanation, by how much the class falls when it is removed, in the mean of
    its classes; the least first."""
    # FF is of what is heard; where that is not measured, the published rule's removal.
    falls = e.pairs.get("ff_mean", e.pairs.get("fall_probability"))
    if falls is None:
        return []
    of: dict[int, list[float]] = {}
    for clip, fall in zip(e.pairs["clip"], falls, strict=True):
        of.setdefault(int(clip), []).append(float(fall))
    return sorted(of, key=lambda clip: (float(np.mean(of[clip])), clip))

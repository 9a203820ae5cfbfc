"""Which clips a run's page shows: the most telling ones, by a rule that the page states.

A dozen of hundreds of clips are looked at, and those of the test list's begin tell the least. So up
to a third are mistakes, those first of which the classifier is surest; up to another third are
those whose class falls least when the explanation is removed; all others are spread over the
classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from l2i.recipes.examples import spread
from l2i.recipes.measure import Evaluation
from l2i.types import Clip, Task

__all__ = ["telling"]

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
    chosen = {int(i): _WRONG for i in _surest_mistakes(e)[:third]}
    weak = [i for i in _least_faithful(e) if i not in chosen]
    chosen |= dict.fromkeys(weak[: min(third, n - len(chosen))], _WEAK)
    rest = [i for i in range(len(clips)) if i not in chosen]
    fill = spread([clips[i] for i in rest], n - len(chosen))
    return list((chosen | {rest[k]: _SPREAD for k in fill}).items())


def _surest_mistakes(e: Evaluation) -> NDArray[np.int64]:
    """Clips about which the classifier is wrong, and how sure it is of that: the probability of
    its class, or, where there may be several, its greatest error of one."""
    if e.labels is None:
        return np.zeros(0, np.int64)
    single = e.task is Task.SINGLE_LABEL
    p = softmax(e.logits, axis=1) if single else expit(e.logits)
    missed = e.decisions != e.labels
    sure = np.where(missed, p if single else np.abs(p - e.labels), 0.0).max(axis=1)
    wrong = missed.any(axis=1).nonzero()[0]
    found: NDArray[np.int64] = wrong[np.argsort(-sure[wrong], kind="stable")]
    return found


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

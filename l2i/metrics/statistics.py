"""How sure a figure is, and whether two runs differ: for any figure, clip by clip.

Clips are what is drawn again: intervals say what other clips of the same kind would do to a
figure, and nothing of other seeds or folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_interval", "holm", "mcnemar", "wilcoxon"]

Values = NDArray[np.floating]


def bootstrap_interval(
    values: Values,
    statistic: Callable[..., Any] = np.mean,
    seed: int = 0,
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) of a statistic of independent values.

    Parameters
    ----------
    values : [N]
        NaN is left out.
    statistic : callable
        Of an array along an `axis`, such as `numpy.mean`.
    seed : int
    level : float
        Share of the draws within the interval.
    draws : int

    Returns
    -------
    float, float
        Both NaN without values; both the value where there is one.

    Examples
    --------
    >>> bootstrap_interval(np.full(5, 2.0))
    (2.0, 2.0)
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn: list[Values] = []
    # In pieces, so that many clips do not take gigabytes.
    for done in range(0, draws, 100):
        index = rng.integers(len(x), size=(min(100, draws - done), len(x)))
        drawn.append(statistic(x[index], axis=1))
    ends = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(ends[0]), float(ends[1])


def wilcoxon(differences: Values) -> float:
    """p of the signed-rank test (Wilcoxon 1945) that paired differences are centred on zero.

    Two-sided; differences of zero are left out, and without any other p is 1.

    Parameters
    ----------
    differences : [N]
        Finite.

    Examples
    --------
    >>> wilcoxon(np.zeros(4))
    1.0
    >>> wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    0.0625
    """
    from scipy import stats

    x = np.asarray(differences, np.float64)
    x = x[x != 0]
    return float(stats.wilcoxon(x).pvalue) if len(x) else 1.0


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """p of the exact test (McNemar 1947) that two things are right equally often.

    Only clips on which they differ count: were both equally good, each would win half of them.

    Parameters
    ----------
    first, second : bool [N]
        Of the same clips.

    Examples
    --------
    >>> mcnemar(np.array([True] * 5), np.array([False] * 5))
    0.0625
    """
    from scipy import stats

    a, b = np.asarray(first, np.bool_), np.asarray(second, np.bool_)
    won, differ = int((a & ~b).sum()), int((a != b).sum())
    return float(stats.binomtest(won, differ).pvalue) if differ else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number, by steps (Holm 1979).

    The chance that any of them is below a level, were there no difference at all, is at most
    that level.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, floor = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p) - rank) * p[i]))
        found[i] = floor
    return found

"""How sure a figure is, and whether two runs differ: for any figure, clip by clip.

Clips are what is drawn again, or recordings, where several clips are of one: intervals say what
others of the same kind would do to a figure, and nothing of other seeds or folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]
_DRAWS, _AT_ONCE = 1000, 100


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON has them: what is NaN or infinite is None.

    >>> finite({"accuracy": 0.5, "si_sdr": float("nan")})
    {'accuracy': 0.5, 'si_sdr': None}
    """
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def median(values: Values, axis: int | None = None) -> Any:
    """`numpy.median` of values some of which are infinite: NaN, without a word, where it lies
    between the two infinities.

    >>> float(median(np.array([-np.inf, 1.0, 2.0, np.inf])))
    1.5
    >>> float(median(np.array([-np.inf, np.inf])))
    nan
    """
    with np.errstate(invalid="ignore"):
        return np.median(values, axis=axis)


def bootstrap_interval(
    values: Values,
    statistic: Callable[..., Any] = np.mean,
    seed: int = 0,
    *,
    groups: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """95 % interval of a statistic of independent values, by the percentile bootstrap (Efron 1979).

    Parameters
    ----------
    values : [N] or [N, D]
        A row with NaN is left out.
    statistic : callable
        Takes an array and an `axis`, as `numpy.mean` does, or rows, as `ratio_of_means` does.
    seed : int
    groups : array [N], optional
        What each value is of: then groups are drawn again, with all their values, since values of
        one group are not independent.

    Returns
    -------
    float, float
        Both NaN without values; both the value where there is one.

    Examples
    --------
    >>> bootstrap_interval(np.full(5, 2.0))
    (2.0, 2.0)

    With one group there is nothing to draw but itself:

    >>> bootstrap_interval(np.array([1.0, 3.0]), groups=np.array(["a", "a"]))
    (2.0, 2.0)
    """
    x = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(x) if x.ndim == 1 else ~np.isnan(x).any(axis=1)
    x = x[known]
    if not len(x):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn: list[Values] = []
    place = np.arange(len(x))
    if groups is not None:
        place = np.unique(np.asarray(groups)[known], return_inverse=True)[1]
    order, size = np.argsort(place, kind="stable"), np.bincount(place)
    first = np.cumsum(size) - size
    # In pieces, so that many clips do not take gigabytes.
    for _ in range(0, _DRAWS, _AT_ONCE):
        picked = rng.integers(len(size), size=(_AT_ONCE, len(size)))
        if len(size) == len(x):
            drawn.append(statistic(x[picked], axis=1))
            continue
        taken = size[picked].ravel()
        ends = np.cumsum(taken)
        # The rows of each group that is picked, one group after another, draw after draw.
        rows = order[np.arange(ends[-1]) + np.repeat(first[picked].ravel() - ends + taken, taken)]
        lengths = size[picked].sum(axis=1)
        starts = np.cumsum(lengths) - lengths
        for length in np.unique(lengths):
            alike = starts[lengths == length, None] + np.arange(length)
            drawn.append(statistic(x[rows[alike]], axis=1))
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975), method="nearest")
    return float(low), float(high)


def ratio_of_means(values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    """The mean of the first column over that of the second, of rows [..., 2] along an `axis`.

    >>> ratio_of_means(np.array([[1.0, 2.0], [3.0, 6.0]])).item()
    0.5
    """
    means = values.mean(axis=axis)
    first, second = means[..., 0], means[..., 1]
    return np.divide(first, second, out=np.full_like(first, np.nan), where=second != 0)


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
        About the same clips.

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
    adjusted, floor = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = floor
    return adjusted

"""Whether the explanations of a class are of one kind, or fall into groups.

Clips that are right for another reason than the rest of their class stand out as a group of their
own, as Lapuschkin et al. 2019 (*Unmasking Clever Hans predictors*, Nature Communications 10:1096)
found by clustering heatmaps. Here the features are time-invariant: each part's share of an
explanation's energy. How many groups there are the data say, by the silhouette (Rousseeuw 1987);
how firm they are, resamples say, by the adjusted Rand index (Hubert, Arabie 1985).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Beyond it, distances between all pairs take long and say no more.
_MOST = 1000
_FEWEST, _SMALLEST, _LARGEST_COUNT = 12, 3, 5
# Below, groups are no more than what an even cloud falls into: Kaufman, Rousseeuw 1990 call less
# than a quarter no structure at all.
_STRUCTURE = 0.25
_RESAMPLES = 10


@dataclass(frozen=True)
class Groups:
    """Groups of a class's explanations.

    Attributes
    ----------
    members : int64 [N]
        The group of each explanation, from 0, the largest first.
    silhouette : float
        How far apart they are, from -1 to 1; NaN for a single group.
    stability : float
        Mean adjusted Rand index of groupings of 80 % of the explanations with this one; 1 is the
        same groups each time, 0 what chance makes. NaN for a single group.
    """

    members: NDArray[np.int64]
    silhouette: float
    stability: float

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.members.max()) + 1 if len(self.members) else 0


def grouped(evidence: NDArray[np.floating], seed: int = 0) -> Groups:
    """Group explanations by what they are made of.

    Parameters
    ----------
    evidence : [N, K]
        Each part's share of an explanation's energy.
    seed : int

    Examples
    --------
    >>> one, other = np.eye(4)[[0] * 20], np.eye(4)[[2] * 8]
    >>> grouped(np.concatenate([other, one])).members.tolist() == [1] * 8 + [0] * 20
    True
    >>> grouped(np.full((30, 4), 0.25)).count
    1
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    n = len(evidence)
    alone = Groups(np.zeros(n, np.int64), float("nan"), float("nan"))
    # Square roots of shares: their distance is Hellinger's, in which no loud part drowns the rest.
    x = np.sqrt(np.maximum(np.asarray(evidence, np.float64), 0))
    if n < _FEWEST or np.ptp(x, axis=0).max(initial=0.0) < 1e-6:
        return alone
    rng = np.random.default_rng(seed)
    some = rng.permutation(n)[:_MOST]

    def fit(rows: NDArray[np.int64], count: int) -> KMeans:
        return KMeans(count, n_init=5, random_state=seed).fit(x[rows])

    best, fitted = _STRUCTURE, None
    for count in range(2, _LARGEST_COUNT + 1):
        if len(np.unique(x[some].round(6), axis=0)) < count:
            break
        tried = fit(some, count)
        if np.bincount(tried.labels_, minlength=count).min() < _SMALLEST:
            continue
        score = float(silhouette_score(x[some], tried.labels_))
        if score > best:
            best, fitted = score, tried
    if fitted is None:
        return alone
    agreement = []
    for _ in range(_RESAMPLES):
        rows = rng.permutation(some)[: round(0.8 * len(some))]
        again = fit(rows, fitted.n_clusters)
        agreement.append(adjusted_rand_score(fitted.predict(x[rows]), again.labels_))
    members = fitted.predict(x)
    order = np.argsort(-np.bincount(members, minlength=fitted.n_clusters), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Groups(place[members].astype(np.int64), best, float(np.mean(agreement)))

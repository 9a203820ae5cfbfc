"""Does an explanation say how much each part counts, and does it change when it should, and only
then?

Masks are compared as wholes: by rank (`rank_correlation`), by direction (`cosine_distance`), by
norm (`relative_change`), as pictures (`ssim`).

Sources: infidelity and max-sensitivity, Yeh et al. 2019, arXiv 1901.09392; faithfulness
correlation, Bhatt, Weller, Moura 2020, arXiv 2005.00631; randomised weights, Adebayo et al. 2018,
arXiv 1810.03292; SSIM, Wang et al. 2004.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.mel import mel_places
from l2i.dsp.spectrogram import Domain

Values = NDArray[np.floating]
_BANDS = 8
_WINDOW = 7


def tiles(frames: int, domain: Domain) -> Tensor:
    """The tile of each bin: 8 by 8 parts of a clip of which each is as wide, by mel, and as long.

    Parameters
    ----------
    frames : int
        T.
    domain : Domain

    Returns
    -------
    Tensor [F, T], int64
        From 0 to 63.
    """
    band = (mel_places(domain.n_bins, domain.sample_rate) * _BANDS).long().clamp_max(_BANDS - 1)
    piece = (torch.arange(frames) * _BANDS) // frames
    return band.unsqueeze(1) * _BANDS + piece


def infidelity(sums: Values, falls: Values) -> Values:
    """Mean squared error of what an explanation says of sets of tiles, best scaled.

    ``E[(b a - d)^2]`` over sets, with a the sum of the attributions of a set, d the fall of the
    probability without it, and ``b = E[a d] / E[a^2]``.

    Parameters
    ----------
    sums, falls : [N, sets]

    Returns
    -------
    [N]
        The mean of the squared falls where the attributions are zero.

    Examples
    --------
    >>> infidelity(np.array([[1.0, 2.0]]), np.array([[0.1, 0.2]])).round(9).tolist()
    [0.0]
    >>> infidelity(np.array([[1.0, 1.0]]), np.array([[0.0, 0.2]])).round(9).tolist()
    [0.01]
    """
    square = (sums**2).mean(axis=1)
    both = (sums * falls).mean(axis=1)
    scale = np.divide(both, square, out=np.zeros_like(square), where=square > 0)
    return ((scale[:, None] * sums - falls) ** 2).mean(axis=1)


def faithfulness_correlation(sums: Values, falls: Values) -> Values:
    """Pearson correlation of the two arguments of `infidelity` [N, sets], over sets: [N].

    NaN where either does not vary.

    >>> faithfulness_correlation(np.array([[1.0, 2.0, 3.0]]), np.array([[0.3, 0.2, 0.1]])).tolist()
    [-1.0]
    """
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (sums, falls))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    correlations = np.full(len(norm), np.nan)
    np.divide((a * b).sum(axis=1), norm, out=correlations, where=norm > 1e-12)
    return correlations.round(12)


def relative_change(other: Tensor, mask: Tensor) -> Tensor:
    """``|M' - M| / |M|`` of masks [B, F, T]: [B], float64; NaN for a mask of zeros.

    >>> relative_change(torch.tensor([[[3.0, 3.0]]]), torch.tensor([[[3.0, 4.0]]])).tolist()
    [0.2]
    """
    a, b = other.flatten(1).double(), mask.flatten(1).double()
    norm = b.norm(dim=1)
    return torch.where(norm > 0, (a - b).norm(dim=1) / norm, torch.nan)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """``1 - cos(A, B)`` of masks [B, F, T]: [B], float64, in [0, 1].

    1 where one of them alone is zero, 0 where both are.

    >>> cosine_distance(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])).tolist()
    [1.0]
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    norm = x.norm(dim=1) * y.norm(dim=1)
    same = ~x.any(dim=1) & ~y.any(dim=1)
    distance = 1 - (x * y).sum(dim=1) / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return torch.where(same, 0.0, distance).clamp(0.0, 1.0)


def rank_correlation(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Spearman's rank correlation of masks or gates [B, ...], with equal values of one rank: [B].

    Where a mask is the same everywhere there is no order: 1 where both are, since neither heard
    what was changed, else 0.

    Examples
    --------
    >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[9.0, 5.0, 1.0]])).tolist()
    [-1.0]
    >>> ones = torch.ones(1, 3)
    >>> rank_correlation(ones, ones).item(), rank_correlation(ones, torch.rand(1, 3)).item()
    (1.0, 0.0)
    """
    from scipy.stats import rankdata

    correlations = []
    for x, y in zip(a.flatten(1).cpu().numpy(), b.flatten(1).cpu().numpy(), strict=True):
        flat = [np.ptp(v) == 0 for v in (x, y)]
        if any(flat):
            correlations.append(float(all(flat)))
            continue
        p, q = (rankdata(v) for v in (x, y))
        p, q = p - p.mean(), q - q.mean()
        correlations.append(float((p * q).sum() / math.sqrt((p**2).sum() * (q**2).sum())))
    return np.array(correlations)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of masks as pictures, over windows of seven bins by seven frames.

    Parameters
    ----------
    a, b : Tensor [B, F, T]
        In [0, 1]; at least seven by seven.

    Returns
    -------
    Tensor [B], float64
        1 for equal masks.

    Examples
    --------
    Between constant masks only the means differ: (2 x y + C1) / (x^2 + y^2 + C1), with C1 = 0.0001.

    >>> grey = torch.full((1, 9, 9), 0.5)
    >>> round(ssim(grey, 2 * grey).item(), 4)
    0.8
    """

    def mean(x: Tensor) -> Any:
        return F.avg_pool2d(x.unsqueeze(1), _WINDOW, stride=1)[:, 0]

    x, y = a.double(), b.double()
    mx, my = mean(x), mean(y)
    # Covariances of a sample, as is usual for this window.
    n = _WINDOW**2
    unbiased = n / (n - 1)
    xx, yy, xy = (
        unbiased * (mean(p * q) - mp * mq)
        for p, q, mp, mq in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    c1, c2 = 0.01**2, 0.03**2
    map_ = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))
    return map_.mean(dim=(1, 2))

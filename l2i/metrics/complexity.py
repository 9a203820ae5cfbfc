"""How much of a clip a mask singles out: little is easy to listen to.

The figures look at the mask alone and not at what it keeps; a mask of zeros singles nothing out,
and has neither sparseness nor complexity. The mean is to stand beside every other figure: who keeps
all of a clip convinces any classifier, and has explained nothing.

Sources: Paissan, Della Libera, Ravanelli, Subakan, *Listenable Maps for Audio Classifiers*, ICML
2024, arXiv 2403.13086, after Chalasani et al. 2020 (sparseness) and Bhatt et al. 2020
(complexity); of the mean, the same authors, *Listenable Maps for Zero-Shot Audio Classifiers*,
NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sparseness(mask: Tensor) -> Tensor:
    """SPS: Gini index of each mask, 0 where all bins are equal, near 1 where few have all.

    With the values in ascending order m_1 ... m_N::

        1 - 2 sum_i m_i (N - i + 1/2) / (N sum_i m_i)

    Parameters
    ----------
    mask : Tensor [B, F, T]
        Non-negative.

    Returns
    -------
    Tensor [B], float64
        NaN for a mask of zeros.

    Examples
    --------
    >>> sparseness(torch.tensor([[[0.0, 0.0, 0.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]]])).tolist()
    [0.75, 0.0]
    """
    ordered = mask.flatten(1).sort(dim=1).values.double()
    n = ordered.shape[1]
    weight = torch.arange(n, 0, -1, dtype=torch.float64, device=mask.device) - 0.5
    total = ordered.sum(dim=1)
    return torch.where(total > 0, 1 - 2 * (ordered @ weight) / (n * total), torch.nan)


def complexity(mask: Tensor) -> Tensor:
    """COMP: entropy -sum p ln p of each mask as a distribution, p = M / sum M, in nats.

    Parameters
    ----------
    mask : Tensor [B, F, T]
        Non-negative.

    Returns
    -------
    Tensor [B], float64
        From 0 (one bin) to ln(F T); NaN for a mask of zeros.

    Examples
    --------
    >>> complexity(torch.tensor([[[0.0, 0.5, 0.5, 0.0]]])).exp().tolist()
    [2.0]
    """
    flat = mask.flatten(1).double()
    total = flat.sum(dim=1, keepdim=True)
    p = flat / total.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(total[:, 0] > 0, -torch.special.xlogy(p, p).sum(dim=1), torch.nan)


def mean_mask(mask: Tensor) -> Tensor:
    """Mean over all bins, silent ones too, of each mask [B, F, T]: [B], float64, in [0, 1].

    >>> mean_mask(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).tolist()
    [0.5]
    """
    return mask.double().mean(dim=(1, 2))

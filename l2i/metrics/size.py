"""How much an explanation keeps. It is to stand beside every other figure: who keeps all of a clip
convinces any classifier, and has explained nothing.

Source of the mean mask as a figure: Paissan, Della Libera, Ravanelli, Subakan, *Listenable Maps
for Zero-Shot Audio Classifiers*, NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kept_energy", "linear_gain", "mean_mask"]


def linear_gain(mask: Tensor, size: Tensor, *, linear: bool) -> Tensor:
    """What a mask multiplies ``|X|`` by.

    A mask M of log magnitudes turns A = ``|X|`` into expm1(M log(1 + A)): a gain of that over A,
    which for a loud bin is far below M.

    Parameters
    ----------
    mask : Tensor [B, F, T]
        In [0, 1].
    size : Tensor [B, F, T]
        ``|X|``.
    linear : bool
        Whether the mask is such a gain already.

    Returns
    -------
    Tensor [B, F, T]
        In [0, 1]; of a mask of log magnitudes 0 where there is no sound.

    Examples
    --------
    With A = 3, log2(1 + A) = 2, so that half of it is log2(1 + 1):

    >>> half = torch.full((1, 1, 1), 0.5)
    >>> round(linear_gain(half, torch.full((1, 1, 1), 3.0), linear=False).item(), 6)
    0.333333
    """
    if linear:
        return mask
    kept = (mask * size.log1p()).expm1()
    return torch.where(size > 0, kept / size.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)


def kept_energy(gain: Tensor, size: Tensor) -> Tensor:
    """Share of a clip's energy that its explanation has: ``sum |M X|^2 / sum |X|^2``.

    Parameters
    ----------
    gain : Tensor [B, F, T]
        M; see `linear_gain`.
    size : Tensor [B, F, T]
        ``|X|``.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN for silence.

    Examples
    --------
    >>> size = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    >>> kept_energy(torch.tensor([[[1.0, 0.5]], [[1.0, 1.0]]]), size).tolist()
    [0.4, nan]
    """
    whole = size.double().square().sum(dim=(1, 2))
    part = (gain * size).double().square().sum(dim=(1, 2))
    return torch.where(whole > 0, part / whole, torch.nan)


def mean_mask(mask: Tensor) -> Tensor:
    """Mean over all bins, silent ones too, of each mask [B, F, T]: [B], float64, in [0, 1].

    >>> mean_mask(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).tolist()
    [0.5]
    """
    return mask.double().mean(dim=(1, 2))

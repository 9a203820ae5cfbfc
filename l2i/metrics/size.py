"""How much an explanation keeps. It is to stand beside every other figure: who keeps all of a clip
convinces any classifier, and has explained nothing.

Source of the mean mask as a figure: Paissan, Della Libera, Ravanelli, Subakan, *Listenable Maps
for Zero-Shot Audio Classifiers*, NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from l2i.dsp.spectrogram import linear_gain

__all__ = ["kept_energy", "linear_gain", "mean_mask"]


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

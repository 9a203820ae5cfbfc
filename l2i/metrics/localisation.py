"""Does an explanation point at the moments when the class sounds? Where those are known.

A frame is active where its energy is within 20 dB of the loudest frame's, so that a clip's level
plays no part; of the class's part as of what the explanation keeps.

Source of the pointing game: Zhang et al., *Top-down Neural Attention by Excitation Backprop*, IJCV
2018, arXiv 1608.00507; here its map is the energy of what is kept, frame by frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["active_frames", "pointing", "time_iou"]

_RANGE_DB = 20.0


def active_frames(size: Tensor) -> Tensor:
    """Frames within 20 dB of the loudest one, of magnitudes [B, F, T]: [B, T], bool.

    None of silence.

    >>> active_frames(torch.tensor([[[1.0, 0.2, 0.05, 0.0]]])).tolist()
    [[True, True, False, False]]
    """
    energy = size.double().square().sum(dim=1)
    loudest = energy.amax(dim=1, keepdim=True)
    return (energy >= loudest * 10 ** (-_RANGE_DB / 10)) & (energy > 0)


def time_iou(kept: Tensor, part: Tensor) -> Tensor:
    """Active frames that both have, over those that either has.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        Magnitudes of the explanation, and of the part that carries the class.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN where the part is silent.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> time_iou(torch.tensor([[[0.0, 1.0, 1.0, 0.0]]]), part).round(decimals=4).tolist()
    [0.3333]
    """
    a, b = active_frames(kept), active_frames(part)
    either = (a | b).sum(dim=1).double()
    return torch.where(b.any(dim=1), (a & b).sum(dim=1) / either, torch.nan)


def pointing(kept: Tensor, part: Tensor) -> Tensor:
    """1 where the explanation is loudest while the part is active, else 0.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        As for `time_iou`.

    Returns
    -------
    Tensor [B], float64
        0 for an explanation of nothing; NaN where the part is silent.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0]]])
    >>> pointing(torch.tensor([[[0.1, 0.2, 0.3]]]), part).tolist()
    [0.0]
    """
    energy = kept.double().square().sum(dim=1)
    b = active_frames(part)
    hit = b.gather(1, energy.argmax(dim=1, keepdim=True))[:, 0] & energy.any(dim=1)
    return torch.where(b.any(dim=1), hit.double(), torch.nan)

"""How much an explanation keeps. It is to stand beside every other figure: who keeps all of a clip
convinces any classifier, and has explained nothing.

Source of the mean mask as a figure: Paissan, Della Libera, Ravanelli, Subakan, *Listenable Maps
for Zero-Shot Audio Classifiers*, NeurIPS 2024.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_mask"]


def mean_mask(mask: Tensor) -> Tensor:
    """Mean over all bins, silent ones too, of each mask [B, F, T]: [B], float64, in [0, 1].

    >>> import torch
    >>> mean_mask(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).tolist()
    [0.5]
    """
    return mask.double().mean(dim=(1, 2))

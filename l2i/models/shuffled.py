"""A classifier that has forgotten what it learnt: its weights, shuffled within each tensor.

Sizes and distributions of the weights are as they were, so that nothing but what was learnt is
gone. An explanation that stays as it was did not come from there.

Source: Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018, arXiv 1810.03292.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from l2i.types import Classifier


def shuffled(classifier: Classifier, seed: int) -> Classifier | None:
    """A copy whose weights are shuffled.

    Parameters
    ----------
    classifier : Classifier
        Left as it is.
    seed : int

    Returns
    -------
    Classifier or None
        None where it has no weights that could be shuffled: a black box.
    """
    names = [name for name, value in vars(classifier).items() if isinstance(value, nn.Module)]
    if not any(True for name in names for _ in getattr(classifier, name).parameters()):
        return None
    shuffled = deepcopy(classifier)
    # A module may hold another one: each tensor is shuffled once.
    weights = {id(w): w for name in names for w in getattr(shuffled, name).parameters()}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in weights.values():
            order = torch.randperm(w.numel(), generator=generator)
            w.copy_(w.flatten()[order.to(w.device)].view_as(w))
    return shuffled

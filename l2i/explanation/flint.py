"""FLINT: attributes of hidden maps that speak for a class, and where they were heard (Parekh,
Mozharovskyi, d'Alché-Buc, *A Framework to Learn with Interpretation*, NeurIPS 2021, arXiv
2010.09345). How they are learnt is in `l2i.training.attributes`.

The relevance of an attribute is what L2I's is of a component, its contribution over the greatest
one, and those above the threshold are taken. The mask is the sum of their maps, each by its
relevance, divided by its greatest value.

Differences: published explanations are pictures that excite an attribute most, which cannot be
played; masks of the attributes' maps can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, relevance, select
from l2i.explanation.families import LearntMask
from l2i.models.attributes import Attributes
from l2i.models.heard import Heard

__all__ = ["Flint"]


class Flint(LearntMask):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    parts = ("attributes",)
    network: Attributes

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        super().__init__(subject, settings)
        self.threshold = settings.threshold

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain; where nothing speaks for the class, zero."""
        places, phi, _ = self.network(heard.features.maps)
        r = relevance(phi, self.network.theta, classes)
        r = r * select(r, self.threshold)
        spoken = torch.einsum("bj,bjrt->brt", r, places)
        mask = self.network.bins(spoken, heard.size.shape[2])
        greatest = mask.amax((1, 2), keepdim=True).clamp_min(torch.finfo(mask.dtype).tiny)
        return (mask / greatest).clamp(0, 1)

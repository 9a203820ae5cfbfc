"""VIBI: the chunks of a clip that tell most of what the classifier says (Bang, Xie, Lee, Wu, Xing,
*Explaining a Black-box by Using a Deep Variational Information Bottleneck Approach*, AAAI 2021,
arXiv 1902.06918). How it learns is in `l2i.training.chunks`.
"""

from __future__ import annotations

from torch import Tensor

from l2i.explanation.families import LearntMask
from l2i.models.chunks import ChunkSelector
from l2i.models.heard import Heard

__all__ = ["Vibi"]


class Vibi(LearntMask):
    """The likeliest chunks, as they are, whatever class is named: it explains the decision."""

    parts = ("chunk-selector",)
    needs_layers = False
    network: ChunkSelector

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T] of zeros and ones."""
        chosen = self.network.likeliest(self.network.odds(heard.size))
        mask: Tensor = self.network.mask(chosen, heard.size.shape[2])
        return mask

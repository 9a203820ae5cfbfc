"""VIBI: the chunks of a clip that tell most of what the classifier says (Bang, Xie, Lee, Wu, Xing,
*Explaining a Black-box by Using a Deep Variational Information Bottleneck Approach*, AAAI 2021,
arXiv 1902.06918). How it learns is in `l2i.training.chunks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.chunks import ChunkSelector
from l2i.models.heard import Heard

__all__ = ["Vibi"]


class Vibi:
    """The likeliest chunks, as they are, whatever class is named: it explains the decision."""

    parts: tuple[str, ...] = ("chunk-selector",)
    layers: tuple[str, ...] = ()
    linear = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: ChunkSelector = subject.parts[self.parts[0]]

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T] of zeros and ones; of silence, zero."""
        chosen = self.network.likeliest(self.network.odds(heard.size))
        mask = self.network.mask(chosen, heard.size.shape[2])
        return mask * audible(heard.size).view(-1, 1, 1)

"""L-MAC, and L-MAC through the sound: masks of a trained decoder (Paissan, Ravanelli, Subakan,
*Listenable Maps for Audio Classifiers*, ICML 2024, arXiv 2403.13086).

The decoder is not told which class is asked for: its mask is of what the classifier decided,
whatever class is named. How it learns is in `l2i.training.mask_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.heard import Heard
from l2i.models.mask_decoder import MaskDecoder

__all__ = ["LMac", "LMacAudio"]


class LMac:
    """Masks of log(1 + |X|), learnt through the classifier's features, as published."""

    parts: tuple[str, ...] = ("mask-decoder",)
    linear = False
    needs_gradients = True
    needs_layers = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: MaskDecoder = subject.parts[self.parts[0]]
        self.layers = self.network.maps

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        mask: Tensor = self.network(heard.features.maps, heard.size.shape[2])
        return mask * audible(heard.size).view(-1, 1, 1)


class LMacAudio(LMac):
    """Masks of |X|, learnt through the sound: as a linear gain, judged as it is heard."""

    parts = ("audio-mask-decoder",)
    linear = True

"""L-MAC, and L-MAC through the sound: masks of a trained decoder (Paissan, Ravanelli, Subakan,
*Listenable Maps for Audio Classifiers*, ICML 2024, arXiv 2403.13086).

The decoder is not told which class is asked for: its mask is of what the classifier decided,
whatever class is named. How it learns is in `l2i.training.mask_decoder`.
"""

from __future__ import annotations

from torch import Tensor

from l2i.explanation.families import LearntMask
from l2i.models.heard import Heard
from l2i.models.mask_decoder import MaskDecoder

__all__ = ["LMac", "LMacAudio"]


class LMac(LearntMask):
    """Masks of log(1 + |X|), learnt through the classifier's features, as published."""

    parts: tuple[str, ...] = ("mask-decoder",)
    linear = False
    needs_gradients = True
    network: MaskDecoder

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T]."""
        mask: Tensor = self.network(heard.features.maps, heard.size.shape[2])
        return mask


class LMacAudio(LMac):
    """Masks of |X|, learnt through the sound: as a linear gain, judged as it is heard."""

    parts = ("audio-mask-decoder",)
    linear = True

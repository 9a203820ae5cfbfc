"""PIQ: masks of a quantised hidden map (Paissan, Subakan, Ravanelli, *Posthoc Interpretation via
Quantization*, 2023, arXiv 2303.12659). How it learns is in `l2i.training.quantised`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.heard import Heard
from l2i.models.quantised import QuantisedMask

__all__ = ["Piq"]


class Piq:
    """Masks of log(1 + |X|), by the codes of the class that is asked for."""

    parts: tuple[str, ...] = ("quantised-mask",)
    linear = False
    needs_layers = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: QuantisedMask = subject.parts[self.parts[0]]
        self.layers = self.network.maps

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        logits, _, _ = self.network(heard.features.maps[0], classes, heard.size.shape[2])
        mask: Tensor = logits.sigmoid() * audible(heard.size).view(-1, 1, 1)
        return mask

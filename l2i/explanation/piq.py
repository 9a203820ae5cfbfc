"""PIQ: masks of a quantised hidden map (Paissan, Subakan, Ravanelli, *Posthoc Interpretation via
Quantization*, 2023, arXiv 2303.12659). How it learns is in `l2i.training.quantised`.
"""

from __future__ import annotations

from torch import Tensor

from l2i.explanation.families import LearntMask
from l2i.models.heard import Heard
from l2i.models.quantised import QuantisedMask

__all__ = ["Piq"]


class Piq(LearntMask):
    """Masks of log(1 + |X|), by the codes of the class that is asked for."""

    parts = ("quantised-mask",)
    linear = False
    network: QuantisedMask

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T]."""
        logits, _, _ = self.network(heard.features.maps[0], classes, heard.size.shape[2])
        mask: Tensor = logits.sigmoid()
        return mask

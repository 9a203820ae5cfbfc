"""PIQ's part: a quantised mask that finds the loud bins, class by class.

With S = log(1 + |X|) of a clip, z what the network quantises of the classifier's hidden map, and q
the codes::

    BCE(mask, 1[S > .35 max S])  +  mean (q - sg z)^2  +  mean (z - sg q)^2

where sg lets no gradient pass. The class is the one that the classifier decides on; beyond that and
its hidden map the classifier has no part in the loss.

Source: Paissan, Subakan, Ravanelli, *Posthoc Interpretation via Quantization*, 2023, arXiv
2303.12659.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.heard import Heard
from l2i.models.quantised import QuantisedMask
from l2i.training.interpreter import layers_of
from l2i.training.masks import MaskPart, MaskSettings
from l2i.types import Classifier


class QuantisedSettings(MaskSettings):
    """The table ``[parts.quantised-mask]``."""

    codes: int = Field(1024, ge=1, description="In all; each class has one at least.")
    loud: float = Field(0.35, gt=0, lt=1, description="Share of the greatest S that is loud.")


class QuantisedPart(MaskPart):
    """PIQ's network; see the module."""

    name = "quantised-mask"
    settings = QuantisedSettings
    network = QuantisedMask

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """The deepest one that an interpreter would read."""
        return layers_of(classifier)[-1:]

    def shape(self, settings: QuantisedSettings, first: Heard) -> dict[str, Any]:
        """As wide as the map."""
        return {**super().shape(settings, first), "channels": first.features.maps[0].shape[1]}

    def loss(self, network: nn.Module, heard: Heard, settings: QuantisedSettings) -> Tensor:
        """See the module."""
        own = heard.logits.argmax(1)
        logits, z, q = network(heard.features.maps[0], own, heard.size.shape[2])
        size = heard.size.log1p()
        loud = (size > settings.loud * size.amax((1, 2), keepdim=True)).float()
        learnt = F.mse_loss(q, z.detach()) + F.mse_loss(z, q.detach())
        return F.binary_cross_entropy_with_logits(logits, loud) + learnt


QUANTISED_MASK = QuantisedPart()

"""FLINT's part: attributes of hidden maps, that say what the classifier says, and what was heard.

With phi the attributes of a clip, g their answer, f the classifier's, S = log(1 + |X|) on a coarse
grid, and E the entropy of the softmax::

    fidelity * CE(g, f)  +  input * mean (decoded(phi) - S)^2
        +  concise * (mean E(phi) - E(mean phi))  +  sparse * mean phi

The third term wants few attributes for each clip, and different ones for different clips.

Source: Parekh, Mozharovskyi, d'Alché-Buc, *A Framework to Learn with Interpretation*, NeurIPS 2021,
arXiv 2010.09345; weights as in its experiments on pictures of digits. Differences: the classifier
is frozen, as where the paper interprets one after the fact; and all terms are there from the first
epoch.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.attributes import Attributes
from l2i.models.heard import Heard
from l2i.models.losses import fidelity_loss
from l2i.training.masks import MaskPart, MaskSettings


class AttributeSettings(MaskSettings):
    """The table ``[parts.attributes]``."""

    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    attributes: int = Field(24, ge=1, description="J.")
    width: int = Field(64, ge=1, description="Channels that each hidden map is read with.")
    fidelity: float = Field(0.5, ge=0, description="Weight of the classifier's answer.")
    input: float = Field(0.8, ge=0, description="Weight of what the decoder makes of attributes.")
    concise: float = Field(0.2, ge=0, description="Weight of few attributes, not always the same.")
    sparse: float = Field(0.1, ge=0, description="Weight of the attributes' mean.")


class AttributePart(MaskPart):
    """FLINT's networks; see the module."""

    name = "attributes"
    settings = AttributeSettings
    network = Attributes

    def loss(self, network: nn.Module, heard: Heard, settings: AttributeSettings) -> Tensor:
        """See the module."""
        s, flint = settings, network
        _, phi, logits = flint(heard.features.maps)
        fidelity = fidelity_loss(heard.logits, logits, heard.classifier.task)
        wanted: Tensor = flint.coarse(heard.size)  # type: ignore[operator]
        decoded = F.mse_loss(flint.decoded(phi), wanted)  # type: ignore[operator]
        concise = entropy(phi).mean() - entropy(phi.mean(0))
        return (
            s.fidelity * fidelity + s.input * decoded + s.concise * concise + s.sparse * phi.mean()
        )


def entropy(x: Tensor) -> Tensor:
    """Entropy [...] of the softmax of values [..., J], in nats."""
    log = x.log_softmax(-1)
    return -(log.exp() * log).sum(-1)


ATTRIBUTES = AttributePart()

"""Parts of PIQ, VIBI and FLINT: each a network, a loss, and their settings.

The methods are in `l2i.explanation.learnt`, and what all such trainings share in
`l2i.training.masks`.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.attributes import Attributes
from l2i.models.chunks import ChunkSelector, drawn
from l2i.models.heard import Heard
from l2i.models.losses import fidelity_loss
from l2i.models.quantised import QuantisedMask
from l2i.training.interpreter import layers_of
from l2i.training.masks import MaskPart, MaskSettings
from l2i.types import Classifier


class QuantisedSettings(MaskSettings):
    """The table ``[parts.quantised-mask]``."""

    codes: int = Field(1024, ge=1, description="In all; each class has one at least.")
    loud: float = Field(0.35, gt=0, lt=1, description="Share of the greatest S that is loud.")


class QuantisedPart(MaskPart):
    """PIQ's network: a quantised mask that finds the loud bins, class by class.

    With S = log(1 + |X|) of a clip, z what the network quantises of the classifier's hidden map,
    and q the codes::

        BCE(mask, 1[S > .35 max S])  +  mean (q - sg z)^2  +  mean (z - sg q)^2

    where sg lets no gradient pass. The class is the one that the classifier decides on; beyond that
    and its hidden map the classifier has no part in the loss.

    Source: Paissan, Subakan, Ravanelli, *Posthoc Interpretation via Quantization*, 2023, arXiv
    2303.12659.
    """

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
        """See the class."""
        logits, z, q = network(heard.features.maps[0], heard.logits.argmax(1), heard.size.shape[2])
        size = heard.size.log1p()
        loud = (size > settings.loud * size.amax((1, 2), keepdim=True)).float()
        learnt = F.mse_loss(q, z.detach()) + F.mse_loss(z, q.detach())
        return F.binary_cross_entropy_with_logits(logits, loud) + learnt


class ChunkSettings(MaskSettings):
    """The table ``[parts.chunk-selector]``."""

    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    share: float = Field(0.2, gt=0, le=1, description="Share of the chunks that are kept.")
    piece_s: float = Field(0.25, gt=0, description="Length of a chunk in seconds.")
    width: int = Field(64, ge=1, description="Channels of the convolutions.")
    temperature: float = Field(0.5, gt=0, description="Temperature of the draws, while it learns.")
    compression: float = Field(0.1, ge=0, description="Weight of the divergence.")


class ChunkPart(MaskPart):
    """VIBI's networks: the chunks of a spectrogram that tell most of what the classifier says.

    With z the k chunks that are drawn by the explainer's p(z | x), and q the approximator's
    answer::

        CE(q(y | z x), f(x))  +  compression * KL(p(z | x) || uniform)

    The classifier is asked what it says of clips, and nothing else: one without gradients or layers
    will do. Nothing but q hears a mask, so that the explanation tells what f said to q, not to f.

    Source: Bang, Xie, Lee, Wu, Xing, *Explaining a Black-box by Using a Deep Variational
    Information Bottleneck Approach*, AAAI 2021, arXiv 1902.06918.
    """

    name = "chunk-selector"
    settings = ChunkSettings
    network = ChunkSelector

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """None: it reads the spectrogram."""
        return ()

    def loss(self, network: Any, heard: Heard, settings: ChunkSettings) -> Tensor:
        """See the class; where nothing is learnt, of the likeliest chunks."""
        odds = network.odds(heard.size)
        if network.training:
            flat = drawn(odds.flatten(1), network.count(odds), settings.temperature)
            chosen = flat.view(odds.shape)
        else:
            chosen = network.likeliest(odds)
        logits = network.approximate(network.mask(chosen, heard.size.shape[2]), heard.size)
        # The divergence from the uniform distribution is what is lacking of its entropy.
        flat = odds.flatten(1)
        divergence = math.log(flat.shape[1]) - entropy(flat).mean()
        fidelity = fidelity_loss(heard.logits, logits, heard.classifier.task)
        return fidelity + settings.compression * divergence


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
    """FLINT's networks: attributes that say what the classifier says, and what was heard.

    With phi the attributes of a clip, g their answer, f the classifier's, S = log(1 + |X|) on a
    coarse grid, and E the entropy of the softmax::

        fidelity * CE(g, f)  +  input * mean (decoded(phi) - S)^2
            +  concise * (mean E(phi) - E(mean phi))  +  sparse * mean phi

    The third term wants few attributes for each clip, and different ones for different clips.

    Source: Parekh, Mozharovskyi, d'Alché-Buc, *A Framework to Learn with Interpretation*, NeurIPS
    2021, arXiv 2010.09345; weights as in its experiments on pictures of digits. Differences: the
    classifier is frozen, as where the paper interprets one after the fact; and all terms are there
    from the first epoch.
    """

    name = "attributes"
    settings = AttributeSettings
    network = Attributes

    def loss(self, network: Any, heard: Heard, settings: AttributeSettings) -> Tensor:
        """See the class."""
        s = settings
        _, phi, logits = network(heard.features.maps)
        fidelity = fidelity_loss(heard.logits, logits, heard.classifier.task)
        decoded = F.mse_loss(network.decoded(phi), network.coarse(heard.size))
        concise = entropy(phi).mean() - entropy(phi.mean(0))
        return (
            s.fidelity * fidelity + s.input * decoded + s.concise * concise + s.sparse * phi.mean()
        )


def entropy(x: Tensor) -> Tensor:
    """Entropy [...] of the softmax of values [..., J], in nats."""
    log = x.log_softmax(-1)
    return -(log.exp() * log).sum(-1)


QUANTISED_MASK = QuantisedPart()
CHUNK_SELECTOR = ChunkPart()
ATTRIBUTES = AttributePart()

"""VIBI's part: the chunks of a spectrogram that tell most of what the classifier says.

With z the k chunks that are drawn by the explainer's p(z | x), and q the approximator's answer::

    CE(q(y | z x), f(x))  +  compression * KL(p(z | x) || uniform)

The classifier is asked what it says of clips, and nothing else: one without gradients or layers
will do. Nothing but q hears a mask, so that the explanation tells what f said to q, not to f.

Source: Bang, Xie, Lee, Wu, Xing, *Explaining a Black-box by Using a Deep Variational Information
Bottleneck Approach*, AAAI 2021, arXiv 1902.06918.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from l2i.models.chunks import ChunkSelector, drawn
from l2i.models.heard import Heard
from l2i.models.losses import fidelity_loss
from l2i.training.masks import MaskPart, MaskSettings
from l2i.types import Classifier


class ChunkSettings(MaskSettings):
    """The table ``[parts.chunk-selector]``."""

    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    share: float = Field(0.2, gt=0, le=1, description="Share of the chunks that are kept.")
    piece_s: float = Field(0.25, gt=0, description="Length of a chunk in seconds.")
    width: int = Field(64, ge=1, description="Channels of the convolutions.")
    temperature: float = Field(0.5, gt=0, description="Temperature of the draws, while it learns.")
    compression: float = Field(0.1, ge=0, description="Weight of the divergence.")


class ChunkPart(MaskPart):
    """VIBI's networks; see the module."""

    name = "chunk-selector"
    settings = ChunkSettings
    network = ChunkSelector

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """None: it reads the spectrogram."""
        return ()

    def loss(self, network: Any, heard: Heard, settings: ChunkSettings) -> Tensor:
        """See the module; where nothing is learnt, of the likeliest chunks."""
        odds = network.odds(heard.size)
        if network.training:
            flat = drawn(odds.flatten(1), network.count(odds), settings.temperature)
            chosen = flat.view(odds.shape)
        else:
            chosen = network.likeliest(odds)
        logits = network.approximate(network.mask(chosen, heard.size.shape[2]), heard.size)
        log = F.log_softmax(odds.flatten(1), dim=1)
        divergence = math.log(log.shape[1]) + (log.exp() * log).sum(1).mean()
        fidelity = fidelity_loss(heard.logits, logits, heard.classifier.task)
        return fidelity + settings.compression * divergence


CHUNK_SELECTOR = ChunkPart()

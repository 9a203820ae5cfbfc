"""A method of one's own that learns: a decoder from hidden maps to a mask.

    l2i train --dataset demo --method experiments/methods/mask_decoder.py:MaskDecoder
    l2i train ... -o parts.decoder.epochs=20

The classifier is to say the class of the explanation alone, and not to say it of what is left, by
as small a mask as can be: the objective of L-MAC (Paissan, Ravanelli, Subakan 2024, arXiv
2403.13086) in a small network that is told which class is asked for. Here to show how little a
method needs: one file with a part, its settings, and the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.explanation import MethodSettings, Subject, audible, split_audio
from l2i.models.heard import Heard
from l2i.training.interpreter import layers_of
from l2i.training.masks import MaskPart, MaskSettings
from l2i.types import Classifier


class Settings(MaskSettings):
    """The table ``[parts.decoder]``."""

    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    mixed: float = 0.0
    width: int = 32
    lambda_out: float = 0.5
    lambda_size: float = 1.0


class Network(nn.Module):
    """The last hidden map and a class to a mask [B, F, T]."""

    def __init__(self, maps: Sequence[str], channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.read = nn.Conv2d(channels, width, 1)
        self.asked = nn.Embedding(classes, width)
        self.seen = nn.Conv2d(1, width, 3, padding=1)
        self.out = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, map_: Tensor, size: Tensor, classes: Tensor) -> Tensor:
        """Masks from maps [B, D, F_l, T_l], magnitudes [B, F, T] and classes [B]."""
        heard = self.read(F.relu(map_)) + self.asked(classes)[:, :, None, None]
        wide = F.interpolate(heard, size.shape[1:], mode="bilinear", align_corners=False)
        mask: Tensor = self.out(wide + self.seen(size.log1p().unsqueeze(1)))[:, 0].sigmoid()
        return mask


class Decoder(MaskPart):
    """What the method learns: a network, the layer that it reads, and its loss."""

    name = "decoder"
    settings = Settings
    network = Network

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """The deepest that an interpreter would read."""
        return layers_of(classifier)[-1:]

    def shape(self, settings: Settings, first: Heard) -> dict[str, Any]:
        """The network's, beside the layer."""
        return {
            "channels": first.features.maps[0].shape[1],
            "classes": len(first.classifier.classes),
            "width": settings.width,
        }

    def loss(self, network: nn.Module, heard: Heard, settings: Settings) -> Tensor:
        """Through the audio and the frozen classifier."""
        clf, own = heard.classifier, heard.logits.argmax(1)
        mask = network(heard.features.maps[0], heard.size, own)
        parts = split_audio(heard.spectrum, mask, heard.domain, heard.n_samples, linear=True)
        inside, outside = (clf.probabilities(heard.judge(part)) for part in parts)
        kept = (mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2)).clamp_min(1e-9)
        convinces = -inside.gather(1, own.unsqueeze(1)).clamp_min(1e-6).log().mean()
        leaves = -(1 - outside.gather(1, own.unsqueeze(1))).clamp_min(1e-6).log().mean()
        return convinces + settings.lambda_out * leaves + settings.lambda_size * kept.mean()


class MaskDecoder:
    """The method: what it learns, what it reads, and its mask."""

    parts = (Decoder(),)
    linear = True
    needs_gradients = True
    needs_layers = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: Network = subject.parts["decoder"]
        self.layers = self.network.maps

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        mask: Tensor = self.network(heard.features.maps[0], heard.size, classes)
        return mask * audible(heard.size).view(-1, 1, 1)

"""LMAC-TD's part: an autoencoder of waveforms, then masks of what it encodes.

First ``autoencoder_epochs`` by the scale-invariant signal-to-noise ratio of what encoder and
decoder make of a clip. Then, these frozen, with E the explanation of a clip, R the removal, c the
class that the classifier decides on, and f its probabilities::

    convinces * -log f_c(E)  +  leaves * log f_c(R)  +  size * mean log(1 + |STFT of E|)

Source: Mancini, Paissan, Ravanelli, Subakan, *LMAC-TD: Producing Time Domain Explanations for Audio
Classifiers*, 2024, arXiv 2409.08655, which trains for 200 epochs, in batches of two. Differences:
the network is sized down (see `l2i.models.time_domain`), and clips are mixed with one another, not
with noise of another data set. It was tried here in small sizes alone, and not trained at full
size: no figures of it are to be taken for the paper's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from l2i.dsp.spectrogram import magnitude, stft
from l2i.models.answers import log_probabilities
from l2i.models.heard import Heard
from l2i.models.time_domain import TimeDomainMask, turned
from l2i.training.masks import Hear, Lesson, MaskPart, MaskSettings, clip_lesson
from l2i.training.parts import Context

_TINY = 1e-8


class TimeDomainSettings(MaskSettings):
    """The table ``[parts.time-domain-mask]``."""

    batch_size: int = Field(2, ge=1)
    autoencoder_epochs: int = Field(
        20, ge=1, description="Epochs of encoder and decoder, which come first."
    )
    filters: int = Field(64, ge=1, description="N; published: 256.")
    kernel: int = Field(16, ge=2, description="Samples of a filter; at 44.1 kHz rather 32.")
    width: int = Field(64, ge=2, description="Channels of what reads maps, and of transformers.")
    blocks: int = Field(1, ge=1, description="Published: 2.")
    within: int = Field(2, ge=1, description="Layers within chunks; published: 8.")
    along: int = Field(2, ge=1, description="Layers along chunks; published: 2.")
    heads: int = Field(4, ge=1, description="Published: 8.")
    chunk: int = Field(250, ge=2, description="Frames of a chunk.")
    alpha: float = Field(0.75, ge=0, le=1, description="How much comes from the classifier.")
    convinces: float = Field(4.0, ge=0, description="Weight of the class, masked in.")
    leaves: float = Field(0.2, ge=0, description="Weight of the class, masked out.")
    size: float = Field(0.4, ge=0, description="Weight of the explanation's spectrogram.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TimeDomainSettings:
        if self.width % self.heads:
            raise ValueError(
                f"width = {self.width} must be a multiple of the {self.heads} heads: set either."
            )
        return self


class TimeDomainPart(MaskPart):
    """LMAC-TD's network; see the module."""

    name = "time-domain-mask"
    settings = TimeDomainSettings
    network = TimeDomainMask

    def lessons(
        self, network: nn.Module, settings: Any, context: Context, heard: Hear
    ) -> list[Lesson]:
        """The autoencoder, then the masks."""
        train, size = context.sounds.train, settings.batch_size
        loss = partial(autoencoder_loss, network)
        first = clip_lesson(settings.autoencoder_epochs, loss, train, size, heard)
        return [first, *super().lessons(network, settings, context, heard)]

    def loss(self, network: nn.Module, heard: Heard, settings: TimeDomainSettings) -> Tensor:
        """See the module."""
        s, clf = settings, heard.classifier
        x = turned(heard.waveform)
        explanation, removal = network(heard.features.maps, x)
        # A classifier may hear polarity.
        back = torch.where((x * heard.waveform).sum(1, keepdim=True) < 0, -1.0, 1.0)
        own = heard.logits.argmax(1, keepdim=True)
        inside, outside = (
            log_probabilities(heard.judge(back * x), clf.task) for x in (explanation, removal)
        )
        size = magnitude(stft(explanation, heard.domain)).log1p().mean()
        convinces, leaves = -inside.gather(1, own).mean(), outside.gather(1, own).mean()
        return s.convinces * convinces + s.leaves * leaves + s.size * size


def autoencoder_loss(network: Any, heard: Heard) -> Tensor:
    """Negative `si_snr` of what encoder and decoder make of clips."""
    x = turned(heard.waveform)
    made = network.decode(network.encode(x, frozen=False), x.shape[1], frozen=False)
    return -si_snr(made, x).mean()


def si_snr(made: Tensor, wanted: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio [B] of waveforms [B, S] in dB (Le Roux et al. 2019,
    arXiv 1811.02508).

    >>> si_snr(torch.tensor([[2.0, 2.0, 0.2]]), torch.tensor([[1.0, 1.0, 0.0]])).round(decimals=2)
    tensor([23.0100])
    """
    scale = (made * wanted).sum(1, keepdim=True) / wanted.square().sum(1, keepdim=True).clamp_min(
        _TINY
    )
    signal = (scale * wanted).square().sum(1) + _TINY
    noise = (made - scale * wanted).square().sum(1) + _TINY
    return 10 * (signal / noise).log10()


TIME_DOMAIN_MASK = TimeDomainPart()

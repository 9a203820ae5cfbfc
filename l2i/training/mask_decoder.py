"""L-MAC's part: a mask decoder, trained through the frozen classifier.

With M the decoder's mask of a clip, c the class that the classifier decides on, and f its
probabilities::

    convinces * -log f_c(masked in)  +  leaves * log f_c(masked out)  +  size * mean(M)

``mask-decoder`` masks S = log(1 + |X|), and where the classifier's own features begin with that
transform it is asked by magnitudes, as published. ``audio-mask-decoder`` masks |X|, and the
classifier hears the sound, scaled as it is judged later: what LMAC-TD changed (Mancini, Paissan,
Ravanelli, Subakan 2024, arXiv 2409.08655), without its decoder in the time domain.

With ``fine_tuning`` so many epochs follow on mixtures of the training clips, whose parts are known
(L-MAC FT). With S_a that of the part that carries c, the term of size gives way, where the masked
mixture is at a cosine of ``agreement`` or more from S_a, to::

    guidance * BCE(M, 1[S_a >= loud max S_a])

Source: Paissan, Ravanelli, Subakan, *Listenable Maps for Audio Classifiers*, ICML 2024, arXiv
2403.13086. Its code sums the term of size over the batch, and weighs it by .4: in batches of 16
that is a weight of 6.4, which is the default here. Differences: there each training clip is mixed
with noise of another data set, here some of them with one another. A mixture of which the
classifier says something else than the class of its part is not guided by that part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.spectrogram import magnitude, phase, stft, synthesise
from l2i.models.answers import log_probabilities
from l2i.models.heard import Heard, hear
from l2i.models.mask_decoder import MaskDecoder
from l2i.training.masks import Hear, Lesson, MaskPart, MaskSettings
from l2i.training.mixtures import Mixer, Mixing
from l2i.training.parts import Context


class MaskDecoderSettings(MaskSettings):
    """The table ``[parts.mask-decoder]``, or ``[parts.audio-mask-decoder]``."""

    width: int = Field(256, ge=8, description="Channels at most; no more than the widest map has.")
    convinces: float = Field(4.0, ge=0, description="Weight of the class, masked in.")
    leaves: float = Field(0.2, ge=0, description="Weight of the class, masked out.")
    leaves_by: Literal["log-probability", "log-rest"] = Field(
        "log-probability",
        description="Masked out: log f, as published, without a bound; or -log(1 - f).",
    )
    size: float = Field(6.4, ge=0, description="Weight of the mean of the mask.")
    fine_tuning: int = Field(0, ge=0, description="Epochs on mixtures that follow; L-MAC FT.")
    agreement: float = Field(
        0.6, ge=-1, le=1, description="Fine-tuning: cosine from which on a mixture is guided."
    )
    guidance: float = Field(4.0, ge=0, description="Fine-tuning: weight of the part's loud bins.")
    loud: float = Field(
        0.35, gt=0, lt=1, description="Fine-tuning: share of the greatest S_a that is loud."
    )


class MaskDecoderPart(MaskPart):
    """L-MAC's decoder; see the module.

    Parameters
    ----------
    name : str
    linear : bool
        Whether its mask is a gain of |X|, through the sound, or of log(1 + |X|).
    """

    settings = MaskDecoderSettings
    network = MaskDecoder

    def __init__(self, name: str, *, linear: bool) -> None:
        self.name = name
        self.linear = linear

    def shape(self, settings: MaskDecoderSettings, first: Heard) -> dict[str, Any]:
        """As wide as the widest map, or as the settings say."""
        shape = super().shape(settings, first)
        return {**shape, "width": max(8, min(settings.width, max(shape["channels"])))}

    def loss(self, network: nn.Module, heard: Heard, settings: MaskDecoderSettings) -> Tensor:
        """See the module."""
        mask = network(heard.features.maps, heard.size.shape[2])
        return (self._asked(heard, mask, settings) + settings.size * mask.mean((1, 2))).mean()

    def lessons(
        self, network: nn.Module, settings: Any, context: Context, heard: Hear
    ) -> list[Lesson]:
        """And the fine-tuning, where it is asked for."""
        lessons = super().lessons(network, settings, context, heard)
        if not settings.fine_tuning:
            return lessons
        mixer = Mixer(context, Mixing(settings.batch_size, abs(settings.mixed_db)))
        layers = self.layers(context.classifier)

        def losses(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
            for mixed in mixer.train(generator):
                x = hear(context.classifier, mixed.x, context.domain, layers).copied()
                yield self.guided(network, x, mixed.a, mixed.classes, settings), len(mixed.x)

        return [*lessons, Lesson(settings.fine_tuning, losses, lessons[0].held)]

    def guided(
        self,
        network: nn.Module,
        heard: Heard,
        part: Tensor,
        classes: Tensor,
        settings: MaskDecoderSettings,
    ) -> Tensor:
        """The loss of the fine-tuning.

        Parameters
        ----------
        network : Module
        heard : Heard
            Mixtures.
        part : Tensor [B, S]
            What carries the class, of the mixtures scaled to their peak.
        classes : Tensor [B], int64
        settings : MaskDecoderSettings
        """
        s = settings
        mask = network(heard.features.maps, heard.size.shape[2])
        own = magnitude(stft(part, heard.domain)).log1p()
        kept = (mask * heard.size).log1p() if self.linear else mask * heard.size.log1p()
        alike = F.cosine_similarity(kept.detach().flatten(1), own.flatten(1), dim=1)
        guide = (alike >= s.agreement) & (heard.logits.argmax(1) == classes)
        loud = (own >= s.loud * own.amax((1, 2), keepdim=True)).float()
        away = F.binary_cross_entropy(mask, loud, reduction="none").mean((1, 2))
        rest = torch.where(guide, s.guidance * away, s.size * mask.mean((1, 2)))
        return (self._asked(heard, mask, s) + rest).mean()

    def _asked(self, heard: Heard, mask: Tensor, s: MaskDecoderSettings) -> Tensor:
        """What the classifier's answers cost, per clip [B]."""
        clf = heard.classifier
        own = heard.logits.argmax(1, keepdim=True)
        inside, outside = (self._ask(heard, part) for part in (mask, 1 - mask))
        convinces = -log_probabilities(inside, clf.task).gather(1, own)
        if s.leaves_by == "log-probability":
            leaves = log_probabilities(outside, clf.task).gather(1, own)
        else:
            leaves = -(1 - clf.probabilities(outside).gather(1, own) + 1e-4).log()
        return (s.convinces * convinces + s.leaves * leaves).squeeze(1)

    def _ask(self, heard: Heard, mask: Tensor) -> Tensor:
        """Logits [B, C] of what a mask [B, F, T] keeps of clips."""
        clf: Any = heard.classifier
        if self.linear:
            audio = synthesise(heard.spectrum, mask, heard.domain, heard.n_samples)
        else:
            kept = (mask * heard.size.log1p()).expm1()
            # Level: the classifier's front-end is a transform of its own.
            if heard.level is None and hasattr(clf, "logits_of"):
                return clf.logits_of(kept)
            direction = phase(heard.spectrum, heard.size)
            audio = synthesise(direction, kept, heard.domain, heard.n_samples)
        return heard.judge(audio)


MASK_DECODER = MaskDecoderPart("mask-decoder", linear=False)
AUDIO_MASK_DECODER = MaskDecoderPart("audio-mask-decoder", linear=True)

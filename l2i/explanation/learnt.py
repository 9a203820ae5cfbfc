"""Masks of a trained network: L-MAC, through features and through the sound, LMAC-TD, PIQ, VIBI,
FLINT, amortised Shapley values.

The network is a part, whose module in `l2i.training` says how it learns and what is sized down of
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2i.dsp.spectrogram import magnitude, stft
from l2i.explanation import MethodSettings, Subject, relevance, select
from l2i.explanation.controls import loudest
from l2i.explanation.families import AtOnce
from l2i.models.attributes import Attributes
from l2i.models.chunks import ChunkSelector
from l2i.models.gated import Taken, take_apart
from l2i.models.heard import Heard, class_gradients
from l2i.models.mask_decoder import MaskDecoder
from l2i.models.players import Players, ShapleyHead, players_of, worth
from l2i.models.quantised import QuantisedMask
from l2i.models.time_domain import TimeDomainMask, turned


class LearntMask(AtOnce):
    """Masks of a network, which is the method's last part.

    One that inherits says what mask the network makes.
    """

    needs_layers = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: Any = subject.parts[self.parts[-1]]
        self.layers = self.network.maps


class LMac(LearntMask):
    """Masks of log(1 + |X|), learnt through the classifier's features, as published (Paissan,
    Ravanelli, Subakan, *Listenable Maps for Audio Classifiers*, ICML 2024, arXiv 2403.13086).

    The decoder is not told which class is asked for: its mask is of what the classifier decided,
    whatever class is named. How it learns is in `l2i.training.mask_decoder`.
    """

    parts = ("mask-decoder",)
    linear = False
    needs_gradients = True
    network: MaskDecoder

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T]."""
        return self.network(heard.features.maps, heard.size.shape[2])


class LMacAudio(LMac):
    """Masks of |X|, learnt through the sound: as a linear gain, judged as it is heard."""

    parts = ("audio-mask-decoder",)
    linear = True


class LMacTd(LearntMask):
    """LMAC-TD: explanations made in the time domain (Mancini, Paissan, Ravanelli, Subakan,
    *LMAC-TD: Producing Time Domain Explanations for Audio Classifiers*, 2024, arXiv 2409.08655).
    How it learns, and what is sized down of it, is in `l2i.training.time_domain`.

    Differences: what it makes is a waveform. To be judged as all others are, its mask is the share
    of the explanation's spectrum E beside the removal's R, ``|E| / (|E| + |R|)``. It is not told
    which class is asked for, and explains the decision.
    """

    parts = ("time-domain-mask",)
    needs_gradients = True
    network: TimeDomainMask

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        sounds = self.network(heard.features.maps, turned(heard.waveform))
        e, r = (magnitude(stft(x, heard.domain)) for x in sounds)
        return e / (e + r).clamp_min(torch.finfo(e.dtype).tiny)


class Piq(LearntMask):
    """PIQ: masks of log(1 + |X|) of a quantised hidden map, by the codes of the class that is asked
    for (Paissan, Subakan, Ravanelli, *Posthoc Interpretation via Quantization*, 2023, arXiv
    2303.12659). How it learns is in `l2i.training.learnt`.
    """

    parts = ("quantised-mask",)
    linear = False
    network: QuantisedMask

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T]."""
        logits, _, _ = self.network(heard.features.maps[0], classes, heard.size.shape[2])
        return logits.sigmoid()


class Vibi(LearntMask):
    """VIBI: the chunks of a clip that tell most of what the classifier says (Bang, Xie, Lee, Wu,
    Xing, *Explaining a Black-box by Using a Deep Variational Information Bottleneck Approach*, AAAI
    2021, arXiv 1902.06918). How it learns is in `l2i.training.learnt`.

    The likeliest chunks, as they are, whatever class is named: it explains the decision.
    """

    parts = ("chunk-selector",)
    needs_layers = False
    network: ChunkSelector

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T] of zeros and ones."""
        chosen = self.network.likeliest(self.network.odds(heard.size))
        return self.network.mask(chosen, heard.size.shape[2])


class Flint(LearntMask):
    """FLINT: attributes of hidden maps that speak for a class, and where they were heard (Parekh,
    Mozharovskyi, d'Alché-Buc, *A Framework to Learn with Interpretation*, NeurIPS 2021, arXiv
    2010.09345). How they are learnt is in `l2i.training.learnt`.

    The relevance of an attribute is what L2I's is of a component, its contribution over the
    greatest one, and those above the threshold are taken. The mask is the sum of their maps, each
    by its relevance, divided by its greatest value.

    Differences: published explanations are pictures that excite an attribute most, which cannot be
    played; masks of the attributes' maps can.
    """

    parts = ("attributes",)
    heeds = ("threshold",)
    network: Attributes

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        super().__init__(subject, settings)
        self.threshold = settings.threshold

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain; where nothing speaks for the class, zero."""
        places, phi, _ = self.network(heard.features.maps)
        r = relevance(phi, self.network.theta, classes)
        r = r * select(r, self.threshold)
        spoken = torch.einsum("bj,bjrt->brt", r, places)
        mask = self.network.bins(spoken, heard.size.shape[2])
        greatest = mask.amax((1, 2), keepdim=True).clamp_min(torch.finfo(mask.dtype).tiny)
        return (mask / greatest).clamp(0, 1)


class AmortisedShapley(LearntMask):
    """Amortised Shapley: what each object of a clip adds to the class's log-odds, said at once.

    The players are objects of the clip, groups of the dictionary's components; the least set of
    them that has four fifths of what speaks for the class is kept, by a linear gain. How the values
    are learnt, `l2i.training.shapley` says (FastSHAP: Jethani, Sudarshan, Covert, Lee, Ranganath,
    ICLR 2022, arXiv 2107.07436). They add up to what the clip is worth over silence.
    """

    parts = ("dictionary", "shapley-values")
    needs_gradients = True
    network: ShapleyHead
    share = 0.8
    """What is kept of the positive values' sum."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        super().__init__(subject, settings)
        self.classifier = subject.classifier
        self.w: Tensor = subject.parts["dictionary"]

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        taken, players, values = self._values(heard, classes)
        chosen = torch.stack([loudest(v, v.clamp_min(0), self.share) for v in values]).float()
        return taken.mask(players.gates(chosen, heard.size.shape[2]))

    @torch.inference_mode()
    def relevances_of(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """The players' values [B, J * Q], in log-odds; zero for players that are not there."""
        return self._values(heard, classes)[2]

    def worth(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Log-odds [B], of which the values are shares."""
        return worth(logits, classes, self.classifier.task)

    def _values(self, heard: Heard, classes: Tensor) -> tuple[Taken, Players, Tensor]:
        taken = take_apart(heard, self.w)
        players = players_of(taken, self.network.objects, self.network.times)
        maps = heard.features.maps
        (gradient,) = class_gradients(heard, self.layers[-1:], maps[-1:], classes)
        silence = heard.classifier.logits(torch.zeros_like(heard.waveform[:1]))
        total = self.worth(heard.logits, classes)
        total = total - self.worth(silence.expand(len(classes), -1), classes)
        return taken, players, players.values(self.network(maps, gradient), total)

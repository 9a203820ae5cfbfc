"""Amortised Shapley: a network says what each object of a clip adds to the class's log-odds.

The players are objects of the clip, groups of the dictionary's components; the least set of them
that has four fifths of what speaks for the class is kept, by a linear gain. How the values are
learnt, `l2i.training.shapley` says (FastSHAP: Jethani, Sudarshan, Covert, Lee, Ranganath, ICLR
2022, arXiv 2107.07436). They add up to what the clip is worth over silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject
from l2i.explanation.controls import loudest
from l2i.explanation.families import AtOnce
from l2i.models.asked import class_gradients
from l2i.models.gated import Taken, take_apart
from l2i.models.heard import Heard
from l2i.models.players import Players, ShapleyHead, players_of, worth


class AmortisedShapley(AtOnce):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    parts = ("dictionary", "shapley-values")
    needs_layers = True
    needs_gradients = True
    costly = True
    share = 0.8
    """What is kept of the positive values' sum."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.classifier = subject.classifier
        self.w: Tensor = subject.parts["dictionary"]
        self.network: ShapleyHead = subject.parts["shapley-values"]
        self.layers = self.network.maps

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

"""What gates are trained by: what the frozen classifier answers to what they let through."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import Domain, magnitude, stft
from l2i.models.classifier import FrozenClassifier
from l2i.models.gate_head import GateHead
from l2i.models.gated import Gating, Taken, split_sounds
from l2i.models.heard import Heard, hear
from l2i.training.mixtures import Mixed
from l2i.types import Classifier, Task

_ABSENT = 0.02
# The weights of a dictionary's own terms, in all epochs.
_OF_DICTIONARY = {"explained": 5.0, "overlap": 0.01}


class Teacher:
    """The terms of the loss; see `l2i.training.gates`."""

    def __init__(
        self,
        classifier: Classifier,
        domain: Domain,
        gating: Gating,
        weights: Mapping[str, float],
        *,
        certified: bool = True,
        unasked: Sequence[int] = (),
        precision: torch.dtype | None = None,
    ) -> None:
        self.classifier, self.domain, self.gating = classifier, domain, gating
        # What gradients go through: in another format only where one is named and the network ours.
        self.judging = classifier
        if precision is not None and isinstance(classifier, FrozenClassifier):
            self.judging = classifier.computing_in(precision)
        self.weights, self.certified, self.unasked = dict(weights), certified, list(unasked)

    def of(self, network: GateHead) -> Teacher:
        """The same for other weights."""
        teacher = copy.copy(self)
        teacher.gating = replace(self.gating, head=network)
        return teacher

    def weight(self, name: str, *, warm: bool) -> float:
        """A term's weight; in the first epochs only separation counts."""
        usual = float(name == "separate") if warm else self.weights.get(name, 0.0)
        return _OF_DICTIONARY.get(name, usual)

    def read(self, mixture: Mixed) -> tuple[Heard, Taken]:
        """What the classifier hears of mixtures, and what these are made of."""
        with torch.no_grad():
            heard = hear(self.classifier, mixture.x, self.domain, self.gating.layers).copied()
        return heard, self.gating.take_apart(heard)

    def mask(self, heard: Heard, taken: Taken, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and mask, a gain, of a class of each clip."""
        gates = self.gating.gates(heard, classes)
        return gates, self.gating.gain(taken, gates, heard.size)

    def terms(self, mixture: Mixed, generator: torch.Generator, *, warm: bool) -> dict[str, Tensor]:
        """The terms of some mixtures, not weighted; those that count."""
        heard, taken = self.read(mixture)
        gates, mask = self.mask(heard, taken, mixture.classes)
        size = heard.size
        of_a, of_b = (magnitude(stft(y, self.domain)) for y in (mixture.a, mixture.b))
        share = of_a / (of_a + of_b).clamp_min(1e-9)
        loud = size / size.sum((1, 2), keepdim=True).clamp_min(1e-9)
        apart = F.binary_cross_entropy(mask.clamp(1e-4, 1 - 1e-4), share, reduction="none")
        sure = mixture.sure if self.certified else torch.ones_like(mixture.sure)
        terms = {"separate": (sure * (apart * loud).sum((1, 2))).mean()}
        if self.gating.head.w is not None:
            terms |= _of_dictionary(taken, size.log1p())
        if warm:
            return terms
        both = sure * mixture.mixed
        kept = (mask * loud).sum((1, 2))
        power = size.square() / size.square().sum((1, 2), keepdim=True).clamp_min(1e-9)
        parts = split_sounds(heard, mask)
        enough, needed = self.answers(heard, *self.judge(heard, parts), mixture.classes)
        terms |= {
            "in": enough.mean(),
            "out": needed.mean(),
            "size": F.relu(kept - 0.05).mean(),
            "energy": F.relu((mask.square() * power).sum((1, 2)) - 0.05).mean(),
            "leak": (both * F.relu(3 + _decades(mask, of_b))).mean(),
            "keep": (sure * F.relu(-0.1 - _decades(mask, of_a))).mean(),
            "smooth": gates.diff(dim=2).abs().mean(),
        }
        if self.weights["absent"]:
            terms["absent"] = self._absent(heard, taken, loud, generator)
        return terms

    def judge(self, heard: Heard, parts: Tensor) -> tuple[Tensor, Tensor]:
        """What the classifier says of explanations and removals, logits [B, C] each.

        In the teacher's precision where something is learnt from it, and as exactly as ever where
        it is only looked at.
        """
        rows = torch.arange(len(parts), device=parts.device) % len(heard.size)
        if torch.is_grad_enabled():
            heard = replace(heard, classifier=self.judging)
        inside, outside = heard.judge(parts, rows).chunk(2)
        return inside, outside

    def answers(
        self, heard: Heard, inside: Tensor, outside: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The in and out terms of each clip [B]."""
        clf, own = self.classifier, classes.unsqueeze(1)
        if clf.task is Task.MULTI_LABEL:
            convinces = F.softplus(-inside.gather(1, own)).squeeze(1)
        else:
            sharp = (2 * heard.logits).softmax(dim=1)
            log_p = inside.log_softmax(dim=1)
            # For a class that is there but is not the decision: what would speak for it.
            decided = heard.logits.argmax(1) == classes
            convinces = -torch.where(decided, (sharp * log_p).sum(1), log_p.gather(1, own)[:, 0])
        q = clf.probabilities(outside).gather(1, own)[:, 0]
        return convinces, -(1 - q + 1e-4).log()

    def _absent(
        self, heard: Heard, taken: Taken, loud: Tensor, generator: torch.Generator
    ) -> Tensor:
        """What is kept for a class that is not there, of half of the clips."""
        n = max(1, len(loud) // 2)
        rows = torch.arange(n, device=loud.device)
        half = heard.take(rows)
        p = self.classifier.probabilities(half.logits).cpu()
        p[:, self.unasked] = 1.0
        chance = (p < _ABSENT).float() + 1e-6
        classes = torch.multinomial(chance, 1, generator=generator).squeeze(1).to(loud.device)
        there = p.gather(1, classes.cpu().unsqueeze(1)).squeeze(1) < _ABSENT
        _, mask = self.mask(half, taken.take(rows), classes)
        return ((mask * loud[:n]).sum((1, 2)) * there.to(loud)).mean()


def _of_dictionary(taken: Taken, log_size: Tensor) -> dict[str, Tensor]:
    """The terms that hold a dictionary to the sounds, and its columns apart."""
    left, whole = ((s**2).sum((1, 2)) for s in (log_size - taken.whole, log_size))
    others = (taken.w.T @ taken.w).fill_diagonal_(0)
    overlap = others.square().sum() / len(others)
    return {"explained": (left / whole.clamp_min(1e-9)).mean(), "overlap": overlap}


def _decades(mask: Tensor, size: Tensor) -> Tensor:
    """Level of what a mask keeps of a part [B, F, T] over the part, in tens of dB; at least -3."""
    whole = size.square().sum((1, 2)).clamp_min(1e-9)
    return ((mask * size).square().sum((1, 2)) / whole + 1e-3).log10()

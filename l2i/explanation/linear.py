"""L2I's relevance with an honest mask: nothing more is learnt, and each clip has its own cut.

What is there is said by the activations of the sound, not by the interpreter; the mask is a linear
gain; and there is no threshold. Components are taken in the order of their relevance, as few as the
classifier needs: the explanation has nine tenths of the class's probability, the removal
half of it at most. Where no number of components does that, the one with the best balance of both
is taken, and of what is kept. It costs two passes of the classifier for each number that is tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.dsp.spectrogram import kept_energy
from l2i.explanation.listen_to_interpret import OnInterpreter, audible, split_heard
from l2i.models.gated import take_apart
from l2i.models.heard import Heard

_COUNTS = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 160, 250)
_ENOUGH, _GONE = 0.9, 0.5
_SIZE = 0.3


class LinearL2I(OnInterpreter):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    linear = True

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T], a linear gain; of silence, zero."""
        e, clf = self.explainer, heard.classifier
        order = e.relevances(e.interpret(heard).pooled, classes, heard.size).argsort(
            dim=1, descending=True
        )
        rank = order.argsort(dim=1)
        taken = take_apart(heard, e.w)
        own = classes.unsqueeze(1)
        y = clf.probabilities(heard.logits).gather(1, own)[:, 0]
        best = torch.zeros_like(heard.size)
        value = torch.full_like(y, -torch.inf)
        k = e.w.shape[1]
        for count in (*(n for n in _COUNTS if n < k), k):
            gates = (rank < count).float().unsqueeze(2).expand_as(taken.activations)
            mask = taken.mask(gates)
            parts = split_heard(heard, mask, linear=True)
            o, q = (clf.probabilities(heard.judge(p)).gather(1, own)[:, 0] for p in parts)
            kept = kept_energy(mask, heard.size).nan_to_num(0.0).to(y)
            held = (o >= _ENOUGH * y) & (q <= _GONE * y)
            # The fewest that do: more than any balance, and less the more there are.
            score = torch.where(held, 10.0 - count / k, o - q - _SIZE * kept)
            better = score > value
            best = torch.where(better.view(-1, 1, 1), mask, best)
            value = torch.where(better, score, value)
        return best * audible(heard.size).view(-1, 1, 1)

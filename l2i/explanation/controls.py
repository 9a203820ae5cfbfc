"""Explanations that did not ask the classifier: what any method must be better than.

A mask that keeps the loudest bins, or random parts of a clip, convinces many a classifier as well.
Figures of a method mean something only beside those of a control that keeps as much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.explanation import MethodSettings, Subject
from l2i.explanation.gates import gate_mask, take_apart
from l2i.models.heard import Heard

__all__ = ["Loudest", "RandomGates", "loudest"]


def loudest(order: Tensor, energy: Tensor, share: float) -> Tensor:
    """The first units of an order that together have a share of the energy.

    Parameters
    ----------
    order : Tensor [N]
        The greater, the earlier.
    energy : Tensor [N]
        Non-negative.
    share : float
        In (0, 1].

    Returns
    -------
    Tensor [N], bool
        As few as reach the share; none where there is no energy.

    Examples
    --------
    >>> x = torch.tensor([1.0, 4.0, 3.0, 2.0])
    >>> loudest(x, x, 0.5).tolist()
    [False, True, True, False]
    """
    place = order.argsort(descending=True, stable=True)
    reached = energy[place].double().cumsum(0)
    # Those before which less than the share was reached.
    before = torch.cat([reached.new_zeros(1), reached[:-1]])
    chosen = torch.zeros_like(energy, dtype=torch.bool)
    chosen[place] = before < share * reached[-1]
    return chosen


class Loudest:
    """The loudest bins that have half of a clip's energy.

    The oracle of L-MAC's fine-tuning is such a mask of loudness (Paissan, Ravanelli, Subakan 2024,
    arXiv 2403.13086).
    """

    parts: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    linear = True
    share = 0.5
    """What is kept of the energy."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        pass

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T] of zeros and ones."""
        flat = heard.size.flatten(1)
        chosen = [loudest(one, one.square(), self.share) for one in flat]
        return torch.stack(chosen).view(heard.size.shape).float()


class RandomGates:
    """Random gates on a clip's own components, open so far that half of its energy is kept.

    The components and the pieces of time are those of method ``gates``; each gate is drawn from a
    uniform distribution, and all are opened or shut by one shift of their log-odds.
    """

    parts: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    linear = True
    share = 0.5
    """What is kept of the energy."""
    components, piece_s = 24, 0.25

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.domain = subject.domain
        self.seed = settings.seed

    @torch.no_grad()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        masks = []
        for x, key in zip(heard.waveform.split(1), keys, strict=True):
            one = take_apart(x, self.domain, self.components, self.seed)
            frames = one.size.shape[2]
            seconds = frames * self.domain.hop_length / self.domain.sample_rate
            draw = np.random.default_rng([self.seed, key])
            shape = (1, self.components, max(2, round(seconds / self.piece_s)))
            drawn = torch.from_numpy(draw.uniform(1e-3, 1 - 1e-3, shape)).to(one.size)
            odds = F.interpolate(drawn.logit(), size=frames, mode="linear", align_corners=True)
            energy = one.size.square()
            low, high = -20.0, 20.0
            for _ in range(20):
                middle = (low + high) / 2
                mask = gate_mask(one.w, one.h, (odds + middle).sigmoid(), one.whole)
                kept = float((mask.square() * energy).sum())
                if kept < self.share * float(energy.sum()):
                    low = middle
                else:
                    high = middle
            masks.append(gate_mask(one.w, one.h, (odds + high).sigmoid(), one.whole))
        sounds = (heard.size.amax(dim=(1, 2)) > 0).view(-1, 1, 1)
        return torch.cat(masks) * sounds

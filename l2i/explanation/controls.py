"""Explanations that did not ask the classifier: what any method must be better than, and bounds.

A mask that keeps the loudest bins, or random parts of a clip, convinces many a classifier as well.
Figures of a method mean something only beside those of a control that keeps as much.

Bounds are masks of one who knows the parts of a mixture. With A and B the spectra of what carries
the class and of the rest, and H_a, H_b their activations under the dictionary W::

    oracle-ratio    |A| / (|A| + |B|)                                the ideal ratio mask
    oracle-nmf      W (G * H) / W H    with gates G = H_a / (H_a + H_b)

The first bounds what any mask of the spectrogram reaches, the second what gates on the components
of this dictionary reach. Where no part carries the class, nothing is kept. An oracle separates
sounds, and says nothing of what was heard in them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import magnitude, stft
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.apart import take_apart
from l2i.explanation.families import AtOnce, ClipByClip
from l2i.models import gated
from l2i.models.heard import Heard
from l2i.training.class_dictionary import ClassBlocks


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


class Loudest(AtOnce):
    """The loudest bins that have half of a clip's energy.

    The oracle of L-MAC's fine-tuning is such a mask of loudness (Paissan, Ravanelli, Subakan 2024,
    arXiv 2403.13086).
    """

    share = 0.5
    """What is kept of the energy."""

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T] of zeros and ones."""
        chosen = [loudest(one, one.square(), self.share) for one in heard.size.flatten(1)]
        return torch.stack(chosen).view(heard.size.shape).float()


class RandomGates(ClipByClip):
    """Random gates on a clip's own components, open so far that half of its energy is kept.

    The components and the pieces of time are those of method ``gates``; each gate is drawn from a
    uniform distribution, and all are opened or shut by one shift of their log-odds.
    """

    costly = False
    share = 0.5
    """What is kept of the energy."""
    components, piece_s = 24, 0.25

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T], a linear gain."""
        apart = take_apart(one.waveform, self.domain, self.components, self.seed)
        frames = apart.size.shape[2]
        seconds = frames * self.domain.hop_length / self.domain.sample_rate
        shape = (1, self.components, max(2, round(seconds / self.piece_s)))
        drawn = torch.from_numpy(draw.uniform(1e-3, 1 - 1e-3, shape)).to(apart.size)
        odds = F.interpolate(drawn.logit(), size=frames, mode="linear", align_corners=True)
        energy = apart.size.square()
        low, high = -20.0, 20.0
        for _ in range(20):
            middle = (low + high) / 2
            mask = apart.mask((odds + middle).sigmoid())
            kept = float((mask.square() * energy).sum())
            if kept < self.share * float(energy.sum()):
                low = middle
            else:
                high = middle
        return apart.mask((odds + high).sigmoid())[0]


class LoudestComponents(AtOnce):
    """The dictionary's loudest components in a clip, as many as have half of its energy.

    They are taken in the order of the energy of what each adds, that of its activations. The last
    one is opened as far as half of the energy asks for.
    """

    parts = ("dictionary",)
    # By its name alone: for a black box nothing else would have to be learnt.
    costly = True
    share = 0.5
    """What is kept of the energy."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.w: Tensor = subject.parts["dictionary"]

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        taken = gated.take_apart(heard, self.w)
        h = taken.activations
        rank = h.square().sum(2).argsort(dim=1, descending=True, stable=True).argsort(dim=1)

        power = heard.size.square()
        wanted = self.share * power.sum((1, 2))

        def of_first(count: Tensor) -> Tensor:
            gates = (count.unsqueeze(1) - rank).clamp(0, 1)
            return taken.mask(gates.unsqueeze(2).expand_as(h))

        low, high = (torch.full((len(h),), end, device=h.device) for end in (0.0, h.shape[1]))
        for _ in range(24):
            middle = (low + high) / 2
            enough = (of_first(middle).square() * power).sum((1, 2)) >= wanted
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return of_first(high)


class NmfClasses(AtOnce):
    """The asked class's own block of a dictionary learnt class by class: separation without a
    classifier.

    Each class has a block of components, learnt from the labels of the training clips (Smaragdis,
    Raj, Shashanka, *Supervised and Semi-Supervised Separation of Sounds from Single-Channel
    Mixtures*, ICA 2007); the mask is the block's share of what all blocks say is there. With ten
    classes, ten components each and 513 bins, 51,300 numbers are learnt. A class without training
    clips is explained by nothing.
    """

    parts = ("class-dictionary",)
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.blocks: ClassBlocks = subject.parts["class-dictionary"]

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        taken = gated.take_apart(heard, self.blocks.w)
        own = (self.blocks.owners == classes.unsqueeze(1)).float()
        return taken.mask(own.unsqueeze(2).expand_as(taken.activations))


class _Oracle(AtOnce):
    """What both share: the magnitudes of the parts."""

    costly = True
    knows_parts = True
    """It explains mixtures whose parts are known, and nothing else."""
    name = ""

    def sizes(self, heard: Heard) -> tuple[Tensor, Tensor]:
        """``|A|`` and ``|B|`` [B, F, T].

        Raises
        ------
        UsageError
            The parts are not known.
        """
        if heard.parts is None:
            raise UsageError(
                f"Method {self.name!r} needs the known parts of a mixture: give it to 'l2i "
                "overlap', or to 'l2i benchmark --protocol mix0'."
            )
        a, b = (magnitude(stft(part, heard.domain)) for part in heard.parts)
        return a, b


class OracleRatio(_Oracle):
    """The ideal ratio mask."""

    name = "oracle-ratio"

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        a, b = self.sizes(heard)
        return a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)


class OracleNmf(_Oracle):
    """The gates that take the parts apart, on the components of the dictionary."""

    name = "oracle-nmf"
    parts = ("dictionary",)

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.w: Tensor = subject.parts["dictionary"]

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        a, b = (gated.activations_of(size.log1p(), self.w) for size in self.sizes(heard))
        gates = a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)
        return gated.take_apart(heard, self.w).mask(gates)

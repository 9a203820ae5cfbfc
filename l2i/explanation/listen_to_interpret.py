"""The method, in the paper's order: relevance -> selection -> soft mask -> explanation audio.

For a clip x, a class c, activations H, pooled activations z and the head's weights Theta::

    relevance    r_k = theta_ck z_k / max_l |theta_cl z_l|                           in [-1, 1]
    selection    L = {k : r_k > tau}, the most relevant first if there may be only so many
    mask         M = sum_{k in L} W_k H_k / sum_k W_k H_k                            in [0, 1]
    explanation  expm1(M * S) with the phase of x;   removal  expm1((1 - M) * S)

Everything works on batches; no step loops over components or clips.

Edges, decided here: where no contribution is positive, nothing is selected; where all
contributions are zero, all relevances are zero; a bin that no component explains (0/0) belongs
to no explanation. So silence is explained by nothing.

Differences: other implementations divide by the greatest contribution instead of the greatest
*absolute* one, which selects everything where all contributions are negative.

Over 300 lines: the method as the paper has it, to be read in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from l2i.dsp.spectrogram import (
    Domain,
    OverlapAdd,
    audible_frames,
    blocks,
    magnitude,
    phase,
    synthesise,
)
from l2i.models.heard import Heard, hear
from l2i.models.interpreter import Psi
from l2i.types import Classifier, Explanation, Interpretation

if TYPE_CHECKING:
    from l2i.explanation import MethodSettings, Subject


def audible(size: Tensor) -> Tensor:
    """Whether there is any sound in clips of magnitude `size` [B, F, T]: [B], bool.

    Silence has nothing to explain, whatever the networks' biases make of it: no component is
    relevant for it, it excites none, and no explanation of it is judged.
    """
    return size.amax(dim=(1, 2)) > 0


def relevance(pooled: Tensor, theta: Tensor, classes: Tensor) -> Tensor:
    """Relevance of each component for one class per clip.

    Parameters
    ----------
    pooled : Tensor [B, K]
        z, non-negative.
    theta : Tensor [C, K]
    classes : Tensor [B], int64

    Returns
    -------
    Tensor [B, K]
        In [-1, 1]; all zero where every contribution is zero.

    Examples
    --------
    >>> theta = torch.tensor([[1.0, -2.0, 0.5]])
    >>> relevance(torch.tensor([[1.0, 1.0, 1.0]]), theta, torch.tensor([0]))
    tensor([[ 0.5000, -1.0000,  0.2500]])
    """
    contribution = theta[classes] * pooled
    largest = contribution.abs().amax(dim=1, keepdim=True)
    tiny = torch.finfo(contribution.dtype).tiny
    return torch.where(largest > 0, contribution / largest.clamp_min(tiny), 0.0)


def select(relevances: Tensor, threshold: float, max_components: int = 0) -> Tensor:
    """Components relevant enough.

    Parameters
    ----------
    relevances : Tensor [B, K]
    threshold : float
        tau, at least 0; a component must exceed it.
    max_components : int
        At most so many per clip, the most relevant ones; 0: no limit.

    Returns
    -------
    Tensor [B, K], bool

    Examples
    --------
    >>> select(torch.tensor([[0.5, 1.0, 0.1, -1.0]]), 0.2)
    tensor([[ True,  True, False, False]])
    >>> select(torch.tensor([[0.5, 1.0, 0.1, -1.0]]), 0.2, max_components=1)
    tensor([[False,  True, False, False]])
    """
    chosen = relevances > threshold
    if 0 < max_components < relevances.shape[1]:
        best = torch.zeros_like(chosen)
        best.scatter_(1, relevances.topk(max_components, dim=1).indices, True)
        chosen &= best
    return chosen


def random_ranks(keys: Sequence[int], seed: int, draws: int, components: int) -> Tensor:
    """Random orders of the components: the first n of one are n components drawn at random.

    Each order is equally likely. The first n are among the first n + 1, so that a curve over n
    is not shaken by new draws; and a clip's orders come from its own key, so that they depend
    neither on other clips nor on their order.

    Parameters
    ----------
    keys : sequence of int [B]
        Not negative.
    seed : int
    draws : int
    components : int
        K.

    Returns
    -------
    Tensor [B, draws, K], int64
        Rank of each component, from 0. On the CPU.
    """
    draw = np.stack(
        [np.random.default_rng([seed, key]).random((draws, components)) for key in keys]
    )
    return torch.from_numpy(draw.argsort(axis=2).argsort(axis=2))


def reconstruction(w: Tensor, activations: Tensor) -> Tensor:
    """What the components add up to, ``W H``.

    Parameters
    ----------
    w : Tensor [F, K]
    activations : Tensor [B, K, T]

    Returns
    -------
    Tensor [B, F, T]
        In memory frame after frame, as `stft` leaves a spectrogram: what multiplies the two, and
        the inverse transform, then reads both in one order. On a CPU a quarter of their time.
    """
    # A product per clip: one of all frames at once takes half as long again.
    per_clip = w.T.expand(len(activations), -1, -1)
    return torch.bmm(activations.transpose(1, 2), per_clip).transpose(1, 2)


def soft_mask(
    w: Tensor, activations: Tensor, selected: Tensor, whole: Tensor | None = None
) -> Tensor:
    """The selected components' share of what all components say is there.

    Parameters
    ----------
    w : Tensor [F, K]
    activations : Tensor [B, K, T]
    selected : Tensor [B, K], bool
    whole : Tensor [B, F, T], optional
        `reconstruction`, where it is known already.

    Returns
    -------
    Tensor [B, F, T]
        In [0, 1]; 0 where no component is active.
    """
    part = reconstruction(w, activations * selected.unsqueeze(2))
    whole = reconstruction(w, activations) if whole is None else whole
    tiny = torch.finfo(whole.dtype).tiny
    # Where the whole is zero so is a part of it, and 0 / tiny is 0. Two sums of the same terms may
    # differ in the last bit, hence the upper clamp.
    return part.div_(whole.clamp_min(tiny)).clamp_(0.0, 1.0)


def split_audio(
    spectrum: Tensor,
    mask: Tensor,
    domain: Domain,
    n_samples: int,
    size: Tensor | None = None,
    *,
    linear: bool = False,
) -> tuple[Tensor, Tensor]:
    """Explanation and removal audio.

    A mask of log magnitudes, as published: they add up to the input in the log domain, not as
    waveforms, since expm1 is not linear. A mask that is a linear gain: they add up as waveforms.

    Parameters
    ----------
    spectrum : Tensor [B, F, T], complex
    mask : Tensor [B, F, T]
        In [0, 1].
    domain : Domain
    n_samples : int
    size : Tensor [B, F, T], optional
        ``|X|``, where it is known already.
    linear : bool
        What the mask is a gain of: of ``|X|``, or of log(1 + ``|X|``).

    Returns
    -------
    Tensor [B, S], Tensor [B, S]
    """
    size = magnitude(spectrum) if size is None else size
    batch, _, frames = spectrum.shape
    explanation, removal = (OverlapAdd(batch, frames, domain, mask.device) for _ in range(2))
    x, sizes, shares = (y.transpose(1, 2) for y in (spectrum, size, mask))
    for block in blocks(spectrum):
        if linear:
            part = shares[block] * x[block]
            explanation.add(block, part)
            removal.add(block, x[block] - part)
            continue
        whole = torch.log1p(sizes[block])
        kept = shares[block] * whole
        direction = phase(x[block], sizes[block])
        explanation.add(block, direction * torch.expm1(kept))
        # Not left = (|X| - kept) / (1 + kept), which is quicker: of a full mask rounding would be
        # left instead of nothing, and the classifier's front-end brings what is left to full scale.
        removal.add(block, direction * torch.expm1(whole - kept))
    return explanation.waveform(n_samples), removal.waveform(n_samples)


def split_heard(heard: Heard, mask: Tensor, *, linear: bool) -> tuple[Tensor, Tensor]:
    """`split_audio` of clips that were heard."""
    spectrum, domain, size = heard.spectrum, heard.domain, heard.size
    return split_audio(spectrum, mask, domain, heard.n_samples, size, linear=linear)


@dataclass(frozen=True)
class Explainer:
    """Classifier, dictionary and interpreter, made for one another.

    Attributes
    ----------
    classifier : Classifier
    w : Tensor [F, K]
        Unit columns.
    interpreter : Psi
        In evaluation mode.
    domain : Domain
        The dictionary's.
    """

    classifier: Classifier
    w: Tensor
    interpreter: Psi
    domain: Domain

    def hear(self, waveform: Tensor) -> Heard:
        """Clips [B, S], heard with the hidden maps that this interpreter reads."""
        return hear(self.classifier, waveform, self.domain, self.interpreter.maps)

    @torch.inference_mode()
    def interpret(self, heard: Heard) -> Interpretation:
        """Activations, pooled activations and interpreter's logits of what `hear` gave."""
        audible = audible_frames(heard.size) if self.interpreter.skip_silence else None
        return self.interpreter(heard.features.maps, heard.size.shape[2], audible)

    def relevances(self, pooled: Tensor, classes: Tensor, size: Tensor) -> Tensor:
        """`relevance` [B, K] of clips of magnitude `size` [B, F, T]; of silence, none."""
        return relevance(pooled, self.interpreter.theta, classes) * audible(size).unsqueeze(1)

    @torch.inference_mode()
    def explain(
        self,
        waveform: Tensor,
        classes: Tensor | Sequence[int] | None = None,
        *,
        threshold: float = 0.2,
        max_components: int = 0,
    ) -> tuple[Explanation, Heard, Interpretation]:
        """Explain one class of each clip.

        Sounds are of clips scaled to their peak; `Heard.judge` has the classifier hear them.

        Parameters
        ----------
        waveform : Tensor [B, S]
        classes : Tensor [B] or sequence of int, optional
            The classes to explain; without them, what the classifier says.
        threshold : float
            tau.
        max_components : int
            0: no limit.
        """
        heard = self.hear(waveform)
        interpretation = self.interpret(heard)
        if classes is None:
            chosen = heard.logits.argmax(dim=1)
        else:
            chosen = torch.as_tensor(classes, dtype=torch.int64, device=heard.size.device)
        r = self.relevances(interpretation.pooled, chosen, heard.size)
        selected = select(r, threshold, max_components)
        mask = soft_mask(self.w, interpretation.activations, selected)
        audio, removal = split_heard(heard, mask, linear=False)
        return Explanation(chosen, r, selected, mask, audio, removal), heard, interpretation


class OnInterpreter:
    """What methods share that explain by L2I's parts."""

    parts = ("dictionary", "interpreter")
    needs_layers = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.subject = subject
        self.settings = settings

    @cached_property
    def explainer(self) -> Explainer:
        """The classifier and the parts, as one object."""
        s = self.subject
        return Explainer(s.classifier, s.parts["dictionary"], s.parts["interpreter"], s.domain)

    @property
    def layers(self) -> tuple[str, ...]:
        """The interpreter's."""
        return self.explainer.interpreter.maps

    def select(self, heard: Heard, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Activations [B, K, T] and the components selected [B, K], bool."""
        e = self.explainer
        interpretation = e.interpret(heard)
        r = e.relevances(interpretation.pooled, classes, heard.size)
        s = self.settings
        return interpretation.activations, select(r, s.threshold, s.max_components)


class ListenToInterpret(OnInterpreter):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    linear = False
    heeds = ("threshold", "max_components")

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T] of the components that matter."""
        return soft_mask(self.explainer.w, *self.select(heard, classes))


@torch.inference_mode()
def alone(
    explainer: Explainer, heard: Heard, interpretation: Interpretation, components: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """What single components keep of one clip: number, mask [F, T], sound [S] at its level.

    One by one: of a clip of minutes, masks are large.
    """
    direction, loud = phase(heard.spectrum, heard.size), heard.size.log1p()
    h = interpretation.activations
    share = reconstruction(explainer.w, h)
    share = share.clamp_min_(torch.finfo(share.dtype).tiny).reciprocal_()
    for k in components:
        mask = (explainer.w[:, k].view(1, -1, 1) * h[:, k : k + 1]).mul_(share).clamp_(max=1.0)
        sound = synthesise(direction, torch.expm1(mask * loud), heard.domain, heard.n_samples)
        if heard.level is not None:
            sound = sound * heard.level
        yield k, mask[0], sound[0]

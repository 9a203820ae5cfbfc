"""Explanations without training: gates on a clip's own components, found by asking the classifier.

The clip's own dictionary W and activations H (NMF of |X|^(1/2)) say what is there; gates G in
[0, 1], one per component and piece of time, say what counts. The mask is a linear gain::

    M = W (G * H) / W H                      in [0, 1]
    E = istft(M * X)                         the explanation
    R = x - E                                the removal: both add up to x, sample by sample

Where the classifier has gradients (`Gates`), G = sigmoid(v) is found by descent through it: the
explanation is to be as probable as the clip, the removal improbable, and what is kept small::

    relu(z(x) - z(E)) + softplus(z(R) - t) + size * sum(M |X|) / sum |X|

    t = min(z(x), 0) - margin

with z the log-odds of the class, log(p / (1 - p)), whose gradient does not vanish where the
classifier is sure. It is an extremal perturbation (Fong, Patrick, Vedaldi 2019, arXiv 1910.08485)
on some hundred gates instead of a hundred thousand bins, which leaves little room for masks that
fool the classifier.

A black box has no gradients (`Shapley`): each component's Shapley value for the class's log-odds is
estimated from coalitions of components (Lundberg, Lee 2017, arXiv 1705.07874), and of the
components, in the order of their values, as many are kept as make that objective least.

Over 300 lines: two methods on the same parts of a sound, with and without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import Domain
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.apart import Apart, Gated, domain_of, take_apart
from l2i.explanation.families import ClipByClip
from l2i.models.answers import log_odds, objective
from l2i.models.gate_head import gate
from l2i.models.heard import Heard, finite_gradients, need_gradients
from l2i.models.optimizers import Adam
from l2i.models.players import coalitions, worth
from l2i.types import Classifier

# The least values of the settings that people give, and which of them are counts.
_COUNTS = {"components": 1, "steps": 1, "coalitions": 1, "seed": 0}
_LEAST = _COUNTS | {"learning_rate": 1e-6, "piece_s": 1e-3, "size": 0, "margin": 0}


@dataclass(frozen=True)
class Gates:
    """Gates found by descent through the classifier; see the module.

    Parameters
    ----------
    classifier : Classifier
        With gradients.
    domain : Domain, optional
        By default `domain_of` its sample rate.
    components : int
        K, of each clip's own dictionary.
    piece_s : float
        Seconds from one gate of a component to the next; between them gates are interpolated.
    steps : int
    learning_rate : float
        The step size of Adam.
    size : float
        Weight of what is kept.
    margin : float
        By how much the log-odds are to fall below even, or below the clip's, by the removal.
    seed : int
        Seed of the dictionary's start.

    Raises
    ------
    UsageError
        The classifier has no gradients.
    """

    classifier: Classifier
    domain: Domain | None = None
    components: int = 24
    piece_s: float = 0.25
    steps: int = 25
    learning_rate: float = 0.5
    size: float = 8.0
    margin: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        need_gradients(self.classifier, "method 'gates'")

    def __call__(self, waveform: Tensor, classes: Tensor) -> Gated:
        """Explain one class of each clip.

        Parameters
        ----------
        waveform : Tensor [B, S]
        classes : Tensor [B], int64
        """
        clf = self.classifier
        domain = self.domain or domain_of(clf.sample_rate)
        # Copies: tensors that were made for inference take part in no gradient.
        with torch.inference_mode(False):
            waveform, classes = waveform.clone().to(clf.device), classes.clone().to(clf.device)
            with torch.no_grad():
                heard = take_apart(waveform, domain, self.components, self.seed)
                target = log_odds(clf.logits(waveform), classes, clf.task)
            frames = heard.size.shape[2]
            pieces = max(2, round(frames * domain.hop_length / domain.sample_rate / self.piece_s))
            v = torch.full((*heard.activations.shape[:2], pieces), 2.0, device=waveform.device)
            v.requires_grad_()
            optimizer = Adam([v], self.learning_rate)
            with torch.enable_grad():
                for _ in range(self.steps):
                    mask, audio = heard.audio(_spread(v, frames))
                    optimizer.zero_grad()
                    _losses(self, heard, classes, target, mask, audio).sum().backward()
                    optimizer.step()
            with torch.no_grad():
                return heard.gated(_spread(v, frames))


def _spread(v: Tensor, frames: int) -> Tensor:
    """Gates [B, K, T] of values [B, K, J]."""
    return F.interpolate(gate(v), size=frames, mode="linear", align_corners=True)


def _losses(
    way: Gates | Shapley, heard: Apart, classes: Tensor, target: Tensor, mask: Tensor, audio: Tensor
) -> Tensor:
    """What the gates make least, per clip [B]: see the module."""
    both = torch.cat([audio, heard.waveform - audio])
    finite_gradients(both)
    z = log_odds(way.classifier.logits(both), classes.repeat(2), way.classifier.task)
    kept = (mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2)).clamp_min(1e-12)
    inside, outside = z.chunk(2)
    return objective(inside, outside, target, kept, size=way.size, margin=way.margin)


@dataclass(frozen=True)
class Shapley:
    """Components chosen by their Shapley values, by forward passes alone; see the module.

    Parameters
    ----------
    classifier : Classifier
    domain : Domain, optional
        By default `domain_of` its sample rate.
    components : int
        K, of each clip's own dictionary: the players.
    coalitions : int
        Pairs of a coalition and its complement, per clip.
    size, margin : float
        As for `Gates`.
    seed : int
    """

    classifier: Classifier
    domain: Domain | None = None
    components: int = 12
    coalitions: int = 48
    size: float = 8.0
    margin: float = 3.0
    seed: int = 0

    @torch.no_grad()
    def __call__(self, waveform: Tensor, classes: Tensor) -> Gated:
        """Explain one class of each clip; as `Gates.__call__`, without gradients."""
        clf = self.classifier
        domain = self.domain or domain_of(clf.sample_rate)
        waveform, classes = waveform.to(clf.device), classes.to(clf.device)
        heard = take_apart(waveform, domain, self.components, self.seed)
        target = log_odds(clf.logits(waveform), classes, clf.task)
        chosen = []
        for clip in range(len(waveform)):
            one = heard.take(slice(clip, clip + 1))
            c = classes[clip : clip + 1]
            order = self._values(one, c).argsort(descending=True)
            chosen.append(self._best_prefix(one, c, target[clip : clip + 1], order))
        gates = torch.stack(chosen).unsqueeze(2).expand(-1, -1, heard.activations.shape[2])
        return heard.gated(gates.contiguous())

    @torch.no_grad()
    def values(self, waveform: Tensor, classes: Tensor) -> Tensor:
        """Each component's Shapley value [B, K] for the class's log-odds.

        They add up to what `worth` has of all components over silence.
        """
        clf = self.classifier
        domain = self.domain or domain_of(clf.sample_rate)
        heard = take_apart(waveform.to(clf.device), domain, self.components, self.seed)
        each = enumerate(classes.to(clf.device).split(1))
        return torch.stack([self._values(heard.take([clip]), c) for clip, c in each])

    def worth(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Log-odds [n] of one class each, within the bounds that coalitions are counted by."""
        return worth(logits, classes, self.classifier.task)

    def _worth(self, heard: Apart, classes: Tensor, sets: Tensor) -> Tensor:
        """Log-odds [n] of the class by some sets of one clip's components [n, K]."""
        values = []
        for some in sets.split(16):
            _, _, audio = _of_sets(heard, some)
            values.append(self.worth(self.classifier.logits(audio), classes.expand(len(some))))
        return torch.cat(values)

    def _values(self, heard: Apart, classes: Tensor) -> Tensor:
        """Shapley values [K]: kernel regression over coalitions and their complements."""
        k = heard.activations.shape[1]
        sets = coalitions(k, self.coalitions, np.random.default_rng(self.seed))
        ends = torch.stack([torch.zeros(k), torch.ones(k)])
        everything = torch.cat([torch.from_numpy(sets), ends]).to(heard.activations)
        worth = self._worth(heard, classes, everything)
        nothing, whole = worth[-2], worth[-1]
        s, y = everything[:-2].double(), (worth[:-2] - nothing).double()
        # The last value follows from the others, since all add up to v(all) - v(none).
        total = float(whole - nothing)
        x = s[:, :-1] - s[:, -1:]
        ridge = 1e-3 * torch.eye(k - 1, dtype=x.dtype, device=x.device)
        first = torch.linalg.solve(x.T @ x + ridge, x.T @ (y - s[:, -1] * total))
        return torch.cat([first, (total - first.sum()).view(1)]).float()

    def _best_prefix(self, heard: Apart, classes: Tensor, target: Tensor, order: Tensor) -> Tensor:
        """The first so many components of an order that make the objective least [K]."""
        k = len(order)
        rank = order.argsort()
        sets = (rank.unsqueeze(0) < torch.arange(1, k + 1, device=rank.device).unsqueeze(1)).float()
        losses = []
        for some in sets.split(8):
            both = (x.expand(len(some)) for x in (classes, target))
            many, *parts = _of_sets(heard, some)
            losses.append(_losses(self, many, *both, *parts))
        return sets[int(torch.cat(losses).argmin())]


def _of_sets(heard: Apart, sets: Tensor) -> tuple[Apart, Tensor, Tensor]:
    """One clip, once for each of some sets of its components [n, K]: masks and explanations."""
    many = heard.changed(lambda x: x.expand(len(sets), *x.shape[1:]))
    return many, *many.audio(sets.unsqueeze(2).expand(-1, -1, heard.activations.shape[2]))


def without_training(
    classifier: Classifier, method: str = "auto", **settings: object
) -> Gates | Shapley:
    """The method that explains a classifier without training: by its name, or as it has gradients.

    Parameters
    ----------
    classifier : Classifier
    method : {'auto', 'gates', 'shapley'}
    **settings
        The fields of `Gates` or `Shapley`.

    Raises
    ------
    UsageError
        There is no such method or setting.
    """
    if method == "auto":
        method = "gates" if classifier.differentiable else "shapley"
    kinds: dict[str, type[Gates] | type[Shapley]] = {"gates": Gates, "shapley": Shapley}
    if method not in kinds:
        raise UsageError(f"There is no method {method!r} without training: gates or shapley.")
    kind = kinds[method]
    unknown: Sequence[str] = [s for s in settings if s not in kind.__dataclass_fields__]
    if unknown:
        known = ", ".join(f for f in kind.__dataclass_fields__ if f != "classifier")
        raise UsageError(f"Method {method!r} has no setting {unknown[0]!r}; it has: {known}.")
    for name in settings.keys() & _LEAST.keys():
        value: Any = settings[name]
        # One player alone has nothing to share.
        least = 2 if (method, name) == ("shapley", "components") else _LEAST[name]
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= least):
            raise UsageError(f"{name} = {value!r} must be a number, {least} or more.")
        if name in _COUNTS and not isinstance(value, Integral):
            raise UsageError(f"{name} = {value!r} must be a whole number.")
    return kind(classifier, **settings)  # type: ignore[arg-type]


class _WithoutTraining(ClipByClip):
    """`Gates` or `Shapley` as one method of several: see `l2i.explanation.ExplanationMethod`.

    Clip by clip: where a classifier hardly has an answer, descent makes much of the rounding by
    which a batch differs from a clip.
    """

    costly = False
    name = ""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        super().__init__(subject, settings)
        self._way = without_training(
            subject.classifier, self.name, domain=self.domain, seed=self.seed
        )

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T], a linear gain."""
        return self._way(one.waveform, torch.tensor([c])).mask[0]


class GatesMethod(_WithoutTraining):
    """`Gates` under its name."""

    name = "gates"
    needs_gradients = True


class ShapleyMethod(_WithoutTraining):
    """`Shapley` under its name."""

    name = "shapley"
    _way: Shapley

    def relevances_of(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """The components' values [B, K]."""
        each = zip(heard.waveform.split(1), classes.split(1), strict=True)
        return torch.cat([self._way.values(x, c) for x, c in each])

    def worth(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Log-odds [B], of which the values are shares."""
        return self._way.worth(logits, classes)

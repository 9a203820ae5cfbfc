"""A batch of clips as explanations need it: its transform, and what the classifier says of it.

Masks live on log(1 + |X|) or |X| of a short-time Fourier transform X that is the explanation's own
(`l2i.dsp.spectrogram.Domain`), whatever front-end the classifier has. X is that of clips scaled to
their peak, so that a mask does not depend on a clip's level; what is cut out by a mask is brought
back to the clip's level before the classifier judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l2i.dsp.spectrogram import Domain, magnitude, peak_normalise, stft
from l2i.errors import UsageError
from l2i.models.axes import Layer
from l2i.types import Classifier, Features


@dataclass(frozen=True)
class Heard:
    """Clips, heard once; made by `hear`.

    Attributes
    ----------
    classifier : Classifier
    domain : Domain
    waveform : Tensor [B, S]
        As they are.
    spectrum : Tensor [B, F, T], complex
        The clips', each scaled to its peak.
    size : Tensor [B, F, T]
        ``|X|``.
    features : Features
        The classifier's logits, and the hidden maps that were asked for.
    level : Tensor [B, 1] or None
        The clips' peaks; None where the classifier scales what it hears by itself.
    parts : tuple of two Tensor [B, S], or None
        What carries the class that is explained, and the rest, of the clips scaled to their peak;
        known of mixtures alone, and read by oracles alone.
    """

    classifier: Classifier
    domain: Domain
    waveform: Tensor
    spectrum: Tensor
    size: Tensor
    features: Features
    level: Tensor | None
    parts: tuple[Tensor, Tensor] | None = None

    @property
    def logits(self) -> Tensor:
        """The classifier's [B, C]."""
        return self.features.logits

    @property
    def n_samples(self) -> int:
        """S."""
        return self.waveform.shape[1]

    def take(self, rows: Any) -> Heard:
        """Some of the clips, which may come more than once: for several classes of one."""
        features = Features(self.logits[rows], tuple(m[rows] for m in self.features.maps))
        level = None if self.level is None else self.level[rows]
        parts = None if self.parts is None else (self.parts[0][rows], self.parts[1][rows])
        return replace(
            self,
            waveform=self.waveform[rows],
            spectrum=self.spectrum[rows],
            size=self.size[rows],
            features=features,
            level=level,
            parts=parts,
        )

    def copied(self) -> Heard:
        """A copy, of whose tensors gradients can be taken: what was made for inference takes part
        in none."""
        return self.take(torch.arange(len(self.size), device=self.size.device))

    def judge(self, audio: Tensor, rows: Any = slice(None)) -> Tensor:
        """Logits [N, C] of parts [N, S] of the scaled clips `rows`, at those clips' level."""
        finite_gradients(audio)
        return self.classifier.logits(audio if self.level is None else audio * self.level[rows])


def finite_gradients(audio: Tensor) -> None:
    """Let what is not a number in the gradient to some sounds [N, S] be zero.

    Many a front-end takes the root of a power, which has no derivative in digital silence: there is
    no way to go from there, and what sounds elsewhere must not suffer.
    """
    if audio.requires_grad:
        audio.register_hook(lambda g: g.nan_to_num(0.0, 0.0, 0.0))


def need_gradients(
    classifier: Classifier, what: str, instead: str = "take method 'shapley'"
) -> None:
    """Refuse a black box where gradients are needed.

    Parameters
    ----------
    classifier : Classifier
    what : str
        What needs them, for the message.
    instead : str
        What to do.

    Raises
    ------
    UsageError
    """
    if not classifier.differentiable:
        raise UsageError(
            f"This classifier has no gradients, which {what} needs: {instead}, or wrap it with a "
            "front_end in torch."
        )


def hear(
    classifier: Classifier, waveform: Tensor, domain: Domain, layers: Sequence[str] = ()
) -> Heard:
    """Transform clips, and have the classifier hear them.

    Parameters
    ----------
    classifier : Classifier
    waveform : Tensor [B, S]
    domain : Domain
    layers : sequence of str
        Hidden layers whose maps are wanted.
    """
    waveform = waveform.to(classifier.device)
    features_of = getattr(classifier, "features_of", None)
    if features_of is not None and getattr(classifier, "domain", None) == domain:
        spectrum = classifier.spectrum(waveform)  # type: ignore[attr-defined]
        size = magnitude(spectrum)
        features = features_of(size, layers)
        return Heard(classifier, domain, waveform, spectrum, size, features, None)
    with torch.no_grad():
        features = classifier.features(waveform, layers)
        spectrum = stft(peak_normalise(waveform), domain)
        peak = waveform.abs().amax(dim=1, keepdim=True)
        return Heard(classifier, domain, waveform, spectrum, magnitude(spectrum), features, peak)


def class_gradients(
    heard: Heard, layers: Sequence[str], maps: Sequence[Tensor], classes: Tensor
) -> tuple[Tensor, ...]:
    """Gradient of a class's logit by the channels of hidden maps, its mean over rows and frames.

    Parameters
    ----------
    heard : Heard
        B clips.
    layers : sequence of str
        As the classifier has its layers, the deepest last.
    maps : sequence of Tensor [B, D_l, F_l, T_l]
        What those layers give.
    classes : Tensor [B], int64

    Returns
    -------
    tuple of Tensor [B, D_l]
        Zeros of a map that is not on the way to the classifier's answer.

    Raises
    ------
    UsageError
        The classifier has no gradients, or the deepest layer is not on the way to its answer.
    """
    clf: Any = heard.classifier
    above = getattr(clf, "logits_above", None)
    with torch.inference_mode(False), torch.enable_grad():
        chosen = classes.clone().view(-1, 1)
        if above is not None:
            # From the first map on: what lies below is not computed again.
            x = maps[0].clone().requires_grad_()
            logits, given = above(x, *layers)
            gradients = torch.autograd.grad(logits.gather(1, chosen).sum(), [x, *given])
            return tuple(g.mean(dim=(2, 3)) for g in gradients)
        return _recorded(clf, heard.waveform.clone(), layers, chosen)


def _recorded(
    clf: Any, waveform: Tensor, layers: Sequence[str], classes: Tensor
) -> tuple[Tensor, ...]:
    """The same by a pass of its own, for a classifier whose upper part cannot be run alone."""
    if not clf.differentiable or not hasattr(clf, "recorded"):
        raise UsageError(
            "This classifier has no gradients that can be read at its layers, which this method "
            "needs: take 'shapley', or give the torch module itself."
        )
    read = [Layer.parse(layer) for layer in layers]
    with ExitStack() as stack:
        given = [stack.enter_context(clf.recorded(layer)) for layer in read]
        logits = clf.logits(waveform.requires_grad_())
    # The deepest map is what the class is asked for at; a finer one may lie beside the way.
    reached = [n for n, passes in enumerate(given) if passes and passes[0].requires_grad]
    gradients: list[Tensor | None] = [None] * len(read)
    if reached:
        own = logits.gather(1, classes).sum()
        some = torch.autograd.grad(own, [given[n][0] for n in reached], allow_unused=True)
        for n, gradient in zip(reached, some, strict=True):
            gradients[n] = gradient
    if gradients[-1] is None:
        raise UsageError(
            f"The class's gradient does not reach the layer {read[-1].name}, which is not on the "
            "way to the classifier's answer: name another one."
        )
    means = []
    for layer, mean, passes in zip(read, gradients, given, strict=True):
        map_ = layer.map(torch.zeros_like(passes[0]) if mean is None else mean)
        per_window = map_.float().mean(dim=(2, 3))
        means.append(per_window.unflatten(0, (len(waveform), -1)).mean(dim=1))
    return tuple(means)

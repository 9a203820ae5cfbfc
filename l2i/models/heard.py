"""A batch of clips as explanations need it: its transform, and what the classifier says of it.

Masks live on log(1 + |X|) or |X| of a short-time Fourier transform X that is the explanation's own
(`l2i.dsp.spectrogram.Domain`), whatever front-end the classifier has. X is that of clips scaled to
their peak, so that a mask does not depend on a clip's level; what is cut out by a mask is brought
back to the clip's level before the classifier judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l2i.dsp.spectrogram import Domain, magnitude, peak_normalise, stft
from l2i.errors import UsageError
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

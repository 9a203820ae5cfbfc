"""What gates make of a sound: activations of the sound itself, and the mask as a linear gain.

The dictionary W and the activations H *of the sound* say what is there; gates G in [0, 1], one per
component and frame, say what counts::

    M = W (G * H) / W H        in [0, 1], a gain of |X|

Two other ways are there to compare with: activations that an interpreter reads from the hidden
maps, and a mask of log(1 + |X|), as L2I has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2i.dsp.spectrogram import audible_frames, istft, linear_gain, peak_normalise
from l2i.models.dictionary import unit_columns
from l2i.models.gate_head import GateHead, gate
from l2i.models.heard import Heard, class_gradients
from l2i.models.interpreter import Psi

_UPDATES = 20
# Below it W H explains nothing: no gate opens what is not there.
_FLOOR = 1e-8


def activations_of(log_size: Tensor, w: Tensor, updates: int = _UPDATES) -> Tensor:
    """Activations of sounds under a fixed dictionary, by multiplicative updates.

    Lee and Seung 2001, *Algorithms for Non-negative Matrix Factorization*: ``H <- H W'S / W'W H``,
    from W'S. After twenty the gates that take two sounds apart best are within 0.3 dB of what they
    are after eighty.

    Parameters
    ----------
    log_size : Tensor [B, F, T]
        S = log(1 + ``|X|``).
    w : Tensor [F, K]
        Non-negative.
    updates : int

    Returns
    -------
    Tensor [B, K, T]
        Non-negative; zero where the sound is.
    """
    gram, projected = w.T @ w, torch.matmul(w.T, log_size)
    h = projected / gram.sum(1).clamp_min(_FLOOR).view(1, -1, 1)
    for _ in range(updates):
        h = h * projected / torch.matmul(gram, h).clamp_min(_FLOOR)
    return h


@dataclass(frozen=True)
class Taken:
    """Sounds, taken apart into the components of one dictionary, or of a dictionary each.

    Attributes
    ----------
    w : Tensor [F, K] or [B, F, K]
    activations : Tensor [B, K, T]
        H, of the sound.
    whole : Tensor [B, F, T]
        W H.
    """

    w: Tensor
    activations: Tensor
    whole: Tensor

    def take(self, rows: Any) -> Taken:
        """Some of the sounds."""
        return Taken(self.w, self.activations[rows], self.whole[rows])

    def mask(self, gates: Tensor) -> Tensor:
        """Mask [B, F, T] in [0, 1], a linear gain, of gates [B, K, T]."""
        part = torch.matmul(self.w, gates * self.activations)
        # What nothing explains is kept by none, and gives no gradient. Sums of the same terms may
        # differ by rounding.
        explained = self.whole > _FLOOR
        return torch.where(explained, part / torch.where(explained, self.whole, 1.0), 0.0).clamp(
            0, 1
        )

    def shares(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Each component's share of the explanation, and how much of it counts [B, K] each.

        The first add up to 1, where anything counts; the second are in [0, 1]. Both are of W H,
        what the components say is there.
        """
        loud, h = self.w.sum(dim=-2), self.activations
        whole, part = (x.sum(dim=2) * loud for x in (h, gates * h))
        tiny = torch.finfo(whole.dtype).tiny
        return part / part.sum(1, keepdim=True).clamp_min(tiny), part / whole.clamp_min(tiny)


def take_apart(heard: Heard, w: Tensor) -> Taken:
    """Take clips apart into the components of a dictionary W [F, K]."""
    h = activations_of(heard.size.log1p(), w)
    return Taken(w, h, torch.matmul(w, h))


def split_sounds(heard: Heard, mask: Tensor) -> Tensor:
    """Explanations and removals [2 B, S], which add up to the clips scaled to their peak.

    Gradients pass from both to the mask.

    Parameters
    ----------
    heard : Heard
        B clips.
    mask : Tensor [B, F, T]
        A linear gain.
    """
    explanation = istft(heard.spectrum * mask, heard.domain, heard.n_samples)
    return torch.cat([explanation, peak_normalise(heard.waveform) - explanation])


@dataclass(frozen=True)
class Gating:
    """A head of gates, and what its gates multiply.

    Attributes
    ----------
    head : GateHead
    layers : tuple of str
        Hidden layers that it reads, the deepest last.
    given : Tensor [F, K]
        The dictionary, if the head has none of its own.
    log : bool
        Whether the mask is one of log(1 + ``|X|``).
    psi : Psi, optional
        Whose activations the gates multiply, in place of the sound's own.
    shift : float
        Added to the gates' log odds: below 0 they are shut further than they were trained to be.
    preset : {'evidence', 'source'}
        What they were trained to let through: as little as convinces, or all that does.
    classes : frozenset of str, optional
        Those that training clips have; unset for gates of older versions, which do not say.
    """

    head: GateHead
    layers: tuple[str, ...]
    given: Tensor
    log: bool = False
    psi: Psi | None = None
    shift: float = 0.0
    preset: str = "evidence"
    classes: frozenset[str] | None = None

    @property
    def w(self) -> Tensor:
        """The dictionary [F, K], whose columns have unit length."""
        return self.given if self.head.w is None else unit_columns(self.head.w.relu())

    def untrained(self, name: str) -> bool:
        """Whether no clip trained the gates for this class, as far as is known.

        They may then stay nearly shut for it: what opens a gate is learnt class by class.
        """
        return self.classes is not None and name not in self.classes

    def log_odds(self, heard: Heard, classes: Tensor) -> Tensor:
        """Log-odds of the gates [B, K, T] for a class [B] of each clip, as they were trained."""
        maps, n = heard.features.maps, self.head.depths
        gradients = class_gradients(heard, self.layers[-n:], maps[-n:], classes)
        return self.head(maps, gradients, heard.size.shape[2])

    def gates(self, heard: Heard, classes: Tensor) -> Tensor:
        """Gates [B, K, T] in [0, 1] of a class [B] of each of B clips."""
        return gate(self.log_odds(heard, classes) + self.shift)

    def take_apart(self, heard: Heard) -> Taken:
        """The clips, in components of the dictionary, to which gradients pass if it is learnt."""
        w = self.w
        if self.psi is None:
            return take_apart(heard, w)
        maps = dict(zip(self.layers, heard.features.maps, strict=True))
        frames = audible_frames(heard.size) if self.psi.skip_silence else None
        own = tuple(maps[name] for name in self.psi.maps)
        with torch.no_grad():
            h = self.psi(own, heard.size.shape[2], frames).activations
        return Taken(w, h, torch.matmul(w, h))

    def gain(self, taken: Taken, gates: Tensor, size: Tensor) -> Tensor:
        """What gates [B, K, T] make of magnitudes [B, F, T]: a gain of them, in [0, 1]."""
        return linear_gain(taken.mask(gates), size, linear=not self.log)

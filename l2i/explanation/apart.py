"""A clip taken apart into components of its own, and what gates on them leave of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l2i.dsp.spectrogram import Domain, istft, magnitude, stft
from l2i.models.dictionary import encode, learn_dictionary
from l2i.models.gated import Taken

_NMF_SWEEPS = 40
_WINDOW_S = 0.064


def domain_of(sample_rate: int) -> Domain:
    """Where the masks of a clip live: windows of about 64 ms, a frame every quarter of one.

    >>> domain_of(16000).n_fft, domain_of(44100).n_fft
    (1024, 2048)
    """
    n_fft = 2 ** max(6, round(math.log2(_WINDOW_S * sample_rate)))
    return Domain(sample_rate, n_fft, n_fft // 4)


@dataclass(frozen=True)
class Apart(Taken):
    """A batch of clips, taken apart by `take_apart` into components of their own, `w` [B, F, K]:
    spectra of unit length, of |X|^(1/2)."""

    waveform: Tensor  # [B, S]
    spectrum: Tensor  # [B, F, T]
    size: Tensor  # |X| [B, F, T]
    domain: Domain

    def changed(self, change: Callable[[Tensor], Tensor]) -> Apart:
        """The same of each tensor as a function changes it: of some clips, or of one many times."""
        tensors: dict[str, Any] = {k: change(x) for k, x in vars(self).items() if k != "domain"}
        return replace(self, **tensors)

    def take(self, rows: Any) -> Apart:
        """Some of the clips."""
        return self.changed(lambda x: x[rows])

    def audio(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [B, F, T] and explanation [B, S] of gates [B, K, T]."""
        mask = self.mask(gates)
        return mask, istft(self.spectrum * mask, self.domain, self.waveform.shape[1])

    def gated(self, gates: Tensor) -> Gated:
        mask, audio = self.audio(gates)
        return Gated(self, gates, mask, audio, self.waveform - audio)


@dataclass(frozen=True)
class Gated:
    """What gates leave of a batch of clips.

    Attributes
    ----------
    apart : Apart
        The clips.
    gates : Tensor [B, K, T]
        In [0, 1].
    mask : Tensor [B, F, T]
        In [0, 1], a linear gain.
    audio, removal : Tensor [B, S]
        They add up to the clips.
    """

    apart: Apart
    gates: Tensor
    mask: Tensor
    audio: Tensor
    removal: Tensor

    def alone(self, clip: int, k: int) -> Tensor:
        """What component k contributes to a clip's explanation [S]."""
        one = slice(clip, clip + 1)
        part = torch.zeros_like(self.gates[one])
        part[:, k] = self.gates[one, k]
        return self.apart.take(one).audio(part)[1][0]


def take_apart(waveform: Tensor, domain: Domain, components: int, seed: int) -> Apart:
    """Each clip's own components, by sparse NMF of the root of its magnitudes."""
    spectrum = stft(waveform, domain)
    size = magnitude(spectrum)
    factors = []
    for clip in size:
        # The level is taken out: a mask is the same whatever the clip's level.
        frames = (clip / clip.amax().clamp_min(torch.finfo(clip.dtype).tiny)).sqrt()
        k = min(components, int((frames.square().sum(0) > 1e-8).sum()))
        w = torch.zeros(len(frames), components, device=frames.device)
        h = torch.zeros(components, frames.shape[1], device=frames.device)
        if k:
            own, _ = learn_dictionary(
                [frames],
                k,
                sparsity=0.0,
                iterations=_NMF_SWEEPS,
                generator=torch.Generator().manual_seed(seed),
                tolerance=1e-3,
            )
            w[:, :k] = own
            h[:k] = encode(frames, own, sweeps=10)
        factors.append((w, h))
    w, h = (torch.stack(parts) for parts in zip(*factors, strict=True))
    return Apart(w, h, w @ h, waveform, spectrum, size, domain)

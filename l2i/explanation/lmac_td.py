"""LMAC-TD: explanations made in the time domain (Mancini, Paissan, Ravanelli, Subakan, *LMAC-TD:
Producing Time Domain Explanations for Audio Classifiers*, 2024, arXiv 2409.08655). How it learns,
and what is sized down of it, is in `l2i.training.time_domain`.

Differences: what it makes is a waveform. To be judged as all others are, its mask is the share of
the explanation's spectrum E beside the removal's R, ``|E| / (|E| + |R|)``. It is not told which
class is asked for, and explains the decision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from l2i.dsp.spectrogram import magnitude, stft
from l2i.explanation.families import LearntMask
from l2i.models.heard import Heard
from l2i.models.time_domain import TimeDomainMask, turned

__all__ = ["LMacTd"]


class LMacTd(LearntMask):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    parts = ("time-domain-mask",)
    needs_gradients = True
    network: TimeDomainMask

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        sounds = self.network(heard.features.maps, turned(heard.waveform))
        e, r = (magnitude(stft(x, heard.domain)) for x in sounds)
        return e / (e + r).clamp_min(torch.finfo(e.dtype).tiny)

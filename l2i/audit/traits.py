"""What clips have in common that is not a sound: it cannot be cut out, but imposed on others.

That they begin or end in silence, that their high frequencies are missing, that they are off zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from l2i.dsp.spectrogram import peak_normalise

# What is quieter than this below a clip's peak is silence.
_SILENCE = 1e-3
# How far below the whole what lies above a cut-off must be, to be missing: dB of energy.
_MISSING_DB = 50.0
_CUT_OFFS = (500, 1000, 2000, 4000, 8000, 16000)

TraitKind = Literal["starts silent", "ends silent", "highs missing", "off zero"]


@dataclass(frozen=True)
class Trait:
    """What clips have in common that is not a sound.

    Attributes
    ----------
    kind : {'starts silent', 'ends silent', 'highs missing', 'off zero'}
    amount : float
        Length of the silence as a share of the clip; the cut-off, Hz; the offset as a share of the
        peak, with its sign.
    """

    kind: TraitKind
    amount: float

    def measure(self, x: Tensor, sample_rate: int) -> Tensor:
        """How much of it clips [B, S] have [B], in its own unit; more is more of it."""
        return _MEASURES[self.kind](x, sample_rate, self.amount)

    def impose(self, x: Tensor, sample_rate: int) -> Tensor:
        """Clips [B, S] that have it."""
        n = x.shape[1]
        if self.kind == "off zero":
            return x + self.amount * x.abs().amax(dim=1, keepdim=True)
        if self.kind == "highs missing":
            spectrum = torch.fft.rfft(x)
            spectrum[:, round(self.amount * n / sample_rate) :] = 0
            return torch.fft.irfft(spectrum, n=n)
        count = round(self.amount * n)
        kept = x.clone()
        kept[:, slice(0, count) if self.kind == "starts silent" else slice(n - count, n)] = 0
        return kept


def _silent_share(x: Tensor) -> Tensor:
    """How much of the start of clips [B, S] is silent, a share [B]."""
    loud = x.abs() > _SILENCE * x.abs().amax(dim=1, keepdim=True)
    first = torch.where(loud.any(dim=1), loud.float().argmax(dim=1), x.shape[1])
    return first / x.shape[1]


def _missing_db(x: Tensor, sample_rate: int, cut_off: float) -> Tensor:
    """How far what lies above a frequency is below the whole of clips [B, S], dB of energy [B]."""
    power = torch.fft.rfft(x.double()).abs().square()
    above = power[:, round(cut_off * x.shape[1] / sample_rate) :].sum(dim=1)
    whole = power.sum(dim=1).clamp_min(1e-30)
    return -10 * (above / whole).clamp_min(1e-12).log10()


def _offset(x: Tensor) -> Tensor:
    return x.mean(dim=1) / x.abs().amax(dim=1).clamp_min(1e-30)


_MEASURES = {
    "starts silent": lambda x, rate, amount: _silent_share(x),
    "ends silent": lambda x, rate, amount: _silent_share(x.flip(1)),
    "highs missing": _missing_db,
    "off zero": lambda x, rate, amount: _offset(x) * (1 if amount > 0 else -1),
}


def traits_of(x: Tensor, sample_rate: int) -> list[Trait]:
    """The traits that most of some clips [B, S] have.

    A silence of 4 % or more of the clip; nothing above a frequency that is less than 50 dB below
    the whole; an offset of 1 % or more of the peak.
    """
    x = peak_normalise(x)
    kinds: list[Trait] = []
    if (share := float(_silent_share(x).median())) >= 0.04:
        kinds.append(Trait("starts silent", min(share, 0.9)))
    if (share := float(_silent_share(x.flip(1)).median())) >= 0.04:
        kinds.append(Trait("ends silent", min(share, 0.9)))
    for cut_off in _CUT_OFFS:
        if cut_off >= 0.45 * sample_rate:
            break
        if float(_missing_db(x, sample_rate, cut_off).median()) >= _MISSING_DB:
            kinds.append(Trait("highs missing", float(cut_off)))
            break
    if abs(offset := float(_offset(x).median())) >= 0.01:
        kinds.append(Trait("off zero", offset))
    return kinds

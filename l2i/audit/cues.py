"""What a classifier might go by: parts of a sound that can be cut out of it and put into another.

A `Cue` is the same part of many clips: one spectral component, one band of frequencies, or one
stretch of time. A gain on the clip's spectrogram cuts it out, so that the cue and the rest add up
to the clip. A `Trait` is what cannot be cut out, but imposed: that a clip begins or ends in
silence, that its high frequencies are missing, that it is off zero. A `Companion` is a whole sound,
that of another class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from l2i.dsp.mel import interpolation, mel_places
from l2i.dsp.spectrogram import Domain, peak_normalise, synthesise
from l2i.models.gated import Taken, take_apart
from l2i.models.heard import Heard

__all__ = [
    "BANDS",
    "SLICES",
    "Companion",
    "Cue",
    "CueKind",
    "Palette",
    "Trait",
    "TraitKind",
    "fixed_tone",
    "traits_of",
    "usual_size",
]

BANDS = 24
"""Bands of frequencies, even on the mel scale, each overlapping the next."""
SLICES = 16
"""Stretches of time that a clip is cut into."""
# What is quieter than this below a clip's peak is silence.
_SILENCE = 1e-3
# How far below the whole what lies above a cut-off must be, to be missing: dB of energy.
_MISSING_DB = 50.0
# What is within so much of its frequency, in all clips, is one tone.
_TONE = 0.02
_CUT_OFFS = (500, 1000, 2000, 4000, 8000, 16000)

CueKind = Literal["component", "band", "time"]
TraitKind = Literal["starts silent", "ends silent", "highs missing", "off zero"]


@dataclass(frozen=True)
class Cue:
    """The same part of many clips.

    Attributes
    ----------
    kind : {'component', 'band', 'time'}
    number : int
        The component's, the band's or the stretch's.
    low_hz, high_hz : float
        Where it lies; of a component, the middle 90 % of its spectrum.
    start, end : float
        Its time, as shares of the clip.
    """

    kind: CueKind
    number: int
    low_hz: float
    high_hz: float
    start: float = 0.0
    end: float = 1.0


class Palette:
    """The parts that sounds are told apart into.

    Parameters
    ----------
    domain : Domain
        Where masks live.
    dictionary : Tensor [F, K], optional
        Non-negative spectral patterns; without it clips are told apart into bands alone.
    device : torch.device

    Attributes
    ----------
    parts : tuple of Cue
        Components, or bands where there is no dictionary: what evidence is counted by.
    cues : tuple of Cue
        All that is tried: components, two neighbouring bands at a time, stretches of time.
    """

    def __init__(self, domain: Domain, dictionary: Tensor | None, device: torch.device) -> None:
        self.domain = domain
        places = mel_places(domain.n_bins, domain.sample_rate) * (BANDS - 1)
        # Triangles that add up to one in each bin.
        self._bands = interpolation(places, BANDS).to(device)
        self._learnt = dictionary is not None
        self.w = self._bands if dictionary is None else dictionary
        bands = tuple(Cue("band", k, *self._span(self._bands[:, k])) for k in range(BANDS))
        top = domain.sample_rate / 2
        # What is half taken out is still heard: wherever a sound lies, one of these has all of it.
        self._wide = self._bands[:, :-1] + self._bands[:, 1:]
        wide = tuple(
            Cue("band", k, *self._span((self._wide[:, k] > 1 - 1e-5).float()))
            for k in range(BANDS - 1)
        )
        slices = tuple(
            Cue("time", n, 0.0, top, n / SLICES, (n + 1) / SLICES) for n in range(SLICES)
        )
        self.parts = bands
        if dictionary is not None:
            self.parts = tuple(
                Cue("component", k, *self._span(dictionary[:, k]))
                for k in range(dictionary.shape[1])
            )
        self.cues = (*(self.parts if self._learnt else ()), *wide, *slices)

    def _span(self, spectrum: Tensor) -> tuple[float, float]:
        """Where the middle 90 % of a spectrum [F] lie, Hz."""
        share = spectrum.double().cumsum(0) / spectrum.double().sum().clamp_min(1e-30)
        bin_hz = self.domain.sample_rate / self.domain.n_fft
        ends = [int((share < q).sum()) for q in (0.05, 0.95)]
        return max(0.0, (ends[0] - 0.5) * bin_hz), (ends[1] + 0.5) * bin_hz

    def peak_hz(self, number: int) -> float:
        """Where a part's spectrum is greatest."""
        bin_hz = self.domain.sample_rate / self.domain.n_fft
        return float(self.w[:, number].argmax()) * bin_hz

    def take_apart(self, heard: Heard) -> Taken:
        """Clips, taken apart into `parts`."""
        if self._learnt:
            return take_apart(heard, self.w)
        ones = torch.ones(len(heard.size), BANDS, heard.size.shape[2], device=heard.size.device)
        return Taken(self.w, ones, torch.ones_like(heard.size))

    @staticmethod
    def energies(taken: Taken, power: Tensor) -> Tensor:
        """How the energies [B, F, T] of clips divide into parts [B, K].

        A bin's energy goes to the parts as their shares of W H in it, so that all of them add up to
        the whole wherever W H is more than nothing.
        """
        ratio = power / taken.whole.clamp_min(torch.finfo(power.dtype).tiny)
        ratio = torch.where(taken.whole > 1e-8, ratio, 0.0)
        return (taken.activations * torch.matmul(taken.w.T, ratio)).sum(dim=2)

    def gain(self, cue: Cue, taken: Taken, size: Tensor, usual: Tensor) -> Tensor:
        """The gain [B, F, T] in [0, 1] that cuts a cue out of clips.

        A band without any sound is a hole, which is a sound of its own. So a band's cue is what is
        louder than usual in it: than in most of the clip's time, or than in other clips.

        Parameters
        ----------
        cue : Cue
        taken : Taken
        size : Tensor [B, F, T]
            ``|X|`` of clips scaled to their peak.
        usual : Tensor [F]
            What other clips have: see `usual_size`.
        """
        k, frames = cue.number, size.shape[2]
        if cue.kind == "component":
            one = Taken(taken.w[:, [k]], taken.activations[:, [k]], taken.whole)
            return one.mask(torch.ones_like(one.activations))
        if cue.kind == "band":
            floor = torch.minimum(size.median(dim=2, keepdim=True).values, usual.view(1, -1, 1))
            above = 1 - (floor / size.clamp_min(1e-20)).clamp_max(1.0)
            return self._wide[:, k].view(1, -1, 1) * above
        gain = torch.zeros(1, 1, frames, device=size.device)
        gain[..., round(cue.start * frames) : round(cue.end * frames)] = 1.0
        return gain.expand_as(size)

    def sound(self, cue: Cue, heard: Heard, taken: Taken, usual: Tensor) -> Tensor:
        """A cue's sound [B, S] in clips that are scaled to their peak; see `gain`."""
        gain = self.gain(cue, taken, heard.size, usual)
        return synthesise(heard.spectrum, gain, heard.domain, heard.n_samples)


@dataclass(frozen=True)
class Companion:
    """A sound of one class in the company of another's, the nearer one first.

    Attributes
    ----------
    pair : (int, int)
        The two classes.
    """

    pair: tuple[int, int]


def fixed_tone(sound: Tensor, sample_rate: int) -> float | None:
    """The frequency of the tone that is the same in all of some sounds [N, S], Hz; None: there is
    none.

    The middle 90 % of their energy lie within 2 % of it, each sound counting the same. Natural
    sounds are not so much alike, however pure each of them is.
    """
    power = torch.fft.rfft(sound.double()).abs().square()
    power /= power.sum(dim=1, keepdim=True).clamp_min(1e-30)
    share = power.mean(dim=0).cumsum(0)
    low, high = (int((share < q).sum()) for q in (0.05, 0.95))
    middle = (low + high) / 2
    # A tone of the whole clip is two bins wide.
    one = low > 0 and high - low <= max(2.0, _TONE * middle)
    return middle * sample_rate / sound.shape[1] if one else None


def usual_size(heard: Heard) -> Tensor:
    """The median magnitude [F] of some clips, over their frames."""
    return heard.size.transpose(0, 1).flatten(1).median(dim=1).values


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

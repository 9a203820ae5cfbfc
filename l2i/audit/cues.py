"""What a classifier might go by: parts of a sound that can be cut out of it and put into another.

A `Cue` is the same part of many clips: one spectral component, one band of frequencies, what is
there all the time, or one stretch of time. A gain on the clip's spectrogram cuts it out, so that
the cue and the rest add up to the clip. A `Companion` is a whole sound, that of another class. What
cannot be cut out is a `l2i.audit.traits.Trait`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from l2i.dsp.mel import interpolation, mel_places
from l2i.dsp.spectrogram import Domain, synthesise
from l2i.models.gated import Taken, take_apart
from l2i.models.heard import Heard

BANDS = 24
"""Bands of frequencies, even on the mel scale, each overlapping the next."""
SLICES = 16
"""Stretches of time that a clip is cut into."""
# What never stops is there in all frames but one of so many.
_SELDOM = 5
# Tones that are the same in all clips: what they hold of the energy, how wide they are at the most,
# as a share of their frequency or in bins, and what is a tone at all.
_MOST, _TONE, _LINES, _LOWEST_HZ = 0.8, 0.02, 8, 20.0

CueKind = Literal["component", "band", "steady", "time"]


@dataclass(frozen=True)
class Cue:
    """The same part of many clips.

    Attributes
    ----------
    kind : {'component', 'band', 'steady', 'time'}
        Steady is what never stops, at any frequency.
    number : int
        The component's, the first band's or the stretch's.
    low_hz, high_hz : float
        Where it lies; of a component, the middle 90 % of its spectrum.
    start, end : float
        Its time, as shares of the clip.
    bands : int
        How many neighbouring bands it is.
    """

    kind: CueKind
    number: int
    low_hz: float
    high_hz: float
    start: float = 0.0
    end: float = 1.0
    bands: int = 1


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
        wide = tuple(self.neighbours(k, 2) for k in range(BANDS - 1))
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

    def _span(self, spectrum: Tensor, tail: float = 0.05) -> tuple[float, float]:
        """Where a spectrum [F] lies but for its tails, Hz."""
        share = spectrum.double().cumsum(0) / spectrum.double().sum().clamp_min(1e-30)
        bin_hz = self.domain.sample_rate / self.domain.n_fft
        ends = [int((share < q).sum()) for q in (tail, 1 - tail)]
        return max(0.0, (ends[0] - 0.5) * bin_hz), (ends[1] + 0.5) * bin_hz

    def neighbours(self, first: int, count: int) -> Cue:
        """So many bands as one; it lies where all of a sound is in it, and not half."""
        whole = (self._bands[:, first : first + count].sum(dim=1) > 1 - 1e-5).float()
        return Cue("band", first, *self._span(whole), bands=count)

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
        louder than usual in it: than in most of the clip's time, or than in other clips. What is
        steady is what there is all the time beyond that of other clips.

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
            share = self._bands[:, k : k + cue.bands].sum(dim=1)
            return share.view(1, -1, 1) * above
        if cue.kind == "steady":
            floor = size.kthvalue(1 + frames // _SELDOM, dim=2, keepdim=True).values
            more = (floor - usual.view(1, -1, 1)).clamp_min(0)
            return (more / size.clamp_min(1e-20)).clamp_max(1.0)
        gain = torch.zeros(1, 1, frames, device=size.device)
        gain[..., round(cue.start * frames) : round(cue.end * frames)] = 1.0
        return gain.expand_as(size)

    def steady(self, heard: Heard, taken: Taken, usual: Tensor) -> Cue:
        """What never stops in some clips, and where half of it lies."""
        cue = Cue("steady", 0, 0.0, self.domain.sample_rate / 2)
        power = (self.gain(cue, taken, heard.size, usual) * heard.size).square().sum(dim=2)
        spectra = power / power.sum(dim=1, keepdim=True).clamp_min(1e-30)
        low, high = self._span(spectra.mean(dim=0), 0.25)
        return replace(cue, low_hz=low, high_hz=high)

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
    """The frequency of the tone that is the same in all of some sounds [N, S], or the strongest of
    several, Hz; None: there is none.

    They hold 80 % of the energy in lines that are together no wider than 2 % of their frequency.
    What is not at the same place in half of the sounds does not count: natural sounds are not so
    much alike, however pure each of them is.
    """
    power = torch.fft.rfft(sound.double()).abs().square()
    power /= power.sum(dim=1, keepdim=True).clamp_min(1e-30)
    shares, order = power.median(dim=0).values.sort(descending=True)
    bin_hz = sample_rate / sound.shape[1]
    hz = float(order[0]) * bin_hz
    # A tone of the whole clip is two or three bins wide.
    lines = max(_LINES, int(_TONE * hz / bin_hz))
    return hz if hz >= _LOWEST_HZ and float(shares[:lines].sum()) >= _MOST else None


def usual_size(heard: Heard) -> Tensor:
    """The median magnitude [F] of some clips, over their frames."""
    return heard.size.transpose(0, 1).flatten(1).median(dim=1).values

"""Waveform to spectrogram and back, log(1 + |X|) and the log-mel front-end; batched, any device.

The chain for a batch::

    waveform [B, S] --stft--> X [B, F, T] complex --log1p|.|--> S [B, F, T]    the interpreter's
                                  └──mel of |X|, dB──> [B, 1, T, M]            the classifier's
    phase of X, a magnitude [B, F, T] --synthesise--> waveform [B, S]

Agrees with librosa's ``stft`` (Hann, centred, zero-padded), ``filters.mel`` (Slaney) and
``power_to_db`` to 1e-4 (``tests/test_spectrogram.py``).

Differences between implementations, and what is done here: the mel spectrogram is of the
*magnitude* |X|, not of its square, and still goes through ``power_to_db``, as published; the
floor of ``top_db`` is taken per clip, never over a batch, so that a clip's features do not
depend on its neighbours.

Over 300 lines: the chain from waveform to spectrogram and back, each step beside its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Named twice: they are had from here as well.
from l2i.dsp.magnitudes import audible_frames as audible_frames
from l2i.dsp.magnitudes import kept_energy as kept_energy
from l2i.dsp.magnitudes import linear_gain as linear_gain
from l2i.dsp.magnitudes import log_magnitude as log_magnitude
from l2i.dsp.magnitudes import magnitude as magnitude

# Frames a CPU transforms at a time: what lies between waveform and spectrogram then stays in its
# cache, and takes half the time.
_FRAMES_IN_CACHE = 256


@dataclass(frozen=True)
class Domain:
    """Where the masks of explanations live: a short-time Fourier transform.

    It is the explanation's own; what front-end the classifier has is the classifier's affair. All
    that a dictionary depends on.

    Attributes
    ----------
    sample_rate : int
        Hz.
    n_fft, hop_length : int
        Samples.
    """

    sample_rate: int
    n_fft: int = 1024
    hop_length: int = 512

    @property
    def n_bins(self) -> int:
        """F, the number of frequency bins."""
        return self.n_fft // 2 + 1

    @property
    def domain(self) -> Domain:
        """These settings without what a front-end adds to them."""
        return Domain(self.sample_rate, self.n_fft, self.hop_length)

    def n_frames(self, n_samples: int) -> int:
        """T, the number of frames of a clip of `n_samples`.

        >>> Domain(44100).n_frames(220500)
        431
        """
        return 1 + n_samples // self.hop_length

    def differences(self, other: Domain) -> list[str]:
        """What differs of these settings, as ``n_fft 1024 against 512``; empty: nothing."""
        theirs = asdict(other)
        return [f"{k} {v} against {theirs[k]}" for k, v in asdict(self).items() if v != theirs[k]]


@dataclass(frozen=True)
class SpectrogramSettings(Domain):
    """A log-mel front-end on top of a transform: what the built-in network hears.

    Attributes
    ----------
    n_mels : int
    """

    n_mels: int = 128


def peak_normalise(waveform: Tensor) -> Tensor:
    """Scale each clip so that its largest absolute sample is 1; silence stays silence.

    The *absolute* peak: dividing by the positive one makes the gain depend on polarity, and
    turns a clip without positive samples into infinities.

    Parameters
    ----------
    waveform : Tensor [B, S]

    Examples
    --------
    >>> peak_normalise(torch.tensor([[0.1, -0.5], [0.0, 0.0]]))
    tensor([[ 0.2000, -1.0000],
            [ 0.0000,  0.0000]])
    """
    # Without a copy of what may be large, as `abs` would make one.
    peak = torch.maximum(waveform.amax(-1, keepdim=True), -waveform.amin(-1, keepdim=True))
    return waveform / torch.where(peak > 0, peak.clamp_min(torch.finfo(waveform.dtype).tiny), 1.0)


def common_gain(sounds: Iterable[Tensor]) -> float:
    """The gain by which the loudest of some sounds is full scale or less.

    One for all of them, so that their levels can be compared by ear.

    >>> common_gain([torch.tensor([0.5, -2.0]), torch.tensor([1.0])]), common_gain([torch.zeros(2)])
    (0.5, 1.0)
    """
    loudest = max(float(sound.abs().max()) for sound in sounds)
    return 1.0 / loudest if loudest > 1.0 else 1.0


@lru_cache(maxsize=8)
def _window(n_fft: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        return torch.hann_window(n_fft, periodic=True, dtype=dtype, device=device)


def stft(waveform: Tensor, settings: Domain) -> Tensor:
    """Short-time Fourier transform: Hann, centred, zero-padded.

    In double precision, as librosa's: the mel spectrogram's 80 dB are of the magnitude, 160 dB of
    power, and single precision's rounding shows from 30 dB below the loudest band on (by up to
    2 dB). Apple's devices have no double precision, and do without.

    Parameters
    ----------
    waveform : Tensor [B, S]

    Returns
    -------
    Tensor [B, F, T], complex64
    """
    exact = torch.float32 if waveform.device.type == "mps" else torch.float64
    window = _window(settings.n_fft, waveform.device, exact)
    half, hop = settings.n_fft // 2, settings.hop_length
    shape = len(waveform), settings.n_frames(waveform.shape[1]), settings.n_bins
    spectrum = waveform.new_empty(shape, dtype=torch.complex64)
    # torch.stft in half its time, which would have all frames before it transforms the first.
    for clips, frames in blocks(spectrum.transpose(1, 2)):
        if not frames.start:
            some = waveform[clips]
            padded = some.new_zeros(len(some), some.shape[1] + 2 * half, dtype=exact)
            padded[:, half : half + some.shape[1]] = some
            windows = padded.unfold(1, settings.n_fft, hop)
        spectrum[clips, frames] = torch.fft.rfft(windows[:, frames] * window)
    return spectrum.transpose(1, 2)  # In memory frame after frame, as torch.stft leaves it.


def istft(spectrum: Tensor, settings: Domain, n_samples: int) -> Tensor:
    """The inverse of `stft`, by one call of torch's; `synthesise` gives the same up to rounding.

    Parameters
    ----------
    spectrum : Tensor [B, F, T], complex
    settings : Domain
    n_samples : int

    Returns
    -------
    Tensor [B, S]
    """
    n_fft, window = settings.n_fft, _window(settings.n_fft, spectrum.device)
    return torch.istft(spectrum, n_fft, settings.hop_length, window=window, length=n_samples)


def blocks(spectrum: Tensor) -> Iterator[tuple[slice, slice]]:
    """What of a batch of spectrograms [B, F, T] to work on at a time: clips, and their frames.

    On a CPU some hundred frames of one clip, clip after clip: what is made of them on the way
    then never leaves the cache. Elsewhere the whole.
    """
    batch, _, count = spectrum.shape
    if spectrum.device.type != "cpu":
        yield slice(0, batch), slice(0, count)
        return
    for clip in range(batch):
        for first in range(0, count, _FRAMES_IN_CACHE):
            yield slice(clip, clip + 1), slice(first, min(first + _FRAMES_IN_CACHE, count))


def phase(spectrum: Tensor, size: Tensor) -> Tensor:
    """X / |X|, for many sounds of one phase; zero where the input is, and has no phase.

    Parameters
    ----------
    spectrum : Tensor [B, F, T], complex
    size : Tensor [B, F, T]
        ``|X|``.

    Returns
    -------
    Tensor [B, F, T], complex
    """
    # Where |X| is zero so is X, and stays so.
    return spectrum * size.clamp_min(1e-30).reciprocal_()


def synthesise(phase: Tensor, magnitudes: Tensor, settings: Domain, n_samples: int) -> Tensor:
    """Waveform of a magnitude and a phase.

    Parameters
    ----------
    phase : Tensor [B, F, T], complex
        See `phase`.
    magnitudes : Tensor [B, F, T]
    n_samples : int

    Returns
    -------
    Tensor [B, S]
    """
    heard = OverlapAdd(len(phase), phase.shape[2], settings, phase.device)
    directions, sizes = phase.transpose(1, 2), magnitudes.transpose(1, 2)
    for block in blocks(phase):
        heard.add(block, directions[block] * sizes[block])
    return heard.waveform(n_samples)


class OverlapAdd:
    """The inverse of `stft`, which takes frames as they come.

    torch.istft in half its time where they come as `blocks`: frames add up hop by hop.

    Parameters
    ----------
    clips, frames : int
        B and T.
    settings : Domain
    device : torch.device
    """

    def __init__(self, clips: int, frames: int, settings: Domain, device: torch.device) -> None:
        self.n_fft, self.hop = settings.n_fft, settings.hop_length
        self.window = _window(self.n_fft, device)
        self.frames = frames
        # Hops to a frame; where its end is no whole one, zeros make it one.
        hops = -(-self.n_fft // self.hop)
        self.total = torch.zeros(clips, frames + hops - 1, self.hop, device=device)

    def add(self, block: tuple[slice, slice], spectrum: Tensor) -> None:
        """Add the frames [b, t, F], complex, of a block of clips and frames."""
        clips, frames = block
        windows = torch.fft.irfft(spectrum, n=self.n_fft).mul_(self.window)
        _add_frames(self.total[clips], frames.start, windows)

    def waveform(self, n_samples: int) -> Tensor:
        """What the frames add up to [B, S], each sample by the weight its windows give it."""
        kept = slice(self.n_fft // 2, self.n_fft // 2 + n_samples)
        weight = _overlap_weight(self.n_fft, self.hop, self.frames, self.total.device)
        return self.total.flatten(1)[:, kept] / weight[:, kept]


def _add_frames(total: Tensor, first: int, windows: Tensor) -> None:
    """Add windows [b, t, n_fft] to `total` [b, hops, hop] from its hop `first` on."""
    count, hops, hop = windows.shape[1], -(-windows.shape[2] // total.shape[2]), total.shape[2]
    if rest := hops * hop - windows.shape[2]:
        windows = F.pad(windows, (0, rest))
    parts = windows.unflatten(2, (hops, hop))
    for i in range(hops):
        total[:, first + i : first + i + count] += parts[:, :, i]


# Clips are of one length, mostly: every sound of every clip asks for the same.
@lru_cache(maxsize=2)
def _overlap_weight(n_fft: int, hop: int, frames: int, device: torch.device) -> Tensor:
    """The windows' squares, added up as the frames are [1, samples]."""
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        weight = torch.zeros(1, frames - 1 - (-n_fft // hop), hop, device=device)
        _add_frames(weight, 0, _window(n_fft, device).square().expand(1, frames, n_fft))
        return weight.flatten(1).clamp_min_(1e-11)


@lru_cache(maxsize=8)
def mel_filters(settings: SpectrogramSettings, device: torch.device | None = None) -> Tensor:
    """Triangles [F, M] over the mel scale of Slaney's Auditory Toolbox (1998), each of one area.

    The scale is linear up to 1 kHz, 15 mels in all, and logarithmic above, 27 mels for a factor of
    6.4. These are librosa's default filters to the last bit, without its import, which takes as
    long as torch's. torchaudio's are computed in single precision: some bands of the log-mel would
    be off by 3e-4 dB.
    """
    top = settings.sample_rate / 2
    step = math.log(6.4) / 27.0
    last = top * 3.0 / 200.0 if top < 1000.0 else 15.0 + math.log(top / 1000.0) / step
    mels = np.linspace(0.0, last, settings.n_mels + 2)
    edges = 200.0 / 3.0 * mels
    above = mels >= 15.0
    edges[above] = 1000.0 * np.exp(step * (mels[above] - 15.0))
    bins = np.fft.rfftfreq(settings.n_fft, 1.0 / settings.sample_rate)[:, None]
    widths = np.diff(edges)
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    # Where a triangle falls between two bins its band is silent. So it was when published.
    filters = (triangles * (2.0 / (edges[2:] - edges[:-2]))).astype(np.float32)
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        return torch.from_numpy(filters).to(device)


@lru_cache(maxsize=8)
def _filters_apart(settings: SpectrogramSettings) -> tuple[tuple[slice, Tensor], ...]:
    """The filters, sixteen bands at a time, and the bins that these are made of."""
    apart = []
    with torch.inference_mode(False):
        for some in mel_filters(settings).split(16, dim=1):
            used = some.any(dim=1).nonzero()[:, 0].tolist() or [0]
            bins = slice(used[0], used[-1] + 1)
            apart.append((bins, some[bins].contiguous()))
    return tuple(apart)


def mel_bands(magnitudes: Tensor, settings: SpectrogramSettings) -> Tensor:
    """Magnitudes summed under each filter, frames first.

    Parameters
    ----------
    magnitudes : Tensor [B, F, T]

    Returns
    -------
    Tensor [B, T, M]
    """
    frames = magnitudes.transpose(1, 2)
    if frames.device.type != "cpu":
        return frames @ mel_filters(settings, frames.device)
    # Most of the filters' matrix is zero: a quarter of its time without most of the zeros.
    apart = [frames[:, :, bins] @ some for bins, some in _filters_apart(settings)]
    return torch.cat(apart, dim=2)


def power_to_db(power: Tensor) -> Tensor:
    """10 log10(max(power, 1e-10)), at most 80 dB below each clip's own maximum.

    Parameters
    ----------
    power : Tensor [B, ...]
        Non-negative.
    """
    db = 10.0 * power.clamp_min(1e-10).log10()
    floor = db.flatten(1).amax(dim=1) - 80.0
    return torch.maximum(db, floor.view(-1, *[1] * (db.ndim - 1)))


def log_mel(spectrum: Tensor, settings: SpectrogramSettings) -> Tensor:
    """The classifier's input: log-mel of |X|, frames first.

    Parameters
    ----------
    spectrum : Tensor [B, F, T]
        Complex, or its magnitude.

    Returns
    -------
    Tensor [B, 1, T, M], dB
    """
    size = magnitude(spectrum) if spectrum.is_complex() else spectrum
    return power_to_db(mel_bands(size, settings)).unsqueeze(1)

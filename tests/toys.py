"""A classifier that listens for tones, and an explainer whose answers are known on paper.

The spectrum of `SETTINGS` has 33 bins: eleven bands of three. The tone of band k has the centre
bin's frequency, so that a Hann window puts all of it into the three bins of its band, wherever
the window does not reach over an end of the clip.

- The classifier's logit of class c is the mean over time of the log magnitude in band c.
- The dictionary has one component per band, its column the same in the band's three bins, zero
  elsewhere. Columns do not overlap, so that a mask is exactly 0 or 1.
- The interpreter's activations are W'S, pooled by the mean over time; its head is what a test
  makes it. Where two tones of equal level sound and theta_c = (1, -0.5), the relevances are
  (1, -0.5), on paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from l2i.dsp.spectrogram import SpectrogramSettings, log_magnitude, peak_normalise, stft
from l2i.explanation import Explainer, Subject
from l2i.types import Features, Interpretation, Task

SETTINGS = SpectrogramSettings(sample_rate=6400, n_fft=64, hop_length=16, n_mels=128)
BANDS = 11
SAMPLES = 1600
# Samples that no window over an end of the clip reaches.
INTERIOR = slice(SETTINGS.n_fft, SAMPLES - SETTINGS.n_fft)


def tone(band: int, level: float = 1.0, samples: int = SAMPLES) -> Tensor:
    """The tone [S] of a band, at its centre bin's frequency."""
    frequency = (3 * band + 1) * SETTINGS.sample_rate / SETTINGS.n_fft
    t = torch.arange(samples, dtype=torch.float64) / SETTINGS.sample_rate
    return (level * torch.sin(2 * math.pi * frequency * t)).float()


def band_dictionary() -> Tensor:
    """W [33, 11], one unit column per band."""
    return torch.eye(BANDS).repeat_interleave(3, dim=0) / math.sqrt(3)


class ToneClassifier:
    """Hears which bands sound; has what an `Explainer` asks of a `FrozenClassifier`."""

    settings = SETTINGS
    domain = SETTINGS.domain
    sample_rate = SETTINGS.sample_rate
    differentiable = True
    task = Task.SINGLE_LABEL
    device = torch.device("cpu")
    dtype = torch.float32
    classes = tuple(f"tone-{band}" for band in range(BANDS))

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrogram [B, F, T] of peak-normalised waveforms [B, S]."""
        return stft(peak_normalise(waveform), self.settings)

    def features(self, waveform: Tensor, layers: Sequence[str] = ()) -> Features:
        """Features of waveforms."""
        return self.features_of(self.spectrum(waveform), layers)

    def features_of(self, spectrum: Tensor, maps: Sequence[str] = ()) -> Features:
        """Logits, and the log magnitudes as the only hidden map."""
        size = log_magnitude(spectrum)
        logits = size.unflatten(1, (BANDS, 3)).sum(dim=2).mean(dim=2)
        return Features(logits, (size.unsqueeze(1),) if maps else ())

    def logits(self, waveform: Tensor) -> Tensor:
        """Logits [B, C] of waveforms [B, S]."""
        return self.features(waveform).logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.softmax(1)

    def decisions(self, logits: Tensor) -> Tensor:
        """The loudest band alone."""
        return nn.functional.one_hot(logits.argmax(1), BANDS).bool()


class BandInterpreter(nn.Module):
    """W'S as activations, their mean over time as z, a given head."""

    maps = ("spectrogram",)
    skip_silence = False

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = theta
        self.w = band_dictionary()

    def forward(
        self, maps: tuple[Tensor, ...], frames: int, audible: Tensor | None = None
    ) -> Interpretation:
        """Exact activations."""
        activations = torch.matmul(self.w.T, maps[0].squeeze(1))
        assert activations.shape[2] == frames
        pooled = activations.mean(dim=2)
        return Interpretation(activations, pooled, pooled @ self.theta.T)


def tone_explainer(theta: Tensor | None = None) -> Explainer:
    """An explainer whose head is `theta` [C, K]; by default class c is band c, minus half of
    each other band."""
    if theta is None:
        theta = 1.5 * torch.eye(BANDS) - 0.5
    interpreter = BandInterpreter(theta)
    return Explainer(ToneClassifier(), band_dictionary(), interpreter, SETTINGS.domain)  # type: ignore[arg-type]


def tone_subject(theta: Tensor | None = None) -> Subject:
    """The same, for whoever chooses a method."""
    e = tone_explainer(theta)
    return Subject(e.classifier, e.domain, {"dictionary": e.w, "interpreter": e.interpreter})

"""Bins of a spectrogram on the mel scale, where grids of frequency are even."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=8)
def mel_places(n_bins: int, sample_rate: float) -> Tensor:
    """Where each bin lies on the mel scale (O'Shaughnessy 1987).

    Parameters
    ----------
    n_bins : int
        F, from 0 Hz to the Nyquist frequency.
    sample_rate : float
        Hz.

    Returns
    -------
    Tensor [F]
        From 0 to 1, float32, on the CPU.

    Examples
    --------
    >>> mel_places(3, 8000)
    tensor([0.0000, 0.7089, 1.0000])
    """
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        mel = torch.log1p(torch.linspace(0, sample_rate / 2, n_bins, dtype=torch.float64) / 700)
        return (mel / mel[-1]).float()


def interpolation(places: Tensor, count: int) -> Tensor:
    """Weights [N, count] by which what is known at 0, 1, ... is interpolated at some places [N].

    >>> interpolation(torch.tensor([0.0, 1.25]), 3)
    tensor([[1.0000, 0.0000, 0.0000],
            [0.0000, 0.7500, 0.2500]])
    """
    return (1 - (places[:, None] - torch.arange(count, device=places.device)).abs()).clamp_min(0)

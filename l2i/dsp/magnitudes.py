"""Magnitudes of spectrograms: what can be heard of them, and what a mask leaves."""

from __future__ import annotations

import torch
from torch import Tensor

# What is quieter than this below a clip's loudest bin counts as silence.
_AUDIBLE_DB = 80


def magnitude(spectrum: Tensor) -> Tensor:
    """|X|, of the same shape, real.

    Squares that are too small for a float are none: below 1e-19 the magnitude is zero.
    """
    # A root has no derivative at zero; an absolute value's is taken to be zero there.
    if not spectrum.is_complex() or spectrum.requires_grad:
        return spectrum.abs()
    squares = torch.view_as_real(spectrum).square()
    # A third of `abs`'s time, which guards against squares too large: a spectrum is of sound.
    return (squares[..., 0] + squares[..., 1]).sqrt_()


def log_magnitude(spectrum: Tensor) -> Tensor:
    """S = log(1 + |X|): what the dictionary explains. Zero where the input is silent."""
    return magnitude(spectrum).log1p_()


def audible_frames(spectrum: Tensor) -> Tensor:
    """Frames in which there is something to hear.

    Sixteen bits reach 96 dB: what is so far down is rounding, what a lossy format left in a pause,
    or the zeros that fill up a clip that was too short.

    Parameters
    ----------
    spectrum : Tensor [B, F, T]
        Complex, or its magnitude.

    Returns
    -------
    Tensor [B, T], bool
        Whether a frame's loudest bin is less than 80 dB below the clip's; in a
        silent clip no frame is.

    Examples
    --------
    >>> size = torch.tensor([[[1.0, 0.5, 0.0, 5e-5], [0.2, 0.0, 0.0, 1e-6]]])
    >>> audible_frames(size)
    tensor([[ True,  True, False, False]])
    """
    loudest = magnitude(spectrum).amax(dim=1)
    return loudest > 10 ** (-_AUDIBLE_DB / 20) * loudest.amax(dim=1, keepdim=True)


def linear_gain(mask: Tensor, size: Tensor, *, linear: bool) -> Tensor:
    """What a mask multiplies ``|X|`` by.

    A mask M of log magnitudes turns A = ``|X|`` into expm1(M log(1 + A)): a gain of that over A,
    which for a loud bin is far below M.

    Parameters
    ----------
    mask : Tensor [B, F, T]
        In [0, 1].
    size : Tensor [B, F, T]
        ``|X|``.
    linear : bool
        Whether the mask is such a gain already.

    Returns
    -------
    Tensor [B, F, T]
        In [0, 1]; of a mask of log magnitudes 0 where there is no sound.

    Examples
    --------
    With A = 3, log2(1 + A) = 2, so that half of it is log2(1 + 1):

    >>> half = torch.full((1, 1, 1), 0.5)
    >>> round(linear_gain(half, torch.full((1, 1, 1), 3.0), linear=False).item(), 6)
    0.333333
    """
    if linear:
        return mask
    kept = (mask * size.log1p()).expm1()
    return torch.where(size > 0, kept / size.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)


def kept_energy(gain: Tensor, size: Tensor) -> Tensor:
    """Share of a clip's energy that its explanation has: ``sum |M X|^2 / sum |X|^2``.

    Parameters
    ----------
    gain : Tensor [B, F, T]
        M, a linear gain.
    size : Tensor [B, F, T]
        ``|X|``.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN for silence.

    Examples
    --------
    >>> size = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    >>> kept_energy(torch.tensor([[[1.0, 0.5]], [[1.0, 1.0]]]), size).tolist()
    [0.4, nan]
    """
    whole = size.double().square().sum(dim=(1, 2))
    part = (gain * size).double().square().sum(dim=(1, 2))
    return torch.where(whole > 0, part / whole, torch.nan)

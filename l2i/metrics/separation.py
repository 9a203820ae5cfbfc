"""An explanation against the truth: where the parts of a mixture are known, how much of the
right part it has, and how much of the other.

For a mixture x = s + n of the part s that carries the class and all the rest n. A mask acts on
the spectrogram as a real gain per bin, whose product with X = S + N is the sum of its products
with S and with N: the explanation is exactly the sum of what it keeps of each part. So shares of
energy are counted and not estimated.

Source of SI-SDR: Le Roux, Wisdom, Erdogan, Hershey, *SDR - half-baked or well done?*, ICASSP
2019, arXiv 1811.02508. What it calls distortion is told apart as the other part (SIR) and what a
mask does to the right part itself (SAR), after Vincent, Gribonval, Févotte 2006 (BSS Eval), whose
decomposition is by projection, since the parts of an estimate are not known there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio.

    With a = <e, s> / |s|^2::

        10 log10( |a s|^2 / |a s - e|^2 )

    Neither is freed of its mean, as in the source. Rounding bounds it: beyond some 140 dB in
    single precision two waveforms are equal.

    Parameters
    ----------
    estimate, reference : Tensor [B, S]

    Returns
    -------
    Tensor [B], float64, dB
        Minus infinity where the estimate has nothing of the reference (or is silent); infinity
        where it is the reference; NaN where the reference is silent.

    Examples
    --------
    >>> s = torch.tensor([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    >>> e = torch.tensor([[3.0, 3.0, 0.0], [0.6, 0.06, 0.0]])
    >>> si_sdr(e, s).round().tolist()
    [0.0, 20.0]
    """
    target = _scaled(estimate, reference)
    return _ratio_db(target, target - estimate.double(), reference)


def energy_share(right: Tensor, other: Tensor) -> Tensor:
    """Share of an explanation's energy that comes from the part that carries the class.

    Parameters
    ----------
    right, other : Tensor [B, S]
        What the explanation keeps of each part.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN for a silent explanation.

    Examples
    --------
    >>> energy_share(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).tolist()
    [0.9]
    """
    a, b = (x.double().square().sum(dim=1) for x in (right, other))
    return torch.where(a + b > 0, a / (a + b), torch.nan)


def level_db(kept: Tensor, part: Tensor) -> Tensor:
    """Level of what is kept of a part, relative to the part: 0 dB is all of it.

    Parameters
    ----------
    kept, part : Tensor [B, S]

    Returns
    -------
    Tensor [B], float64, dB
        Minus infinity where nothing is kept; NaN where the part is silent.

    Examples
    --------
    >>> level_db(torch.tensor([[0.1, 0.0]]), torch.tensor([[1.0, 0.0]])).round().tolist()
    [-20.0]
    """
    a, b = (x.double().square().sum(dim=1) for x in (kept, part))
    return torch.where(
        b > 0, 10 * (a / b.clamp_min(torch.finfo(torch.float64).tiny)).log10(), torch.nan
    )


def _scaled(kept: Tensor, part: Tensor) -> Tensor:
    """a s [B, S], with a = <e, s> / |s|^2, of what is kept e of a part s; float64."""
    e, s = kept.double(), part.double()
    power = s.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (e * s).sum(dim=1, keepdim=True) / power * s


def _ratio_db(signal: Tensor, noise: Tensor, part: Tensor) -> Tensor:
    a, b = (x.square().sum(dim=1) for x in (signal, noise))
    # A silent estimate is 0/0; it has nothing of the part.
    ratio = torch.where(a > 0, a / b, 0.0)
    return torch.where(part.double().square().sum(dim=1) > 0, 10 * ratio.log10(), torch.nan)


def sir(of_right: Tensor, of_other: Tensor, right: Tensor) -> Tensor:
    """Signal to interference: the right part in an explanation over what it keeps of the other.

    ``10 log10( |a s|^2 / |M N|^2 )``, with a s the right part s as loud as it is in M S.

    Parameters
    ----------
    of_right, of_other : Tensor [B, S]
        What the explanation keeps of each part.
    right : Tensor [B, S]
        The part that carries the class.

    Returns
    -------
    Tensor [B], float64, dB
        Infinity where nothing is kept of the other; NaN where the right part is silent.

    Examples
    --------
    >>> right = torch.tensor([[1.0, 0.0]])
    >>> sir(0.5 * right, torch.tensor([[0.0, 0.05]]), right).round().tolist()
    [20.0]
    """
    return _ratio_db(_scaled(of_right, right), of_other.double(), right)


def sar(of_right: Tensor, right: Tensor) -> Tensor:
    """Signal to artefacts: the right part in an explanation over what the mask did to it.

    ``10 log10( |a s|^2 / |M S - a s|^2 )``: holes, and musical noise.

    Parameters
    ----------
    of_right, right : Tensor [B, S]
        As for `sir`.

    Returns
    -------
    Tensor [B], float64, dB
        Infinity where the part is only softer or louder; NaN where it is silent.

    Examples
    --------
    Half of a part is missing: what there is lies at 45 degrees to it.

    >>> sar(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])).abs().round(decimals=6).tolist()
    [0.0]
    """
    target = _scaled(of_right, right)
    return _ratio_db(target, of_right.double() - target, right)

"""Levels in dB, and noise at an SNR in dB.

Levels are root mean squares over the whole clip: ``10 log10(mean x^2)``. Silence has no level,
so no gain can bring it to one: it is left as it is.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Colour = Literal["white", "pink", "brown"]

# Power falls as 1 / f^exponent.
_EXPONENT = {"white": 0.0, "pink": 1.0, "brown": 2.0}


def db_to_gain(db: float) -> float:
    """Factor on the amplitude.

    >>> db_to_gain(20.0)
    10.0
    """
    return float(10.0 ** (db / 20.0))


def rms(x: NDArray[Any]) -> float:
    """Root mean square of a clip ``[S]``; 0 for an empty one.

    >>> rms(np.array([3.0, -3.0]))
    3.0
    """
    if x.size == 0:
        return 0.0
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def coloured_noise(n_samples: int, colour: Colour, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise of unit root mean square whose power falls as 1, 1/f or 1/f².

    Shaped in the frequency domain, so it has no warm-up; its mean is zero except for white
    noise, whose zero frequency is drawn like any other.

    Returns
    -------
    float32 [S]
    """
    if colour not in _EXPONENT:
        raise ValueError(f"colour {colour!r} is none of {', '.join(_EXPONENT)}")
    white = rng.standard_normal(n_samples)
    if colour != "white" and n_samples > 1:
        spectrum = np.fft.rfft(white)
        index = np.arange(spectrum.size, dtype=np.float64)
        index[0] = np.inf  # No constant part: 1/f has no value there.
        white = np.fft.irfft(spectrum * index ** (-_EXPONENT[colour] / 2), n=n_samples)
    level = rms(white)
    return (white / level if level > 0 else white).astype(np.float32)


def add_noise(
    x: NDArray[Any], snr_db: float, colour: Colour = "white", rng: np.random.Generator | None = None
) -> NDArray[np.float32]:
    """Add noise at a signal-to-noise ratio.

    Parameters
    ----------
    x : float [S]
    snr_db : float
        Level of `x` over that of the noise; 0 means as loud as the clip, the published setting.
    colour : {'white', 'pink', 'brown'}
    rng : numpy Generator, optional
        Unset: seeded with 0, so that the result is always the same.

    Returns
    -------
    float32 [S]
        `x` itself where it is silent: there is no level to refer to.
    """
    x = np.asarray(x, dtype=np.float32)
    if rms(x) == 0:
        return x.copy()
    noise = coloured_noise(x.shape[-1], colour, rng or np.random.default_rng(0))
    gain = rms(x) / (rms(noise) or 1.0) * db_to_gain(-snr_db)
    return (np.asarray(x, np.float64) + gain * np.asarray(noise, np.float64)).astype(np.float32)

"""Two clips at a ratio in dB, noise at an SNR in dB.

Levels are root mean squares over the whole clip: ``10 log10(mean x^2)``. Silence has no level,
so no gain can bring it to one: it is left as it is.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Colour", "add_noise", "coloured_noise", "db_to_gain", "mix", "rms"]

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


def mix(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    gain_db: float | None = None,
    ratio_db: float | None = None,
) -> NDArray[np.float32]:
    """Add a second clip to a first one.

    Parameters
    ----------
    x, y : float [S]
        Equally long.
    gain_db : float, optional
        ``x + g y``: `y` is added as it is, times this gain. 0 where neither is given.
    ratio_db : float, optional
        `y` is scaled so that `x` is this many dB louder than it (by root mean square). A silent
        clip on either side leaves `y` as it is.

    Returns
    -------
    float32 [S]
        Not normalised: it may go beyond ±1.

    Raises
    ------
    ValueError
        Both `gain_db` and `ratio_db` are given, or the lengths differ.

    Examples
    --------
    >>> mix(np.array([8.0, 8.0]), np.array([2.0, -2.0]), ratio_db=20.0 * np.log10(4)).tolist()
    [10.0, 6.0]
    """
    if gain_db is not None and ratio_db is not None:
        raise ValueError("give gain_db or ratio_db, not both")
    if x.shape != y.shape:
        raise ValueError(f"clips of shapes {x.shape} and {y.shape} cannot be added")
    gain = 1.0
    if ratio_db is not None:
        level_x, level_y = rms(x), rms(y)
        if level_x > 0 and level_y > 0:
            gain = level_x / level_y * db_to_gain(-ratio_db)
    elif gain_db is not None:
        gain = db_to_gain(gain_db)
    return (np.asarray(x, np.float64) + gain * np.asarray(y, np.float64)).astype(np.float32)


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
    x: NDArray[Any],
    snr_db: float,
    colour: Colour = "white",
    rng: np.random.Generator | None = None,
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
    return mix(x, noise, ratio_db=snr_db)

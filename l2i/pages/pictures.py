"""Spectrograms and masks as small pictures: up to 600 frames by 160 bands, 8 bits a pixel.

Frequency is on the mel scale, as the classifier hears it; on a linear one, most sounds fill the
lowest eighth. Where there are more frames than columns, a column is the mean of its frames.
"""

from __future__ import annotations

import io
from base64 import b64decode
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLUMNS, _ROWS = 600, 160
_RANGE_DB = 80.0
_LEVELS = 64
# matplotlib's magma (public domain) at so many levels, red, green and blue: what explains sounds in
# Python needs no matplotlib for it.
_MAGMA = (
    "AAADAQEJAwMRBgUZCgciDgoqEg0zFw88HBBGIhFQKBFZLxBiNQ9qPA9xQw91ShB5"
    "UhJ8WBV+Xhd/ZRqAaxyAcR+BdyGBfiSBhCaBiiiBkSqAlyx/ni5+pDB9qzN8sTV6"
    "uTd4wDp1xjxzzT9w00Jt2UZq3kpn5E5k6FRh7Vlf8GBd82db9m5b+HVc+X1d+4Rg"
    "/I5j/ZVn/Z1r/aRw/qx1/rN7/ruA/sKG/smN/dGT/dia/d+h/Oao/O6w/PW3+/y/"
)
# Cyan is on no colour of magma's way from black over purple and orange to pale yellow.
_MASK_COLOUR = (0, 229, 255)


def _mel(hz: NDArray[np.floating] | float) -> NDArray[np.float64]:
    return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


@lru_cache(maxsize=4)
def _bands(n_bins: int, nyquist: float) -> Any:
    """Weights [rows, F], the highest band first: between bins interpolated, over bins averaged.

    Sparse, since most are zero; and numpy would multiply with threads of its own, which are in the
    way of those that make other pictures.
    """
    from scipy.sparse import csr_array

    centre = 700.0 * (10.0 ** (np.linspace(0.0, _mel(nyquist), _ROWS) / 2595.0) - 1.0)
    bins = centre / nyquist * (n_bins - 1)
    width = np.maximum(1.0, np.gradient(bins))
    weight = np.maximum(0.0, 1.0 - np.abs(np.arange(n_bins) - bins[:, None]) / width[:, None])
    weight /= weight.sum(axis=1, keepdims=True)
    return csr_array(weight[::-1].astype(np.float32))


def _shrink(x: NDArray[np.floating], nyquist: float) -> NDArray[np.float32]:
    """[F, T] to [rows, columns], means."""
    y: NDArray[np.float32] = _bands(x.shape[0], nyquist) @ x.astype(np.float32, copy=False)
    if y.shape[1] <= _COLUMNS:
        return y
    starts = np.linspace(0, y.shape[1], _COLUMNS + 1).astype(int)
    return np.asarray(np.add.reduceat(y, starts[:-1], axis=1) / np.diff(starts), np.float32)


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: bytes = b"") -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels, mode="P")
    image.putpalette(palette.tobytes())
    encoded = io.BytesIO()
    # A fiftieth longer than at the default level, in half the time.
    image.save(encoded, "PNG", compress_level=3, **({"transparency": alpha} if alpha else {}))
    return encoded.getvalue()


def spectrogram_picture(
    magnitude: NDArray[np.floating], sample_rate: int, reference: float
) -> bytes:
    """A PNG of a spectrogram, from `reference` down to 80 dB below it.

    Parameters
    ----------
    magnitude : [F, T]
        |X|.
    sample_rate : int
        Hz.
    reference : float
        The magnitude shown brightest; pictures of one reference can be compared.
    """
    power = _shrink(np.square(magnitude, dtype=np.float32), sample_rate / 2)
    # Silence has no level to refer to, and is black.
    db = 10.0 * np.log10(np.maximum(power, 1e-20) / (reference or 1.0) ** 2)
    level = np.clip(1.0 + db / _RANGE_DB, 0.0, 1.0) * (_LEVELS - 1)
    return _png(level.round().astype(np.uint8), np.frombuffer(b64decode(_MAGMA), np.uint8))


def mask_picture(
    mask: NDArray[np.floating], sample_rate: int, magnitude: NDArray[np.floating], reference: float
) -> bytes:
    """A PNG to lie over a spectrogram's, half transparent, or to be seen alone: the more opaque,
    the more is kept.

    Where the spectrogram's own picture is black it is transparent, whatever the mask: of nothing
    nothing is kept, and a mask of silence would be all that one sees.

    Parameters
    ----------
    mask : [F, T]
        In [0, 1].
    sample_rate : int
        Hz.
    magnitude, reference
        As for the spectrogram's picture.
    """
    there = magnitude > reference * 10 ** (-_RANGE_DB / 20)
    kept = _shrink(mask * there, sample_rate / 2)
    level = (kept.clip(0, 1) * (_LEVELS - 1)).round().astype(np.uint8)
    alpha = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    return _png(level, np.tile(np.array(_MASK_COLOUR, np.uint8), (_LEVELS, 1)), alpha.tobytes())


def spectrum_line(spectrum: NDArray[np.floating], sample_rate: int) -> list[int]:
    """A component's spectrum [F] as a small picture has it: 40 bands on the mel scale, the lowest
    first, in percent of the greatest.

    >>> spectrum_line(np.eye(513)[0], 16000)[:3]
    [100, 0, 0]
    """
    bands = _bands(len(spectrum), sample_rate / 2) @ spectrum.astype(np.float32, copy=False)
    line = bands[::-1].reshape(40, -1).max(axis=1)
    most = float(line.max())
    return [round(100 * float(v) / most) for v in line] if most > 0 else [0] * len(line)


def frequency_ticks(sample_rate: int) -> list[tuple[str, float]]:
    """Labels of the pictures' frequency axis, and where they are: 0 is the top, 1 the bottom.

    >>> frequency_ticks(8000)[-1][0]
    '2 kHz'
    """
    top = float(_mel(sample_rate / 2))
    ticks = []
    for hz in (250, 500, 1000, 2000, 4000, 8000, 16000):
        place = 1.0 - float(_mel(hz)) / top
        if place > 0.02:
            ticks.append((f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz", round(place, 4)))
    return ticks

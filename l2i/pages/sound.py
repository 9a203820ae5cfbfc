"""The sounds of a page, and how small they must be.

Sounds are FLAC: what one hears is what was computed, its artefacts those of the explanation and
not of a codec; it begins at its first sample, so that sounds and playhead agree; it takes any
sample rate; and Chromium, Firefox and Safari decode it. (Ogg, Safari reads only of late.) Where a
page would be larger than MLflow shows, sounds are rounded to twelve bits first: FLAC then needs
half as many bytes, and what is lost is 70 dB below full scale. Where that is not enough the
page has MP3, which all of them play too, of a bit rate that fits; it takes ten times as long to
make. MP3 knows few sample rates: others are resampled to the next one above. Its bit rate has a
floor: the encoder's delay stands in its first frame, and where frames are too short to hold that,
players begin up to a seventh of a second late.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.audio import encoded, resample

# Bits that are kept of every sound, and, so that quiet ones are not coarse, up to its own peak.
_BITS, _BITS_TO_PEAK = 12, 10

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# For sample rates up to each: bit rates from good to the floor, and what libsndfile offers.
_KBPS = ((12000, (32,), (8, 64)), (24000, (64,), (8, 160)), (48000, (128, 96, 64), (32, 320)))


def flac(x: NDArray[np.float32], sample_rate: int) -> bytes:
    """A waveform [S] in [-1, 1] as 16-bit FLAC."""
    return encoded(x, sample_rate, format="FLAC", subtype="PCM_16")


def loudness(x: NDArray[np.float32]) -> tuple[float, float]:
    """Root mean square and peak of a waveform [S], 1 being full scale.

    >>> loudness(np.array([0.5, -0.25, 0.5, -0.25], np.float32))
    (0.3953, 0.5)
    """
    if not len(x):
        return 0.0, 0.0
    rms = float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
    return float(f"{rms:.4g}"), float(f"{np.abs(x).max():.4g}")


def rounded(lossless: bytes) -> bytes:
    """A FLAC file of twelve bits; quieter sounds have more, up to ten of their own.

    >>> x = np.array([0.5, 0.25 + 2**-15, -0.25], np.float32)
    >>> import soundfile
    >>> soundfile.read(io.BytesIO(rounded(flac(x, 8000))))[0].tolist()
    [0.5, 0.25, -0.25]
    """
    import soundfile

    x, sample_rate = soundfile.read(io.BytesIO(lossless), dtype="int16")
    peak = min(2**15 - 1, int(np.abs(x.astype(np.int32)).max(initial=0)))
    # A power of two: FLAC stores no zeros that all samples end with.
    step = 2 ** max(0, min(16 - _BITS, peak.bit_length() + 1 - _BITS_TO_PEAK))
    if step == 1:
        return lossless
    y = (x.astype(np.int32) + step // 2) // step * step
    return flac(y.clip(-(2**15), 2**15 - step).astype(np.float32) / 2**15, sample_rate)


def _mp3_rate(sample_rate: int) -> int:
    return next((rate for rate in _MP3_RATES if rate >= sample_rate), _MP3_RATES[-1])


def mp3_kbps(sample_rate: int, level: int) -> int:
    """Bit rate of MP3, kbit/s, of level 0, which is good, to 2, the smallest.

    >>> mp3_kbps(44100, 0), mp3_kbps(44100, 2), mp3_kbps(6400, 2)
    (128, 64, 32)
    """
    rate = _mp3_rate(sample_rate)
    offered = next(offered for highest, offered, _ in _KBPS if rate <= highest)
    return offered[min(level, len(offered) - 1)]


def mp3_bytes(sample_rate: int, seconds: float, level: int) -> int:
    """An upper bound of the length of such an MP3: its bit rate is constant."""
    return int(mp3_kbps(sample_rate, level) * 125 * (seconds + 0.5)) + 2048


def mp3(lossless: bytes, level: int) -> bytes:
    """A FLAC file as MP3, of a constant bit rate; for `level` see `mp3_kbps`."""
    import soundfile

    x, sample_rate = soundfile.read(io.BytesIO(lossless), dtype="float32")
    rate = _mp3_rate(sample_rate)
    low, high = next(span for highest, _, span in _KBPS if rate <= highest)
    return encoded(
        resample(x, sample_rate, rate).clip(-1, 1),
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        # libsndfile's measure of it: 0 the highest bit rate, 1 the lowest.
        compression_level=(high - mp3_kbps(sample_rate, level)) / (high - low),
    )

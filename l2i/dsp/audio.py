"""Sound files to waveforms and back.

A waveform is float32 ``[S]``, mono, full scale at ±1. The way in, in this order: decode, refuse
what is no sound (no samples, NaN), mean of the channels, resample, cut or pad at the end.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.errors import DataError
from l2i.storage import atomic_write_bytes

# Channels cancel each other where their mean is at most so much of them; 16 bits round both.
_CANCELLED = 1e-3
_log = logging.getLogger("l2i")  # The command line shows it.

# What we look for in a folder; reading goes by content, and takes all that soundfile decodes.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".wave", ".bwf", ".voc", ".sph", ".nist"),
    *(".avr", ".ircam", ".paf", ".pvf", ".8svx", ".iff", ".sds", ".wve"),
)

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}

# Ratios beyond this come from a damaged header, and would ask for gigabytes.
_RATES = (1000, 768_000)
# Frames: beyond it, a length stands for one that is not known.
_UNKNOWN = 1 << 62
# Samples read at once.
_BLOCK = 1 << 19
_NOTHING = np.zeros(0, np.float32)


def resample(x: NDArray[np.float32], rate_in: float, rate_out: float) -> NDArray[np.float32]:
    """Change the sample rate, with soxr at its quality HQ.

    Parameters
    ----------
    x : float32 [S]
    rate_in, rate_out : float
        Hz.

    Returns
    -------
    float32 [ceil(S * rate_out / rate_in)], or one less: soxr rounds.
    """
    if rate_in == rate_out or x.size == 0:
        return x
    import soxr

    return np.asarray(soxr.resample(x, rate_in, rate_out, quality="HQ"), dtype=np.float32)


def fit_length(x: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    """Cut the end off, or pad zeros there: always exactly `n_samples`.

    >>> fit_length(np.ones(2, np.float32), 3).tolist()
    [1.0, 1.0, 0.0]
    """
    if x.shape[0] >= n_samples:
        return x[:n_samples]
    fitted = np.zeros(n_samples, dtype=np.float32)
    fitted[: x.shape[0]] = x
    return fitted


def read_audio(
    path: str | Path, sample_rate: int, n_samples: int | None = None
) -> NDArray[np.float32]:
    """Read any sound file soundfile decodes, at any sample rate, with any number of channels.

    Parameters
    ----------
    path : path
    sample_rate : int
        Hz, of the result.
    n_samples : int, optional
        Length of the result: longer clips are cut at their end, shorter ones padded there with
        zeros. Unset: as long as the file.

    Returns
    -------
    float32 [S]
        Contiguous. The mean of the channels; usually in [-1, 1], but neither a float file nor a
        resampled one is clipped.

    Raises
    ------
    DataError
        The file is missing, is no file but a pipe, cannot be decoded, has no samples, or has
        samples that are NaN or infinite.
    """
    x = _read(Path(path), sample_rate, 0, n_samples)
    return x if n_samples is None else np.ascontiguousarray(fit_length(x, n_samples))


def read_part(
    path: str | Path, sample_rate: int, *, start_s: float = 0.0, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Read a part of a sound file, and no more of it than that takes.

    Parameters
    ----------
    path : path
    sample_rate : int
        Hz, of the result.
    start_s, duration_s : float
        The part; it ends where the file does. By default all of the file.

    Returns
    -------
    float32 [S]
        As a part of what `read_audio` gives.

    Raises
    ------
    DataError
        As `read_audio`, of what was read; or the part begins after the file's end.
    """
    n_samples = None if duration_s is None else max(1, round(duration_s * sample_rate))
    return _read(Path(path), sample_rate, round(start_s * sample_rate), n_samples)


def _read(path: Path, sample_rate: int, first: int, n_samples: int | None) -> NDArray[np.float32]:
    """At most `n_samples` of a file from `first` on, both counted at `sample_rate`."""
    import soundfile

    try:
        # Asked of the system first: libsndfile says "System error" of all that may be wrong here.
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{path} is a pipe or a device, not a sound file.")
        with open(path, "rb") as raw:
            if raw.read(1) == b"":
                raise DataError(f"{path} is empty: it has no bytes.")
        # By its path, not through a Python file, which would need the interpreter's lock to read.
        with _reader()(path) as file:
            rate = file.samplerate
            if not _RATES[0] <= rate <= _RATES[1]:
                raise DataError(f"{path} claims a sample rate of {rate} Hz: it is damaged.")
            # Somewhat more than needed on both sides, so that the resampler's first and last
            # samples hear what is around them: a long recording costs no more than a short one.
            # It begins where both rates have a sample.
            step = rate // math.gcd(rate, sample_rate)
            begin = max(0, first * rate // sample_rate - rate // 4) // step * step
            count = None
            if n_samples is not None:
                count = math.ceil((first + n_samples) * rate / sample_rate) + rate // 4 - begin
            if file.frames < _UNKNOWN:
                at = file.seek(min(begin, file.frames)) if begin else 0
            else:
                at = sum(map(len, _blocks(file, begin)))
            file.loudest = 0.0  # Not of what was skipped.
            blocks = list(_blocks(file, count)) if at == begin else []
            loudest = file.loudest
    except FileNotFoundError:
        raise DataError(f"There is no sound file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a sound file.") from None
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a} has a name that is no UTF-8: rename it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (soundfile.LibsndfileError, TypeError, ValueError, MemoryError) as error:
        raise DataError(f"{path} cannot be decoded: {_reason(error)}") from error
    length = at + sum(map(len, blocks))
    if length == 0:
        raise DataError(f"{path} has no samples: its length is zero.")
    mono = blocks[0] if len(blocks) == 1 else np.concatenate([_NOTHING, *blocks])
    if not np.isfinite(mono).all():
        raise DataError(f"{path} has samples that are NaN or infinite.")
    if loudest and _peak(mono) < _CANCELLED * loudest:
        _log.warning("%s is silent as the mean of its channels, which cancel each other.", path)
    mono = resample(np.ascontiguousarray(mono), rate, sample_rate)
    mono = mono[first - begin * sample_rate // rate :]
    if mono.shape[0] == 0:
        if first == 0:
            raise DataError(f"{path} has no samples left at {sample_rate} Hz: it is too short.")
        raise DataError(
            f"{path} is {length / rate:.2f} s long; nothing begins at {first / sample_rate:g} s."
        )
    return np.ascontiguousarray(mono[:n_samples])


@functools.cache
def _reader() -> Any:
    import soundfile

    class Reader(soundfile.SoundFile):
        loudest = 0.0  # The greatest sample of several channels, whatever their mean is.

        # Else soundfile seeks after each read, which fails where a FLAC does not tell its length.
        def seekable(self) -> bool:
            return False

    return Reader


def _blocks(file: Any, frames: int | None) -> Iterator[NDArray[np.float32]]:
    """The mean of the channels of at most so many frames, from where the file stands."""
    left = _UNKNOWN if frames is None else frames
    block = max(1, _BLOCK // file.channels)
    while left > 0:
        x = file.read(min(left, block), dtype="float32", always_2d=True)
        if not len(x):
            return
        if x.shape[1] > 1:
            file.loudest = max(file.loudest, _peak(x))
        yield x[:, 0] if x.shape[1] == 1 else x.mean(axis=1, dtype=np.float32)
        left -= len(x)


def _peak(x: NDArray[np.float32]) -> float:
    return float(max(x.max(initial=0.0), -x.min(initial=0.0)))  # Without a copy, as np.abs is.


def _reason(error: BaseException) -> str:
    # libsndfile's sentence, without the name of the Python object it was reading from.
    text = str(getattr(error, "error_string", "") or error).strip()
    return text if text.endswith(".") else f"{text}."


def write_audio(
    path: str | Path, waveform: NDArray[Any], sample_rate: int, subtype: str | None = None
) -> None:
    """Write a mono sound file, whole or not at all.

    A waveform that goes beyond full scale is scaled down as a whole until its peak is 1: it
    neither wraps nor clips, and its shape stays; only its level is not kept. Give
    ``subtype="FLOAT"`` (wav only) to keep the samples as they are.

    Parameters
    ----------
    path : path
        The suffix chooses the format: ``.wav`` (16-bit PCM), ``.flac`` (16-bit), ``.ogg``
        (Vorbis), ``.mp3``.
    waveform : float [S]
    sample_rate : int
        Hz.
    subtype : str, optional
        One of libsndfile's, such as ``PCM_24`` or ``FLOAT``, in place of the default.

    Raises
    ------
    ValueError
        `waveform` is not one-dimensional, is empty, or holds NaN or infinity; the suffix is not
        known. These are bugs of the caller.
    StoreError
        The disk is full.
    """
    import soundfile

    path = Path(path)
    x = np.asarray(waveform)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"a waveform [S] with S > 0 is needed, not one of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"the waveform for {path.name} holds NaN or infinity")
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.suffix!r} is none of {', '.join(_FORMATS)}")
    x = x.astype(np.float32, copy=False)
    coding = subtype or kind[1]
    peak = float(np.abs(x).max())
    if peak > 1.0 and coding not in ("FLOAT", "DOUBLE"):
        x = x / np.float32(peak)
    try:
        data = encoded(x, sample_rate, format=kind[0], subtype=coding)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be written: {_reason(error)}") from error
    atomic_write_bytes(path, data)


def encoded(x: NDArray[Any], sample_rate: int, **kind: object) -> bytes:
    """A sound file of a waveform [S]; `kind` is soundfile's: ``format``, ``subtype``, and more."""
    import soundfile

    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", sample_rate, 1, **kind) as file:
        # In blocks: handed minutes at once, the Vorbis encoder overflows its stack.
        for start in range(0, len(x), 1 << 16):
            file.write(x[start : start + (1 << 16)])
    return data.getvalue()

"""What somebody should know of a data set before training on it: who is where, and what is odd.

`class_table` counts clips by class and side of the split. `odd_names` finds class names that look
like one another, `shared_groups` recordings on both sides, and `twins` clips of different sides
that sound alike, whatever their file format or level.

Two clips may be one sound where what *changes* in them is alike: log energies in bands over time,
less the mean of each band. Steady noise of one colour has one spectrum in all its recordings, but
never twice the same fluctuations. Two short barks may well change alike: those pairs are then
compared sample by sample, at the lag that suits them best.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from l2i.types import Clip, Split

__all__ = ["Heard", "class_table", "listen", "odd_names", "shared_groups", "sides_of", "twins"]

_BANDS, _FRAMES = 16, 128
# Encoders put some milliseconds of silence before a sound: windows are longer than their steps, so
# that half a step changes little.
_LAGS, _STEPS = range(-2, 3), 4
_ALIKE, _SAME = 0.6, 0.7
# Pairs whose samples are compared.
_LISTENED = 200
_AT_ONCE = 512
# Beyond it, clips are compared by their samples alone.
_MOST = 5000


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What is kept of a clip that was listened to.

    Attributes
    ----------
    seconds : float
        Length of the whole file.
    silent : bool
        What is used of it.
    changes : float32 [bands, frames]
        Its fluctuations, of unit norm; zero where nothing changes.
    """

    seconds: float
    silent: bool
    changes: NDArray[np.float32] = field(repr=False)


def listen(x: NDArray[np.float32], sample_rate: int, n_samples: int) -> Heard:
    """What samples [S] are like; the first `n_samples` are used."""
    used = x[:n_samples]
    return Heard(len(x) / sample_rate, not used.any(), _fluctuations(used, n_samples))


def _fluctuations(x: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    size = max(2 * _BANDS, n_samples // _FRAMES)
    if len(x) < (_STEPS + 1) * size:
        return np.zeros((_BANDS, _FRAMES), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, _STEPS * size)[::size]
    power = np.abs(np.fft.rfft(windows * np.hanning(_STEPS * size))) ** 2
    # Bands grow with frequency, as hearing has it; each has a bin at least.
    ends = np.geomspace(1, power.shape[1], _BANDS + 1).round().astype(int)
    ends = np.maximum(ends, np.arange(1, _BANDS + 2))
    bands = np.add.reduceat(power[:, : ends[-1]], ends[:-1], axis=1).T
    total = bands.sum()
    logs = np.log(bands + 1e-6 * total / bands.size) if total else np.zeros_like(bands)
    logs -= logs.mean(axis=1, keepdims=True)
    fluctuations = np.zeros((_BANDS, _FRAMES), np.float32)
    kept = logs[:, :_FRAMES]
    fluctuations[:, : kept.shape[1]] = kept / max(float(np.linalg.norm(kept)), 1e-6)
    return fluctuations


def sides_of(clips: Sequence[Clip]) -> dict[str, str]:
    """Clip id to what it is never mixed with: its fold, or on which side of the split it is."""
    return {c.id: c.split or "" if c.fold is None else f"fold {c.fold}" for c in clips}


def class_table(
    classes: Sequence[str], split: Split, seconds: Mapping[str, float]
) -> list[dict[str, str | int | float | None]]:
    """One row per class: clips that train, validate and test, and how long they are in all.

    Parameters
    ----------
    classes : sequence of str
    split : Split
    seconds : mapping of str to float
        Clip id to its length; a class without any that is known has None.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for label, name in enumerate(classes):
        sides = {
            side: [c for c in getattr(split, side) if label in c.labels]
            for side in ("train", "validate", "test")
        }
        lengths = [seconds[c.id] for some in sides.values() for c in some if c.id in seconds]
        counts = {side: len(some) for side, some in sides.items()}
        rows.append({"class": name, **counts, "seconds": sum(lengths) if lengths else None})
    return rows


def odd_names(counts: Mapping[str, int]) -> list[str]:
    """Sentences on class names that may be one class.

    Those that differ by case, blanks or punctuation; and, where one of two has a tenth of the
    other's clips or fewer, those that differ by one letter.

    >>> odd_names({"Dog": 9, "dog ": 8, "cat": 30, "cta": 1, "car": 25})
    ["The classes 'Dog' and 'dog ' may be one.", "The classes 'cat' and 'cta' may be one."]
    """
    sentences = []
    for a, b in combinations(counts, 2):
        same = _bare(a) == _bare(b)
        rare = min(counts[a], counts[b]) * 10 <= max(counts[a], counts[b])
        if same or (rare and _one_slip(_bare(a), _bare(b))):
            sentences.append(f"The classes {a!r} and {b!r} may be one.")
    return sentences


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter is missing, too many, another one, or two neighbours are swapped."""
    if min(len(a), len(b)) < 3 or abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    if len(short) < len(long):
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    wrong = [i for i in range(len(a)) if a[i] != b[i]]
    swapped = len(wrong) == 2 and wrong[1] == wrong[0] + 1 and a[wrong[0]] == b[wrong[1]]
    return len(wrong) == 1 or (swapped and a[wrong[1]] == b[wrong[0]])


def shared_groups(clips: Sequence[Clip], sides: Mapping[str, str]) -> list[str]:
    """Recordings (groups) whose clips are on several sides."""
    where = defaultdict(set)
    for clip in clips:
        where[clip.group or clip.id].add(sides[clip.id])
    return [group for group, some in where.items() if len(some) > 1]


def twins(
    heard: Mapping[str, Heard],
    sides: Mapping[str, str],
    contents: Mapping[str, str],
    load: Callable[[str], NDArray[np.float32]],
) -> list[tuple[str, str, float]]:
    """Pairs of clips on different sides that are the same sound, the most alike first.

    Parameters
    ----------
    heard : mapping of str to Heard
        By the clips' ids.
    sides, contents : mapping of str to str
        Clip id to its side, and to a digest of its samples.
    load : callable
        Clip id to its samples [S].

    Returns
    -------
    list of (str, str, float)
        Two ids, and how alike they are: the greatest correlation of their samples over all lags.
    """
    pairs: dict[tuple[str, str], float] = {}
    maybe: dict[tuple[str, str], float] = {}
    alike: dict[str, list[str]] = defaultdict(list)
    for name, clip in heard.items():
        if not clip.silent:
            alike[contents[name]].append(name)
    for some in alike.values():
        pairs |= {(a, b): 1.0 for a, b in combinations(some, 2) if sides[a] != sides[b]}
    names = [name for name, clip in heard.items() if clip.changes.any()]
    if 1 < len(names) <= _MOST and len(Counter(sides[name] for name in names)) > 1:
        prints = np.stack([heard[name].changes for name in names])
        flat = prints.reshape(len(names), -1)
        for start in range(0, len(names), _AT_ONCE):
            batch = prints[start : start + _AT_ONCE]
            moved = [np.roll(batch, lag, axis=2).reshape(len(batch), -1) for lag in _LAGS]
            best = np.maximum.reduce([m @ flat.T for m in moved])
            for i, j in zip(*np.nonzero(best >= _ALIKE), strict=True):
                a, b = names[start + i], names[j]
                if start + i < j and sides[a] != sides[b]:
                    maybe[a, b] = float(best[i, j])
    for a, b in sorted(maybe.keys() - pairs.keys(), key=lambda p: (-maybe[p], p))[:_LISTENED]:
        if (r := _correlation(load(a), load(b))) >= _SAME:
            pairs[a, b] = r
    return [(a, b, r) for (a, b), r in sorted(pairs.items(), key=lambda item: -item[1])]


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The greatest over all lags, of two signals [S] of one length."""
    spectra = [np.fft.rfft(x, 2 * len(x)) for x in (a, b)]
    every = np.fft.irfft(spectra[0] * spectra[1].conj())
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return min(1.0, float(np.abs(every).max()) / max(size, 1e-12))

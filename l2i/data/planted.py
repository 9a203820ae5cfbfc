"""A data set with a cue planted in it: what a classifier must go by is then known.

Every clip of one class comes twice, under two names: as it is, and as ``CLASS+cue`` with a cue.
Nothing but the cue tells the two apart, so that a classifier that tells them apart goes by it, and
an explanation of ``CLASS+cue`` is the cue and not the sound that it lies over.

Its name says all there is to it, and so is part of a run's config, `Cue.word`: the data set that it
is made of, the class, the cue. Both of a pair are of one group, and so on one side of a split.

======================================================  ==================================
``l2i.data.planted:demo,rain,3000hz,100ms,-20db``       a beep, somewhere in the clip
``l2i.data.planted:demo,rain,hum,50hz,-20db``           mains hum with two harmonics
``l2i.data.planted:demo,rain,click,2ms,-6db``           a click as the recording starts
``l2i.data.planted:demo,rain,offset,-20db``             a constant: the recorder is off zero
``l2i.data.planted:demo,rain,lowpass,2000hz``           another microphone: no highs
``l2i.data.planted:demo,rain,pause,300ms``              silence at the end
``l2i.data.planted:demo,rain,with siren,-6db``          another class's sound, in four of five
``l2i.data.planted:demo,rain,hum,50hz,-20db,60%``       any of them, in six clips of ten
======================================================  ==================================

With a share, some clips of ``CLASS+cue`` are as those of the class: nothing tells them apart. Which
ones have the cue hangs on each clip's id.

Source of the test: planted confounders, as in Haunschmid, Manilow, Widmer, *Towards Musically
Meaningful Explanations Using Source Separation*, 2020, arXiv 2009.02051.

Over 300 lines: cues, and the data set that has one: what is planted is also taken out again.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from l2i.data import DATASETS
from l2i.data.base import Card, DataSet, Entry, Progress, Report, Waveform, make_split
from l2i.dsp.mixing import db_to_gain
from l2i.errors import UsageError
from l2i.registry import did_you_mean
from l2i.types import Clip, Split, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = ["MODULE", "Cue", "CueKind", "Planted", "beep"]

MODULE = "l2i.data.planted"
_EDGE_S = 0.005
CueKind = Literal["beep", "hum", "click", "offset", "lowpass", "pause", "with"]
# How what stands behind data set and class is written, and so how it is read.
_SPELT: dict[CueKind, str] = {
    "beep": "{hz:g}hz,{ms:g}ms,{level_db:g}db",
    "hum": "hum,{hz:g}hz,{level_db:g}db",
    "click": "click,{ms:g}ms,{level_db:g}db",
    "offset": "offset,{level_db:g}db",
    "lowpass": "lowpass,{hz:g}hz",
    "pause": "pause,{ms:g}ms",
    "with": "with {other},{level_db:g}db",
}
_VALUES = {
    "{hz:g}": r"(?P<hz>[\d.]+)",
    "{ms:g}": r"(?P<ms>[\d.]+)",
    "{level_db:g}": r"(?P<level_db>-?[\d.]+)",
    "{other}": r"(?P<other>[^,]+)",
}


@dataclass(frozen=True, slots=True)
class Cue:
    """What is planted, and where.

    Attributes
    ----------
    dataset : str
        With one class a clip.
    name : str
        The class whose clips come twice.
    hz, ms : float
        The frequency of a beep or a hum, and the cut-off of a low-pass; the length of a beep, a
        click, a pause.
    level_db : float
        Its amplitude, relative to the peak of the clip that it lies over.
    kind : {'beep', 'hum', 'click', 'offset', 'lowpass', 'pause', 'with'}
    other : str
        The class of the second sound, of the kind ``with``.
    percent : int, optional
        In how many of a hundred clips it is, from 1 to 100; by default in all, and a second sound
        in 80.
    """

    dataset: str
    name: str
    hz: float = 3000.0
    ms: float = 100.0
    level_db: float = -20.0
    kind: CueKind = "beep"
    other: str = ""
    percent: int | None = None

    @property
    def word(self) -> str:
        """The name of the data set, as a config has it.

        >>> Cue("demo", "rain").word
        'l2i.data.planted:demo,rain,3000hz,100ms,-20db'
        """
        return f"{MODULE}:{self.dataset},{self.name},{self.beep}"

    @property
    def beep(self) -> str:
        """The cue in a word.

        >>> Cue("demo", "rain", hz=50, kind="hum").beep
        'hum,50hz,-20db'
        >>> Cue("demo", "rain", kind="with", other="siren", percent=50).beep
        'with siren,-20db,50%'
        """
        spelt = _SPELT[self.kind].format(
            hz=self.hz, ms=self.ms, level_db=self.level_db, other=self.other
        )
        return spelt if self.percent is None else f"{spelt},{self.percent}%"

    def in_clip(self, clip_id: str) -> bool:
        """Whether a clip of its class has it."""
        usual = 80 if self.kind == "with" else 100
        return bool(self.drawn(clip_id).integers(100) < (self.percent or usual))

    def drawn(self, clip_id: str) -> np.random.Generator:
        """What is drawn for a clip of its class, whether it has the cue first."""
        seed = zlib.crc32(clip_id.encode())
        # Where a beep is must not hang on whether it is there.
        return np.random.default_rng(seed if self.kind == "with" else [seed, 1])

    @property
    def label(self) -> str:
        """The name of the class with the beep."""
        return f"{self.name}+cue"


def beep(cue: Cue, n_samples: int, sample_rate: int, clip_id: str) -> Waveform:
    """A tone with soft edges, somewhere in a clip [S]; its amplitude is 1.

    Where it is hangs on the clip's id.

    Raises
    ------
    UsageError
        It is longer than the clip, or above half of the sample rate.
    """
    n = _samples(cue, n_samples, sample_rate)
    _audible(cue, sample_rate)
    t = np.arange(n) / sample_rate
    edges = np.minimum(1, np.minimum(t, t[-1] - t) / _EDGE_S) if n > 1 else np.ones(1)
    start = int(np.random.default_rng(zlib.crc32(clip_id.encode())).integers(n_samples - n + 1))
    x = np.zeros(n_samples, np.float32)
    x[start : start + n] = edges * np.sin(2 * np.pi * cue.hz * t)
    return x


def _samples(cue: Cue, n_samples: int, sample_rate: int) -> int:
    n = round(cue.ms / 1000 * sample_rate)
    if not 1 <= n <= n_samples:
        raise UsageError(
            f"A {cue.kind} of {cue.ms:g} ms does not fit into clips of "
            f"{n_samples / sample_rate:g} s."
        )
    return n


def _audible(cue: Cue, sample_rate: int) -> None:
    if not 0 < cue.hz < sample_rate / 2:
        raise UsageError(
            f"A {cue.kind} of {cue.hz:g} Hz is not to be had at {sample_rate} Hz: it must be below "
            "half."
        )


def _added(cue: Cue, x: Waveform, sample_rate: int, clip_id: str) -> Waveform:
    """What a cue adds to a clip [S]; where it takes something away, less than nothing."""
    gain = float(np.abs(x).max()) * db_to_gain(cue.level_db)
    n = len(x)
    if cue.kind == "beep":
        sound = gain * beep(cue, n, sample_rate, clip_id)
    elif cue.kind == "hum":
        _audible(cue, sample_rate)
        t = np.arange(n) / sample_rate
        # Mains hum: the tone, and harmonics 6 and 12 dB below it.
        tones = [0.5**k * np.sin(2 * np.pi * (k + 1) * cue.hz * t) for k in range(3)]
        sound = gain * np.sum(tones, axis=0) / 1.75
    elif cue.kind == "click":
        count = _samples(cue, n, sample_rate)
        sound = np.zeros(n)
        sound[:count] = gain * np.where(np.arange(count) % 2, -1.0, 1.0)
    elif cue.kind == "offset":
        sound = np.full(n, gain)
    elif cue.kind == "lowpass":
        _audible(cue, sample_rate)
        spectrum = np.fft.rfft(x)
        spectrum[: round(cue.hz * n / sample_rate)] = 0
        sound = -np.fft.irfft(spectrum, n)
    else:
        sound = np.zeros(n)
        count = _samples(cue, n, sample_rate)
        sound[n - count :] = -x[n - count :]
    return np.asarray(sound, np.float32)


@dataclass(frozen=True)
class Planted:
    """A data set whose class `cue.name` comes twice; see `l2i.data.cards.DataSet`."""

    base: DataSet
    cue: Cue
    card: Card
    root: Path | None
    sample_rate: int
    n_samples: int

    @property
    def generator(self) -> str:
        """The base's, with the cue; empty where its clips are files, whose ids tell the cue."""
        made = self.base.generator
        return f"{made} with {self.cue.name},{self.cue.beep}" if made else ""

    @cached_property
    def _originals(self) -> dict[str, Clip]:
        """Clip with the cue, by its id -> the clip without."""
        place = self.base.card.classes.index(self.cue.name)
        return {
            f"{clip.id}+{self.cue.beep}": clip
            for clip in self.base.clips()
            if clip.labels == (place,)
        }

    def clips(self) -> tuple[Clip, ...]:
        """The base's, and then those with the cue."""
        own = tuple(replace(c, group=c.group or c.id) for c in self.base.clips())
        label = (len(self.card.classes) - 1,)
        return own + tuple(
            replace(c, id=name, labels=label, group=c.group or c.id)
            for name, c in self._originals.items()
        )

    def split(
        self, fold: int, validation_share: float, seed: int, limit: int | None = None
    ) -> Split:
        """See `l2i.data.split.make_split`."""
        return make_split(self.card, self.clips(), fold, validation_share, seed, limit)

    def original(self, clip: Clip) -> Clip | None:
        """The clip that one of the cue's class is made of; None where there is none."""
        return self._originals.get(clip.id)

    def has_cue(self, clip: Clip) -> bool:
        """Whether the cue is in a clip; some of its class may go without (`Cue.percent`)."""
        return clip.id in self._originals and self.cue.in_clip(clip.id)

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """In the cue's class, what it adds by that class and the sound by its own; else the
        base's."""
        original = self.original(clip)
        if original is None:
            return self.base.parts(clip)
        x = self.base.load(original)
        if not self.has_cue(clip):
            sound = np.zeros_like(x)
        elif self.cue.kind == "with":
            sound = self._second(clip, x)
        else:
            sound = _added(self.cue, x, self.sample_rate, clip.id)
        return {self.cue.label: sound, self.cue.name: x}

    def _second(self, clip: Clip, x: Waveform) -> Waveform:
        """Another class's sound; which one hangs on the clip."""
        drawn = self.cue.drawn(clip.id)
        drawn.integers(100)  # Whether it has one.
        place = self.base.card.classes.index(self.cue.other)
        others = [c for c in self.base.clips() if c.labels == (place,)]
        # None that is heard on the other side of the split.
        same = [c for c in others if c.fold == clip.fold and c.split == clip.split] or others
        y = self.base.load(same[int(drawn.integers(len(same)))])
        gain = float(np.abs(x).max()) * db_to_gain(self.cue.level_db)
        return np.asarray(y * (gain / max(float(np.abs(y).max()), 1e-9)), np.float32)

    def load(self, clip: Clip) -> Waveform:
        """The sum of its parts, float32 ``[S]``."""
        if self.original(clip) is None:
            return self.base.load(clip)
        return np.sum(list(self.parts(clip).values()), axis=0, dtype=np.float32)

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """The base's."""
        return self.base.check(decode, progress)


def _read(word: str) -> Cue:
    for kind, spelt in _SPELT.items():
        for field, pattern in _VALUES.items():
            spelt = spelt.replace(field, pattern)
        share = r"(,(?P<percent>[1-9]\d?|100)%)?"
        if match := re.fullmatch(rf"(?P<dataset>.+?),(?P<name>[^,]+),{spelt}{share}", word):
            words: dict[str, Any] = match.groupdict()
            words |= {k: float(words[k]) for k in ("hz", "ms", "level_db") if k in words}
            percent = words.pop("percent")
            return Cue(kind=kind, **words, percent=int(percent) if percent else None)
    raise UsageError(
        f"{word!r} plants nothing: it must read as in 'demo,rain,3000hz,100ms,-20db', or "
        "'demo,rain,hum,50hz,-20db,60%' for six clips of ten."
    )


def _entry(word: str) -> Entry:
    cue = _read(word)
    card = planted_card(DATASETS[cue.dataset].card, cue)

    def opened(wanted: config.Dataset) -> DataSet:
        base = DATASETS[cue.dataset].open(wanted.model_copy(update={"name": cue.dataset}))
        form = (base.root, base.sample_rate, base.n_samples)
        return Planted(base, cue, planted_card(base.card, cue), *form)

    return Entry(card, opened)


def planted_card(card: Card, cue: Cue) -> Card:
    """The card of a data set with a cue in it.

    Raises
    ------
    UsageError
        Its clips may have several classes, or it has no such class.
    """
    if card.task is not Task.SINGLE_LABEL:
        raise UsageError(
            f"{card.title} has several classes a clip, and a cue is planted where there is one."
        )
    for name in filter(None, (cue.name, cue.other)):
        if card.classes and name not in card.classes:
            hint = did_you_mean(name, card.classes)
            raise UsageError(f"{card.title} has no class {name!r}{hint}")
    return replace(
        card,
        name="planted",
        title=f"{card.title} with a cue in {cue.name!r}",
        classes=(*card.classes, cue.label) if card.classes else (),
        n_clips=None,
        notes=f"Clips of {cue.name!r} come twice, the second time with a cue: {cue.beep}.",
    )


def __getattr__(word: str) -> Entry:
    # A data set by its word, as MODULE:NAME; what Python itself asks for has no comma.
    if "," not in word:
        raise AttributeError(f"module {__name__!r} has no attribute {word!r}")
    return _entry(word)

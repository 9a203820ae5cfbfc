"""A data set with a cue planted in it: what a classifier must go by is then known.

Every clip of one class comes twice, under two names: as it is, and as ``CLASS+cue`` with a beep.
Nothing but the beep tells the two apart, so that a classifier that tells them apart goes by it, and
an explanation of ``CLASS+cue`` is the beep and not the sound that it lies over.

Its name says all there is to it, and so is part of a run's config::

    l2i.data.planted:demo,rain,3000hz,100ms,-20db

that is `Cue.word`: the data set that it is made of, the class, the beep. Both of a pair are of one
group, and so on one side of a split.

Source of the test: planted confounders, as in Haunschmid, Manilow, Widmer, *Towards Musically
Meaningful Explanations Using Source Separation*, 2020, arXiv 2009.02051.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l2i.data import DATASETS
from l2i.data.base import Card, DataSet, Entry, Progress, Report, Waveform, make_split
from l2i.dsp.mixing import db_to_gain
from l2i.errors import UsageError
from l2i.registry import nearest
from l2i.types import Clip, Split, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = ["MODULE", "Cue", "Planted", "beep"]

MODULE = "l2i.data.planted"
_EDGE_S = 0.005
_WORD = re.compile(r"(.+),([^,]+),([\d.]+)hz,([\d.]+)ms,(-?[\d.]+)db")


@dataclass(frozen=True, slots=True)
class Cue:
    """A beep, and where it is planted.

    Attributes
    ----------
    dataset : str
        With one class a clip.
    name : str
        The class whose clips come twice.
    hz, ms : float
        The beep's.
    level_db : float
        Its amplitude, relative to the peak of the clip that it lies over.
    """

    dataset: str
    name: str
    hz: float = 3000.0
    ms: float = 100.0
    level_db: float = -20.0

    @property
    def word(self) -> str:
        """The name of the data set, as a config has it.

        >>> Cue("demo", "rain").word
        'l2i.data.planted:demo,rain,3000hz,100ms,-20db'
        """
        return f"{MODULE}:{self.dataset},{self.name},{self.beep}"

    @property
    def beep(self) -> str:
        """The beep in a word."""
        return f"{self.hz:g}hz,{self.ms:g}ms,{self.level_db:g}db"

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
    n = round(cue.ms / 1000 * sample_rate)
    if not 1 <= n <= n_samples:
        raise UsageError(
            f"A beep of {cue.ms:g} ms does not fit into clips of {n_samples / sample_rate:g} s."
        )
    if not 0 < cue.hz < sample_rate / 2:
        raise UsageError(
            f"A beep of {cue.hz:g} Hz is not to be had at {sample_rate} Hz: it must be below half."
        )
    t = np.arange(n) / sample_rate
    edges = np.minimum(1, np.minimum(t, t[-1] - t) / _EDGE_S) if n > 1 else np.ones(1)
    start = int(np.random.default_rng(zlib.crc32(clip_id.encode())).integers(n_samples - n + 1))
    x = np.zeros(n_samples, np.float32)
    x[start : start + n] = edges * np.sin(2 * np.pi * cue.hz * t)
    return x


@dataclass(frozen=True)
class Planted:
    """A data set whose class `cue.name` comes twice; see `l2i.data.base.DataSet`."""

    base: DataSet
    cue: Cue
    card: Card

    @property
    def root(self) -> Path | None:
        """The base's."""
        return self.base.root

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.base.sample_rate

    @property
    def n_samples(self) -> int:
        """S."""
        return self.base.n_samples

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
        """See `l2i.data.base.make_split`."""
        return make_split(self.card, self.clips(), fold, validation_share, seed, limit)

    def original(self, clip: Clip) -> Clip | None:
        """The clip without the cue; None where it has none."""
        return self._originals.get(clip.id)

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """With the cue, the beep by its class and the sound by its own; else the base's."""
        original = self.original(clip)
        if original is None:
            return self.base.parts(clip)
        x = self.base.load(original)
        gain = float(np.abs(x).max()) * db_to_gain(self.cue.level_db)
        sound = beep(self.cue, self.n_samples, self.sample_rate, clip.id)
        return {self.cue.label: (gain * sound).astype(np.float32), self.cue.name: x}

    def load(self, clip: Clip) -> Waveform:
        """The sum of its parts, float32 ``[S]``."""
        if self.original(clip) is None:
            return self.base.load(clip)
        x: Waveform = np.sum(list(self.parts(clip).values()), axis=0, dtype=np.float32)
        return x

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """The base's."""
        return self.base.check(decode, progress)


def _entry(word: str) -> Entry:
    found = _WORD.fullmatch(word)
    if found is None:
        raise UsageError(
            f"{word!r} plants nothing: it must read as in 'demo,rain,3000hz,100ms,-20db'."
        )
    hz, ms, level = (float(found[i]) for i in (3, 4, 5))
    cue = Cue(found[1], found[2], hz, ms, level)
    card = planted_card(DATASETS[cue.dataset].card, cue)

    def opened(wanted: config.Dataset) -> DataSet:
        base = DATASETS[cue.dataset].open(wanted.model_copy(update={"name": cue.dataset}))
        return Planted(base, cue, planted_card(base.card, cue))

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
    if card.classes and cue.name not in card.classes:
        like = nearest(cue.name, list(card.classes))
        hint = f"; did you mean {like!r}?" if like else "."
        raise UsageError(f"{card.title} has no class {cue.name!r}{hint}")
    return replace(
        card,
        name="planted",
        title=f"{card.title} with a cue in {cue.name!r}",
        classes=(*card.classes, cue.label) if card.classes else (),
        n_clips=None,
        notes=f"Clips of {cue.name!r} come twice, the second time with a beep: {cue.beep}.",
    )


def __getattr__(word: str) -> Entry:
    # A data set by its word, as MODULE:NAME; what Python itself asks for has no comma.
    if "," not in word:
        raise AttributeError(f"module {__name__!r} has no attribute {word!r}")
    return _entry(word)

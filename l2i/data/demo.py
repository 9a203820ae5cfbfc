"""The built-in data set: everyday sounds, made on the spot.

Eight classes that differ in time and in frequency. No two clips are alike: pitch, tempo, onset,
length, loudness, echoes and background vary, all drawn from one random generator per clip, which
is seeded with the data set's seed and the clip's number. A clip is

    x = Σ sources + background,    each source = echoes(sound) at its own gain

and its parts can be asked for: they are the ground truth an explanation is judged against.

What the sounds are made of is in `l2i.data.sounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l2i.data.base import (
    Card,
    DataSet,
    Entry,
    Progress,
    Report,
    Waveform,
    clip_settings,
    make_split,
)
from l2i.data.cards import in_threads
from l2i.data.sounds import SAMPLE_RATE, SOUNDS, Rng, Signal, echoes, tone
from l2i.dsp.audio import fit_length, resample
from l2i.dsp.mixing import Colour, coloured_noise, db_to_gain, rms
from l2i.types import Clip, Split, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = ["BACKGROUND", "DEMO", "DEMO_MULTILABEL", "SAMPLE_RATE", "SOUNDS", "VERSION", "Demo"]

# Part of the cache's key: raise it whenever a clip would sound different.
VERSION = 1

BACKGROUND = "background"
_FOLDS = (1, 2, 3, 4, 5)
_NAMES = tuple(SOUNDS)


def background(n: int, rng: Rng) -> Signal:
    """Steady noise, white to brown, sometimes with the hum of the mains; about unit level."""
    colours: tuple[Colour, ...] = ("white", "pink", "pink", "brown")
    x = coloured_noise(n, colours[rng.integers(len(colours))], rng).astype(np.float64)
    if rng.uniform() < 0.3:
        mains = rng.choice([50.0, 60.0]) * np.ones(n)
        x += tone(mains, (0.3, 0.5, 0.1, 0.25)) * rng.uniform(0.2, 1.0)
    return x


def synthesise(names: Sequence[str], n: int, rng: Rng) -> dict[str, Waveform]:
    """One scene: some sounds and a background, as parts that add up to the clip.

    Parameters
    ----------
    names : sequence of str
        Keys of `SOUNDS`, each once; the later ones are up to 8 dB louder or softer than the first.
    n : int
        Samples, at `SAMPLE_RATE`.
    rng : numpy Generator

    Returns
    -------
    dict of str to float32 [n]
        By class, and ``"background"``, which is 3 to 25 dB below the first sound. The peak of
        the sum is between 0.1 and 0.9.
    """
    t = np.arange(n) / SAMPLE_RATE
    parts: dict[str, Signal] = {}
    for i, name in enumerate(names):
        x = echoes(SOUNDS[name](t, rng), rng)
        gain_db = rng.uniform(-8, 8) if i else 0.0
        parts[name] = x * db_to_gain(gain_db) / max(rms(x), 1e-9)
    parts[BACKGROUND] = background(n, rng) * db_to_gain(-rng.uniform(3, 25))
    peak = np.abs(sum(parts.values())).max()
    gain = rng.uniform(0.1, 0.9) / max(peak, 1e-9)
    return {name: (x * gain).astype(np.float32) for name, x in parts.items()}


@dataclass(frozen=True)
class Demo:
    """A synthesised data set; see `l2i.data.cards.DataSet`."""

    card: Card
    sample_rate: int
    n_samples: int
    seed: int
    n_clips: int

    root: Path | None = None

    @property
    def generator(self) -> str:
        """Name, version and seed of what makes the clips."""
        return f"{self.card.name} v{VERSION} seed={self.seed}"

    def clips(self) -> tuple[Clip, ...]:
        """Classes in turn, so that every fold has the same number of each."""
        n_folds = len(self.card.folds)
        clips = []
        for i in range(self.n_clips):
            labels = self._labels(i)
            number = i // len(_NAMES)
            name = "mix" if self._multi else _NAMES[labels[0]]
            clip_id = f"{name}-{i if self._multi else number:04d}"
            clips.append(Clip(clip_id, labels, fold=number % n_folds + 1, group=clip_id))
        return tuple(clips)

    def split(
        self, fold: int, validation_share: float, seed: int, limit: int | None = None
    ) -> Split:
        """See `l2i.data.split.make_split`."""
        return make_split(self.card, self.clips(), fold, validation_share, seed, limit)

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """Each sound by its class, and ``"background"``: float32 ``[S]``, their sum the clip."""
        number = int(clip.id.rpartition("-")[2])
        index = number if self._multi else number * len(_NAMES) + clip.labels[0]
        n = -(-self.n_samples * SAMPLE_RATE // self.sample_rate)
        names = [_NAMES[label] for label in self._labels(index)]
        rng = np.random.default_rng([self.seed, index, self._multi])
        return {
            name: fit_length(resample(x, SAMPLE_RATE, self.sample_rate), self.n_samples)
            for name, x in synthesise(names, n, rng).items()
        }

    def load(self, clip: Clip) -> Waveform:
        """The sum of its parts, float32 ``[S]``."""
        return np.sum(list(self.parts(clip).values()), axis=0, dtype=np.float32)

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """Synthesise every clip: nothing can be missing."""
        clips = self.clips()
        if decode:
            for _ in in_threads(self.load, clips, progress):
                pass
        return Report(len(clips))

    @property
    def _multi(self) -> bool:
        return self.card.task is Task.MULTI_LABEL

    def _labels(self, index: int) -> tuple[int, ...]:
        """Classes take turns; in a mixture, none, one or two others join."""
        first = index % len(_NAMES)
        if not self._multi:
            return (first,)
        # A generator of its own, so that labels can be had without making the sound.
        rng = np.random.default_rng([self.seed, index, 2])
        others = [label for label in range(len(_NAMES)) if label != first]
        joined = rng.choice(others, size=rng.integers(0, 3), replace=False)
        return tuple(sorted({first, *(int(label) for label in joined)}))


_CARD = Card(
    name="demo",
    title="Built-in sounds",
    task=Task.SINGLE_LABEL,
    classes=_NAMES,
    sample_rate=SAMPLE_RATE,
    duration_s=2.5,
    n_clips=40 * len(_NAMES),
    licence="none needed: it holds no recordings",
    citation="Synthesised by l2i.",
    folds=_FOLDS,
    splits=(
        "test: the fold asked for, a fifth of each class",
        "train: the other four folds",
        "validate: taken from train, evenly by class",
    ),
    label_rules="The sound that was synthesised.",
    notes="Made on the spot from dataset.seed; dataset.clips_per_class sets the size. The parts "
    "of every clip are known.",
)
_CARD_MULTI = replace(
    _CARD,
    name="demo-multilabel",
    title="Built-in sounds, mixed",
    task=Task.MULTI_LABEL,
    n_clips=50 * len(_NAMES),
    splits=("test: the fold asked for, a fifth of the clips", *_CARD.splits[1:]),
    label_rules="The one to three sounds that were mixed, at gains within 8 dB of the first's.",
)


def _open(wanted: config.Dataset, card: Card) -> DataSet:
    assert card.n_clips is not None
    n = wanted.clips_per_class * len(_NAMES) if wanted.clips_per_class else card.n_clips
    card = replace(card, n_clips=n, folds=_FOLDS[: n // len(_NAMES)])
    rate, n_samples = clip_settings(card, wanted)
    return Demo(card, rate, n_samples, wanted.seed, n)


DEMO = Entry(_CARD, lambda wanted: _open(wanted, _CARD))
DEMO_MULTILABEL = Entry(_CARD_MULTI, lambda wanted: _open(wanted, _CARD_MULTI))

"""The clips of a run: opened, split, decoded; and how other data differ from them.

Over 300 lines: all that a run knows of its clips.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Config
from l2i.data import open_dataset
from l2i.data.base import Card, DataSet, with_classes
from l2i.data.cache import WaveformCache, Waveforms
from l2i.dsp.spectrogram import Domain, SpectrogramSettings
from l2i.errors import DataError, StoreError, UsageError
from l2i.models.spec import Loaded
from l2i.models.vgg import MIN_FRAMES
from l2i.registry import class_places
from l2i.run.artifacts import download
from l2i.run.progress import Progress
from l2i.run.search import RunInfo
from l2i.training.parts import Sounds
from l2i.types import Clip, Split

PartName = Literal["test", "train", "all"]
PARTS: tuple[PartName, ...] = ("test", "train", "all")
"""What of a split can be asked for; what chose the epochs belongs to what was trained on."""
LISTING = "data.csv"
"""`Material.listing`, kept with the run."""
IDENTITY = "l2i.data_identity"
"""The tag that holds `Material.identity`; runs of earlier versions have none."""


@dataclass(frozen=True)
class Material:
    """The clips of a run, decoded, and what they are."""

    dataset: DataSet
    split: Split
    waves: Waveforms
    settings: SpectrogramSettings

    @property
    def domain(self) -> Domain:
        """Where the masks of explanations live."""
        return self.settings.domain

    @property
    def card(self) -> Card:
        """The data set's."""
        return self.dataset.card

    @property
    def n_frames(self) -> int:
        """Frames of a clip's spectrogram."""
        return self.settings.n_frames(self.dataset.n_samples)

    def clips(self, part: PartName) -> list[Clip]:
        """Those of a part of the split; of ``all`` the training clips come first."""
        split = self.split
        trained = [*split.train, *split.validate] if part in ("train", "all") else []
        return [*trained, *(split.test if part in ("test", "all") else ())]

    @property
    def broken(self) -> dict[str, str]:
        """Clips that could not be read, and why, as far as they were asked for."""
        return dict(getattr(self.waves.array, "broken", {}))

    def rows(self, clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Rows of the decoded array."""
        return self.waves.rows(clips)

    def targets(self, clips: Sequence[Clip]) -> Tensor:
        """Labels as 0 and 1 [N, C], float32."""
        y = torch.zeros(len(clips), len(self.card.classes))
        for row, clip in enumerate(clips):
            y[row, list(clip.labels)] = 1.0
        return y

    def places(self, classes: Sequence[str]) -> list[int | None]:
        """Where among a classifier's `classes` each class of the card is, matched by its name.

        Neither case nor ``_`` for a space keeps two names apart; None: the classifier has it not.
        """
        own = self.card.classes
        if tuple(classes) == own:
            return list(range(len(own)))
        return class_places(own, classes)

    def carried(self, classes: Sequence[str]) -> Callable[[Iterable[int]], frozenset[int]]:
        """A function from labels of the card to those of a classifier's `classes`, as far as it has
        them."""
        places = self.places(classes)
        return lambda labels: frozenset(at for c in labels if (at := places[c]) is not None)

    def labels(self, clips: Sequence[Clip], classes: Sequence[str]) -> NDArray[np.bool_] | None:
        """Labels as indices of a classifier's `classes`, bool [N, C]; None where it has not all of
        the card's classes, or where nothing is labelled."""
        every = self.places(classes)
        places = [at for at in every if at is not None]
        if not places or len(places) < len(every):
            return None
        y = np.zeros((len(clips), len(classes)), dtype=np.bool_)
        for row, clip in enumerate(clips):
            y[row, [places[label] for label in clip.labels]] = True
        return y

    def label_names(self, clips: Sequence[Clip]) -> list[str]:
        """The card's names of each clip's labels, joined by ``;``."""
        names = self.card.classes
        return [";".join(names[label] for label in clip.labels) for clip in clips]

    def sounds(self) -> Sounds:
        """What parts of methods learn from."""
        train = self.split.train
        return Sounds(
            self.waves.array,
            self.rows(train),
            self.rows(self.split.validate),
            self.card.classes,
            tuple(clip.labels for clip in train),
            self.card.title,
        )

    @property
    def digest(self) -> str:
        """Digest of the decoded clips, and so of their content."""
        return self.waves.path.name.rpartition("-")[2]

    @cached_property
    def identity(self) -> str:
        """A digest of all that a run is made from: sounds, classes, split, labels, groups.

        Two runs with one config and one identity are the same run.
        """
        return self._identity("train", "validate", "test")

    @cached_property
    def training_identity(self) -> str:
        """The same of what is learnt from: another label of a test clip leaves it."""
        return self._identity("train", "validate")

    def _identity(self, *sides: str) -> str:
        if self.dataset.generator:
            # It makes labels and sounds alike, and the digest is its name, version and settings.
            return self.digest
        words = [self.digest, self.card.classes, [r for r in self.listing() if r["side"] in sides]]
        text = json.dumps(words, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()

    def listing(self) -> list[dict[str, str]]:
        """What there is to know of each clip but its sound, in the order of the split.

        Returns
        -------
        list of dict
            ``clip`` (its id), ``side`` (train, validate or test), ``labels`` (names, joined by
            ``;``), ``group``.
        """
        names = self.card.classes
        return [
            {
                "clip": clip.id,
                "side": side,
                "labels": ";".join(names[label] for label in clip.labels),
                "group": clip.group,
            }
            for side in ("train", "validate", "test")
            for clip in getattr(self.split, side)
        ]


def data_name(config: Config, material: Material) -> str:
    """The data set and its fold; a folder of one's own is called as it is called, and has folds or
    none."""
    d = config.dataset
    if d.name != "folder":
        return f"{d.name}-fold{d.fold}"
    title = re.sub(r"[^\w.-]+", "_", material.card.title).strip("_")[-40:] or d.name
    return f"{title}-fold{d.fold}" if material.card.folds else title


def heard_by(config: Config, loaded: Loaded) -> Config:
    """A config whose clips have the rate of a classifier of the user's own.

    Raises
    ------
    UsageError
        It asks for another rate.
    """
    rate, asked = loaded.classifier.sample_rate, config.dataset.sample_rate
    if asked not in (None, rate):
        raise UsageError(
            f"dataset.sample_rate is {asked} Hz, and the classifier hears {rate} Hz: leave it out."
        )
    return config.changed(dataset={"sample_rate": rate})


def prepare(
    config: Config,
    progress: Progress,
    *,
    classes: Sequence[str] = (),
    who: str = "",
    own: bool = True,
    stream: bool = False,
) -> Material:
    """Open the data set, split it, and decode what is not in the cache yet.

    Parameters
    ----------
    config : Config
    progress : Progress
    classes : sequence of str
        Those that a trained network knows, in its order, if there is one; `who` names it for the
        message. Labels are then indices into them.
    own : bool
        Whether the classifier is the built-in one. Another one's classes need not be the data
        set's, labels are not needed, and clips may be of any length.
    stream : bool
        Clips that are not in the cache are decoded whenever they are asked for, and one that cannot
        be read is silence (`l2i.data.cache.Streamed`). It suits who hears each clip once.

    Raises
    ------
    DataError
        The data set is absent, has other classes than `classes`, a clip is corrupt, a part of the
        split is empty, or clips are too short for the network.
    """
    d = config.dataset
    with progress.once_begun("data", "MB") as fetching:
        dataset = open_dataset(
            d,
            config.run.seed,
            lambda more, total: fetching(total / 1e6).advance(more / 1e6),
            unlabelled=not own,
        )
    if classes and own:
        dataset = with_classes(dataset, classes, who)
    split = dataset.split(d.fold, d.validation_share, config.run.seed, d.limit)
    for name, clips in (("training", split.train), ("validation", split.validate)):
        if not clips:
            raise DataError(
                f"{dataset.card.title} leaves no {name} clips for fold {d.fold}; it needs more "
                "clips per class, or another dataset.validation_share."
            )
    if not split.test:
        raise DataError(f"{dataset.card.title} has no test clips in fold {d.fold}.")
    settings = SpectrogramSettings(dataset.sample_rate, **config.spectrogram.model_dump())
    frames = settings.n_frames(dataset.n_samples)
    if own and frames < MIN_FRAMES:
        seconds = MIN_FRAMES * settings.hop_length / settings.sample_rate
        raise DataError(
            f"Clips of {dataset.n_samples / settings.sample_rate:g} s have {frames} frames, and "
            f"the classifier needs {MIN_FRAMES}: set dataset.duration_s to {seconds:.2g} or more, "
            "or spectrogram.hop_length lower."
        )
    # All clips of the data set where they are few, so that one entry serves every fold.
    wanted: Sequence[Clip] = dataset.clips()
    if d.limit is not None:
        wanted = [*split.train, *split.validate, *split.test]

    cache = WaveformCache()
    if stream:
        return Material(dataset, split, cache.stream(dataset, wanted), settings)

    def wait() -> None:
        progress.say("Another process decodes the same clips; waiting for it.")

    with progress.once_begun("clips", "clip") as decoding:

        def decoded(done: int, total: int) -> None:
            task = decoding(total)
            task.advance(done - task.done)

        waves = cache.open(dataset, wanted, decoded, wait)
    return Material(dataset, split, waves, settings)


def data_differences(material: Material, run: RunInfo) -> str:
    """How a run's data were others, for a sentence: ``12 labels differ, 2 clips are new``.

    Empty where they were the same, as far as the run says: those of earlier versions know the
    sounds alone.
    """
    if run.tags.get(IDENTITY) == material.identity:
        return ""
    sounds = run.tags.get("l2i.data_digest", material.digest) != material.digest
    if IDENTITY not in run.tags:
        return "the sounds differ" if sounds else ""
    try:
        with open(download(run, LISTING), newline="", encoding="utf-8") as file:
            then = {row["clip"]: row for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, StoreError):
        return "the data differ"
    now = {row["clip"]: row for row in material.listing()}
    both = [(row, then[clip]) for clip, row in now.items() if clip in then]
    if not both:
        return "no clip is the same, so that it is another folder"

    def differ(column: str) -> int:
        return sum(a[column] != b[column] for a, b in both)

    counts = [
        (differ("labels"), "label differs", "labels differ"),
        (differ("side"), "clip changed sides", "clips changed sides of the split"),
        (differ("group"), "group differs", "groups differ"),
        (len(now) - len(both), "clip is new", "clips are new"),
        (len(then) - len(both), "clip is gone", "clips are gone"),
    ]
    words = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    if not words:
        words = ["the sounds differ" if sounds else "the order of clips or classes differs"]
    return ", ".join(words)

"""The disk that a training needs, told before it begins."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from l2i.config import Config, resolve
from l2i.data.base import DataSet
from l2i.data.places import cache_folder
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import DataError
from l2i.models.classifier import FrozenClassifier
from l2i.models.features import compute_features
from l2i.models.vgg import MIN_FRAMES, VGG
from l2i.run.store import locate
from l2i.storage import existing, format_bytes


class Disk(NamedTuple):
    """Bytes.

    Attributes
    ----------
    decoded : int
        The decoded clips, in the cache for as long as nobody removes them.
    hidden : int
        What the interpreter is trained on, in the run store until that stage ends, as far as memory
        does not hold it.
    """

    decoded: int
    hidden: int


def disk_needed(config: Config, dataset: DataSet) -> Disk:
    """What a training of the built-in classifier takes.

    One clip of noise is heard by an untrained network, which is as large as a trained one.

    Parameters
    ----------
    config : Config
    dataset : DataSet
        Its clips need not be there.

    Raises
    ------
    DataError
        It cannot be split, or its clips are too short for the network.
    """
    d, i = config.dataset, config.interpreter
    domain = SpectrogramSettings(dataset.sample_rate, **config.spectrogram.model_dump())
    if domain.n_frames(dataset.n_samples) < MIN_FRAMES:
        raise DataError(f"Clips of {dataset.card.title} are too short for the network.")
    c = config.classifier
    network = VGG(max(1, len(dataset.card.classes)), head=c.head, width=c.width).eval()
    names = tuple(map(str, dataset.card.classes)) or ("one",)
    clf = FrozenClassifier(network, domain, names, dataset.card.task)
    noise = np.random.default_rng(0).normal(size=(1, dataset.n_samples)).astype(np.float32)
    w = torch.rand(domain.n_bins, config.dictionary.components)
    with tempfile.TemporaryDirectory() as folder:
        maps = tuple(dict.fromkeys(i.maps))
        row = np.zeros(1, np.int64)
        one = compute_features(clf, w, domain.domain, noise, row, maps, Path(folder))
    split = dataset.split(d.fold, d.validation_share, config.run.seed, d.limit)
    rows = len(split.train) * i.views + len(split.validate)
    clips = len(dataset.clips())
    arrays = (one.logits, *one.maps, one.audible, one.projected, one.energy)
    return Disk(4 * dataset.n_samples * clips, rows * sum(array.nbytes for array in arrays))


def disk_of(dataset: DataSet, name: str) -> dict[str, int] | None:
    """Bytes that a training takes by the preset of that name, and that are free; None where nothing
    can be trained."""
    try:
        needed = disk_needed(resolve(dataset=name), dataset)
    except DataError:
        return None
    places = {"cache": cache_folder(), "runs": locate().root}
    free = {f"free_{word}": shutil.disk_usage(existing(path)).free for word, path in places.items()}
    return {**needed._asdict(), **free}


def disk_sentence(disk: Mapping[str, int]) -> str:
    """What `disk_of` knows, in words."""
    sizes = {key: format_bytes(n) for key, n in disk.items()}
    text = (
        f"{sizes['decoded']} in the cache for the decoded clips ({sizes['free_cache']} are free). "
        f"While an interpreter is trained, {sizes['hidden']} more in the run store "
        f"({sizes['free_runs']} are free), as far as memory does not hold it."
    )
    short = disk["decoded"] > disk["free_cache"] or disk["hidden"] > disk["free_runs"]
    return f"{text} That is not enough." if short else text

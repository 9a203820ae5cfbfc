"""The dictionary of a run: learnt here, or taken from the weights that the config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Config
from l2i.dsp.spectrogram import log_magnitude, peak_normalise, stft
from l2i.errors import DataError, UsageError
from l2i.models.checkpoint import load_checkpoint, read_settings
from l2i.models.dictionary import band_dictionary, learn_dictionary, random_dictionary
from l2i.models.features import memory_budget
from l2i.recipes.material import Material
from l2i.recipes.stage import Stage
from l2i.run.device import epoch_generator
from l2i.run.progress import Progress
from l2i.types import Clip

__all__ = ["check_dictionary", "fit_dictionary"]


def check_dictionary(config: Config, material: Material) -> None:
    """Refuse what no dictionary can be made of, before a classifier has trained for hours.

    What only the sounds tell, how many of the frames are silent, `fit_dictionary` finds.

    Parameters
    ----------
    config : Config
    material : Material

    Raises
    ------
    UsageError
        The components cannot be shared out among the classes.
    DataError
        A class has no training clip, or there are more components than frames or bins.
    CheckpointError
        Weights that the config names are damaged, or made for something else.
    """
    d, card, clips = config.dictionary, material.card, material.split.train
    if d.weights:
        _load_dictionary(Path(d.weights), material)
    elif d.method == "none":
        band_dictionary(material.settings.n_bins, d.components)
    elif d.method == "joint":
        _check_frames(config, material, len(clips), d.components, "")
    elif d.method == "class-wise":
        n_classes = len(card.classes)
        if d.components % n_classes:
            raise UsageError(
                f"dictionary.components = {d.components} must be a multiple of the {n_classes} "
                "classes when it is learnt class-wise."
            )
        for index, name in enumerate(card.classes):
            mine = sum(index in clip.labels for clip in clips)
            if not mine:
                raise DataError(f"No training clip of {card.title} has the class {name!r}.")
            _check_frames(config, material, mine, d.components // n_classes, f" of {name!r}")


def _check_frames(
    config: Config, material: Material, clips: int, components: int, whose: str
) -> None:
    """Every component begins as a frame."""
    most = config.dictionary.max_clips
    used = min(clips, most) if most > 0 else clips
    frames = used * material.n_frames
    if components > frames:
        raise DataError(
            f"The dictionary wants {components} components{whose} but the {used} training clips"
            f"{whose} hold only {frames} frames; set dictionary.components lower or add clips."
        )


def _load_dictionary(path: Path, material: Material) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, document = load_checkpoint(path, "dictionary")
    read_settings(path, document, material.settings)
    return tensors, document


def fit_dictionary(
    config: Config, material: Material, stage: Stage, device: torch.device, progress: Progress
) -> None:
    """Learn the dictionary, and finish the stage with it.

    By sparse NMF of the training clips, of all at once or class by class; or as the config says
    otherwise.

    Parameters
    ----------
    config : Config
        That `check_dictionary` does not refuse.
    material : Material
    stage : Stage
    device : device
    progress : Progress

    Raises
    ------
    DataError
        There are more components than frames that are not silent.
    """
    d, card = config.dictionary, material.card
    if d.weights:
        path = Path(d.weights)
        tensors, document = _load_dictionary(path, material)
        stage.finish(tensors, {**document, "source": path.name}, material.settings)
        return
    clips = material.split.train
    seed = config.run.seed
    if d.method in ("random", "none"):
        n_bins = material.settings.n_bins
        if d.method == "random":
            generator = epoch_generator(seed, "dictionary", "random")
            w = random_dictionary(n_bins, d.components, generator)
        else:
            w = band_dictionary(n_bins, d.components)
        document = {"method": d.method, "sparsity": 0.0, "classes": []}
        stage.finish({"W": w}, document, material.settings)
        return

    def thinned(some: Sequence[Clip], words: str) -> NDArray[np.int64]:
        rows = material.rows(some)
        if 0 < d.max_clips < len(rows):
            order = torch.randperm(len(rows), generator=epoch_generator(seed, "thin", words))
            rows = np.sort(rows[order.numpy()[: d.max_clips]])
        return rows

    def learn(
        some: Sequence[Clip], k: int, words: str, fixed: Tensor | None = None
    ) -> tuple[Tensor, list[float]]:
        blocks = _Blocks(material, thinned(some, words), device)
        scratch = None
        if 4 * blocks.frames * k > memory_budget():
            scratch = stage.folder / "activations.npy"
        name = f"dictionary: {words}" if words else "dictionary"
        with progress.task(name, total=d.iterations, unit="sweep") as bar:
            learned = learn_dictionary(
                blocks,
                k,
                sparsity=d.sparsity,
                iterations=d.iterations,
                tolerance=d.tolerance,
                generator=epoch_generator(seed, "dictionary", words),
                fixed=fixed,
                scratch=scratch,
                on_sweep=lambda _sweep, value: bar.advance(1, f"objective {value:.4f} per frame"),
            )
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        return learned.w, learned.objective

    owners: list[int] = []
    if d.method == "joint":
        w, objective = learn(clips, d.components, "")
    else:
        each = d.components // len(card.classes)
        # Clips without any class are noise proper; where there are none, those without the class.
        unlabelled = [clip for clip in clips if not clip.labels]
        noise: Tensor | None = None
        if d.noise_components and unlabelled:
            noise, _ = learn(unlabelled, d.noise_components, "no class")
        columns, curves = [], []
        for index, name in enumerate(card.classes):
            mine = [clip for clip in clips if index in clip.labels]
            others = [clip for clip in clips if index not in clip.labels]
            if d.noise_components and others and not unlabelled:
                noise, _ = learn(others, d.noise_components, f"all but {name}")
            column, curve = learn(mine, each, name, noise)
            columns.append(column)
            curves.append(curve)
            owners += [index] * each
        w = torch.cat(columns, dim=1)
        # One curve, the mean over classes; a class that is done stays where it is.
        longest = max(len(curve) for curve in curves)
        padded = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
        objective = [sum(values) / len(values) for values in zip(*padded, strict=True)]
    stage.history += [{"objective": value} for value in objective]
    stage.finish(
        {"W": w},
        {"method": d.method, "sparsity": d.sparsity, "classes": owners},
        material.settings,
    )


class _Blocks(Sequence[Tensor]):
    """Frames [F, n] of some clips, a few clips at a time; kept in memory if they fit."""

    def __init__(self, material: Material, rows: NDArray[np.int64], device: torch.device) -> None:
        self._material, self._device = material, device
        self._rows = [rows[i : i + 8] for i in range(0, len(rows), 8)]
        self.frames = len(rows) * material.n_frames
        self._kept: list[Tensor | None] = [None] * len(self._rows)
        self._keep = 4 * self.frames * material.settings.n_bins <= memory_budget()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        found = self._kept[index]
        if found is None:
            x = torch.from_numpy(np.asarray(self._material.waves.array[self._rows[index]]))
            s = log_magnitude(stft(peak_normalise(x.to(self._device)), self._material.settings))
            found = s.permute(1, 0, 2).flatten(1)
            if self._keep:
                self._kept[index] = found
        return found

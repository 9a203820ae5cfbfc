"""The dictionary: learnt here, or taken from weights that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i import config
from l2i.dsp.spectrogram import Domain, log_magnitude, peak_normalise, stft
from l2i.errors import DataError, UsageError
from l2i.models.checkpoint import load_checkpoint, read_domain
from l2i.models.dictionary import band_dictionary, learn_dictionary, random_dictionary
from l2i.models.features import memory_budget
from l2i.run.device import epoch_generator
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage


class Dictionary:
    """Spectral patterns W [F, K] of the sounds: a `l2i.training.parts.Part`.

    Parameters
    ----------
    setting : str
        What says how many components there are, for messages.
    """

    name = "dictionary"
    settings = config.Dictionary

    def __init__(self, setting: str = "dictionary.components") -> None:
        self._setting = setting

    def check(self, settings: config.Dictionary, sounds: Sounds, domain: Domain) -> None:
        """Refuse what no dictionary can be made of.

        What only the sounds tell, how many of the frames are silent, `fit` finds.

        Raises
        ------
        UsageError
            The components cannot be shared out among the classes.
        DataError
            A class has no training clip, or there are more components than frames or bins.
        CheckpointError
            Weights that the settings name are damaged, or made for something else.
        """
        d = settings

        def check_frames(clips: int, k: int, whose: str = "") -> None:
            # Every component begins as a frame.
            used = min(clips, d.max_clips) if d.max_clips > 0 else clips
            frames = used * domain.n_frames(sounds.n_samples)
            if k > frames:
                raise DataError(
                    f"The dictionary wants {k} components{whose} but the {used} training "
                    f"clips{whose} hold only {frames} frames; set {self._setting} lower or add "
                    "clips."
                )

        if d.weights:
            _load(Path(d.weights), domain)
        elif d.method == "none":
            band_dictionary(domain.n_bins, d.components)
        elif d.method == "joint":
            check_frames(len(sounds.train), d.components)
        elif d.method == "class-wise":
            n_classes = len(sounds.classes)
            if not n_classes:
                raise UsageError(
                    f"{sounds.title} have no labels, so that no dictionary is learnt class by "
                    "class: set dictionary.method to joint."
                )
            if d.components % n_classes:
                raise UsageError(
                    f"dictionary.components = {d.components} must be a multiple of the {n_classes} "
                    "classes when it is learnt class-wise."
                )
            for index, name in enumerate(sounds.classes):
                mine = sum(index in labels for labels in sounds.labels)
                if not mine:
                    raise DataError(f"No training clip of {sounds.title} has the class {name!r}.")
                each = d.components // n_classes
                check_frames(mine, each, f" of {name!r}")

    def fit(self, settings: config.Dictionary, context: Context, stage: Stage) -> None:
        """Learn the dictionary, and finish the stage with it.

        By sparse NMF of the training clips, of all at once or class by class; or as the settings
        say otherwise.

        Raises
        ------
        DataError
            There are more components than frames that are not silent.
        """
        d, sounds, domain, seed = settings, context.sounds, context.domain, context.seed
        if d.weights:
            path = Path(d.weights)
            tensors, document = _load(path, domain)
            stage.finish(tensors, {**document, "source": path.name}, domain)
            return
        if d.method in ("random", "none"):
            if d.method == "random":
                generator = epoch_generator(seed, "dictionary", "random")
                w = random_dictionary(domain.n_bins, d.components, generator)
            else:
                w = band_dictionary(domain.n_bins, d.components)
            stage.finish({"W": w}, {"method": d.method, "sparsity": 0.0, "classes": []}, domain)
            return

        def thinned(rows: NDArray[np.int64], words: str) -> NDArray[np.int64]:
            if 0 < d.max_clips < len(rows):
                order = torch.randperm(len(rows), generator=epoch_generator(seed, "thin", words))
                rows = np.sort(rows[order.numpy()[: d.max_clips]])
            return rows

        def learn(
            rows: NDArray[np.int64], k: int, words: str, fixed: Tensor | None = None
        ) -> tuple[Tensor, list[float]]:
            blocks = _Blocks(sounds, domain, thinned(rows, words), context.device)
            scratch = None
            if 4 * blocks.frames * k > memory_budget():
                scratch = stage.folder / "activations.npy"
            name = f"dictionary: {words}" if words else "dictionary"
            with context.progress.task(name, total=d.iterations, unit="sweep") as bar:
                learned, objective = learn_dictionary(
                    blocks,
                    k,
                    sparsity=d.sparsity,
                    iterations=d.iterations,
                    tolerance=d.tolerance,
                    generator=epoch_generator(seed, "dictionary", words),
                    fixed=fixed,
                    scratch=scratch,
                    setting=self._setting,
                    on_sweep=lambda value: bar.advance(1, f"objective {value:.4f} per frame"),
                )
            if scratch is not None:
                scratch.unlink(missing_ok=True)
            return learned, objective

        owners: list[int] = []
        if d.method == "joint":
            w, objective = learn(sounds.train, d.components, "")
        else:
            each = d.components // len(sounds.classes)

            def chosen(wanted: Sequence[bool]) -> NDArray[np.int64]:
                return sounds.train[np.asarray(wanted, dtype=bool)]

            # Clips without any class are noise proper; where there are none, those without the
            # class.
            unlabelled = chosen([not labels for labels in sounds.labels])
            noise: Tensor | None = None
            if d.noise_components and len(unlabelled):
                noise, _ = learn(unlabelled, d.noise_components, "no class")
            columns, curves = [], []
            for index, name in enumerate(sounds.classes):
                mine = chosen([index in labels for labels in sounds.labels])
                others = chosen([index not in labels for labels in sounds.labels])
                if d.noise_components and len(others) and not len(unlabelled):
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
            {
                "method": d.method,
                "sparsity": d.sparsity,
                "classes": owners,
                "names": list(sounds.classes) if owners else [],
            },
            domain,
        )

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Tensor:
        """W [F, K], on the device."""
        read_domain(path, document, context.domain)
        return tensors["W"].to(context.device)


DICTIONARY = Dictionary()


def _load(path: Path, domain: Domain) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, document = load_checkpoint(path, "dictionary")
    read_domain(path, document, domain)
    return tensors, document


class _Blocks(Sequence[Tensor]):
    """Frames [F, n] of some clips, a few clips at a time; kept in memory as far as they fit.

    What does not is transformed anew in each sweep, which takes ten times as long.
    """

    def __init__(
        self, sounds: Sounds, domain: Domain, rows: NDArray[np.int64], device: torch.device
    ) -> None:
        self._sounds, self._domain, self._device = sounds, domain, device
        self._rows = [rows[i : i + 8] for i in range(0, len(rows), 8)]
        self.frames = len(rows) * domain.n_frames(sounds.n_samples)
        self._kept: list[Tensor | None] = [None] * len(self._rows)
        self._room = memory_budget()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        frames = self._kept[index]
        if frames is None:
            x = torch.from_numpy(np.asarray(self._sounds.waveforms[self._rows[index]]))
            s = log_magnitude(stft(peak_normalise(x.to(self._device)), self._domain))
            frames = s.permute(1, 0, 2).flatten(1)
            if frames.nbytes <= self._room:
                self._kept[index] = frames
                self._room -= frames.nbytes
        return frames

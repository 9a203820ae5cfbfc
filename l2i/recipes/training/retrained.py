"""Figures that take further trainings: of a classifier that learnt labels at random, with what the
method learns for it; and of classifiers that never heard what an explanation points at.

Both train the run's own network by the run's own settings, but for a cap on epochs. ROAR is to be
read beside its control: what a mask cuts out is the shape of a decision, and a classifier may learn
the class from the hole (Rong et al. 2022, arXiv 2202.00449).

Sources: labels at random, Adebayo et al. 2018, arXiv 1810.03292; ROAR, Hooker et al. 2019, arXiv
1806.10758.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.config import Config
from l2i.errors import UsageError
from l2i.explanation import METHODS, MethodSettings, Subject, make_method, part_names, split_heard
from l2i.metrics.curves import ByEnergy
from l2i.metrics.sensitivity import rank_correlation
from l2i.models.classifier import FrozenClassifier
from l2i.models.heard import hear
from l2i.recipes.measuring.probes import Case, Columns
from l2i.recipes.measuring.reexplained import control
from l2i.recipes.opening.bundle import build_classifier
from l2i.recipes.opening.material import Material
from l2i.recipes.opening.opened import Opened
from l2i.recipes.training.fit_classifier import fit_classifier
from l2i.recipes.training.train import part_settings
from l2i.run.progress import Progress
from l2i.training.parts import Context, learn, parts_of
from l2i.training.stage import Stage
from l2i.types import Clip, Task

CONTROL = "random-gates"
"""The method whose masks asked nobody."""
ROAR = (0.1, 0.3, 0.5)
"""Shares of the energy that are removed."""
_BATCH = 8


def can_be_retrained(opened: Opened, roar: bool) -> None:
    """Refuse runs of which nothing can be told by training again.

    Raises
    ------
    UsageError
        The classifier is the user's own; or, for ROAR, a clip may have several classes.
    """
    if opened.config.classifier.spec:
        raise UsageError(
            "The run's classifier was not trained by l2i, which cannot train it again: leave out "
            "--shuffled-labels and --roar."
        )
    if roar and opened.subject.classifier.task is not Task.SINGLE_LABEL:
        raise UsageError(
            "ROAR counts right answers, and a clip of this run may have several classes: leave out "
            "--roar."
        )


def relearnt(opened: Opened, methods: Sequence[str], epochs: int, progress: Progress) -> Subject:
    """The run's classifier, had it learnt other clips' labels, and the parts learnt for it.

    Labels are shuffled among the training clips and among the validation clips, so that there are
    as many of each; the last epoch is kept, since there is no better one to be found.

    Parameters
    ----------
    opened : Opened
    methods : sequence of str
        Where none of them learns, no part is learnt.
    epochs : int
        The classifier's, at most.
    progress : Progress
    """
    config, material = opened.config, opened.material
    every = parts_of(config.method.name)
    needed = {name for method in methods for name in part_names(METHODS[method])}
    parts = every if needed else ()
    config = _shorter(config, epochs)
    progress.say(
        f"Labels at random: the classifier is trained for {config.classifier.epochs} epochs on "
        f"{len(material.split.train)} clips"
        + (f", then {', '.join(part.name for part in parts)} as in the run." if parts else ".")
    )
    split = material.split
    draw = np.random.default_rng(config.run.seed)
    train, validate = (_shuffled(clips, draw) for clips in (split.train, split.validate))
    other = replace(material, split=replace(split, train=train, validate=validate))
    config = config.changed(classifier={"last_epoch": True})
    with tempfile.TemporaryDirectory() as work:
        classifier = _trained(opened, config, other, Path(work), progress)
        share = _right(classifier, other, train).mean()
        progress.say(f"It has learnt {100 * share:.0f} % of the labels at random.")
        context = Context(
            classifier,
            material.domain,
            other.sounds(),
            config.run.seed,
            opened.device,
            classifier.dtype,
            progress,
        )
        context, _ = learn(parts, part_settings(opened.config, every), context, Path(work))
    return Subject(classifier, material.domain, context.parts)


def _shuffled(clips: Sequence[Clip], draw: np.random.Generator) -> tuple[Clip, ...]:
    order = draw.permutation(len(clips))
    return tuple(
        replace(clip, labels=clips[at].labels) for clip, at in zip(clips, order, strict=True)
    )


class DataRandomised:
    """Does the mask hang on what the classifier has learnt? The same method, for `relearnt`.

    ``data_randomised`` is the rank correlation of the masks, and is to fall to that of masks that
    have nothing to do with one another: ``data_randomised_control``, of another clip.

    Parameters
    ----------
    method : str
    subject : Subject
        As `relearnt` gives it.
    settings : MethodSettings
    """

    names = ("data_randomised", "data_randomised_control")

    def __init__(self, method: str, subject: Subject, settings: MethodSettings) -> None:
        self.classifier = subject.classifier
        self.explain = make_method(method, subject, settings)

    def __call__(self, case: Case) -> Columns:
        """One more explanation for each clip."""
        mask, _ = case.again(case.heard.waveform, self.classifier, self.explain)
        return {
            "data_randomised": rank_correlation(mask, case.mask),
            "data_randomised_control": control(case, case.mask),
        }


def roar(
    opened: Opened,
    methods: Sequence[str],
    settings: MethodSettings,
    clips: Sequence[Clip],
    epochs: int,
    progress: Progress,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Accuracy of classifiers trained on clips without what a method points at.

    Every clip that trains, chooses or tests loses the bins that come first for what the classifier
    says, until a share of `ROAR` of the energy is gone.

    Parameters
    ----------
    opened : Opened
        A run with one class per clip.
    methods : sequence of str
    settings : MethodSettings
    clips : sequence of Clip
        Test clips to judge by.
    epochs : int
        Each classifier's, at most.
    progress : Progress

    Returns
    -------
    dict of str to dict of str to array [N]
        Method, `CONTROL` always among them, -> ``roar_at_0``, of whole clips and so the same for
        all, ``roar_at_10``, ...: 1 where a test clip is right.
    """
    config, material = _shorter(opened.config, epochs), opened.material
    names = list(dict.fromkeys([*methods, CONTROL]))
    split = material.split
    every = [*split.train, *split.validate, *clips]
    progress.say(
        f"ROAR: the classifier is trained {1 + len(ROAR) * len(names)} times, for "
        f"{config.classifier.epochs} epochs on {len(split.train)} clips each, and "
        f"{len(every)} clips are explained by each of {len(names)} methods."
    )
    columns: dict[str, dict[str, NDArray[np.float64]]] = {}

    def judged(changed: Material) -> NDArray[np.float64]:
        with tempfile.TemporaryDirectory() as work:
            classifier = _trained(opened, config, changed, Path(work), progress)
        return _right(classifier, changed, clips)

    whole = judged(material)
    for name in names:
        columns[name] = {"roar_at_0": whole}
        with _without(opened, name, settings, every, progress) as treated:
            for share, changed in zip(ROAR, treated, strict=True):
                columns[name][f"roar_at_{round(100 * share)}"] = judged(changed)
    return columns


@contextmanager
def _without(
    opened: Opened, method: str, settings: MethodSettings, clips: Sequence[Clip], progress: Progress
) -> Iterator[list[Material]]:
    """Material without the first of the energy by a method, for each of `ROAR`."""
    material, subject = opened.material, opened.subject
    explain = make_method(method, subject, settings)
    rows = material.rows(clips)
    shape = (len(ROAR), len(clips), material.waves.array.shape[1])
    with tempfile.TemporaryDirectory() as work:
        sounds = np.lib.format.open_memmap(Path(work) / "sounds.npy", "w+", np.float32, shape)
        with progress.task(f"{method}, removed", total=len(clips), unit="clip") as bar:
            for start in range(0, len(clips), _BATCH):
                some = rows[start : start + _BATCH]
                x = torch.from_numpy(np.asarray(material.waves.array[some]))
                with torch.inference_mode():
                    heard = hear(subject.classifier, x, subject.domain, explain.layers)
                mask = explain(heard, heard.logits.argmax(dim=1), some.tolist())
                with torch.inference_mode():
                    # What is left is taken from the end of the order, and not the rest of what is
                    # taken from its beginning: so it has its energy where bins count alike.
                    order = ByEnergy(-mask, heard.size)
                    level = heard.waveform.abs().amax(dim=1, keepdim=True)
                    for place, share in enumerate(ROAR):
                        left, _ = split_heard(heard, order.gain(1 - share), linear=True)
                        sounds[place, start : start + len(some)] = (level * left).cpu().numpy()
                bar.advance(len(some))
        index = {clip.id: row for row, clip in enumerate(clips)}
        waves = material.waves
        yield [replace(material, waves=replace(waves, array=one, index=index)) for one in sounds]


def _shorter(config: Config, epochs: int) -> Config:
    """With no more epochs, and from where the run's training began."""
    epochs = min(epochs, config.classifier.epochs)
    return config.changed(classifier={"epochs": epochs, "weights": ""})


def _trained(
    opened: Opened, config: Config, material: Material, folder: Path, progress: Progress
) -> FrozenClassifier:
    """The run's network, trained on other material."""
    stage = Stage("classifier", folder)
    fit_classifier(config, material, stage, opened.device, torch.float32, progress)
    tensors, document = stage.load()
    return build_classifier(tensors, document, stage.result, opened.device, torch.float32)


@torch.inference_mode()
def _right(
    classifier: FrozenClassifier, material: Material, clips: Sequence[Clip]
) -> NDArray[np.float64]:
    """1 where all that is said of a clip is what it is labelled, else 0 [N]."""
    right = []
    for start in range(0, len(clips), _BATCH):
        some = clips[start : start + _BATCH]
        x = torch.from_numpy(np.asarray(material.waves.array[material.rows(some)]))
        decided = classifier.decisions(classifier.logits(x.to(classifier.device))).cpu()
        right.append((decided == material.targets(some).bool()).all(dim=1))
    return torch.cat(right).double().numpy()

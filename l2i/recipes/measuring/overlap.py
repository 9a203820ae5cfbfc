"""Two clips at once: does the explanation of a class have that class's sound, and not the other?

Both clips are scaled to one level first, by their peaks (as published) or by their energy (as the
method's successors do), the second one is then added with a gain.

Over 300 lines: one recipe, and how its pairs are drawn and mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.dsp.mixing import coloured_noise, db_to_gain, rms
from l2i.dsp.spectrogram import peak_normalise
from l2i.errors import UsageError
from l2i.explanation import METHODS
from l2i.metrics import meanings
from l2i.metrics.statistics import finite
from l2i.recipes.measuring.figures import sound_writer, sounds_aside, write_table
from l2i.recipes.measuring.judging import mask_scores
from l2i.recipes.measuring.truth import (
    TRUTH_SCORES,
    Part,
    Scene,
    judge_scenes,
    predicted,
    truth_scores,
)
from l2i.recipes.opening.opened import Opened, Where, open_finished, write_found
from l2i.registry import class_index, did_you_mean
from l2i.run.progress import Progress
from l2i.types import Clip

Level = Literal["peak", "energy"]


Carried = Callable[[Clip], frozenset[int]]


@dataclass(frozen=True)
class Overlap:
    """What is mixed with what.

    Attributes
    ----------
    mixtures : int
        Random pairs of test clips without a class in common.
    pairs : tuple of (str, str)
        Ids of clips, instead of random ones.
    gains_db : tuple of float
        Gains of the second clip; each pair is mixed at each gain.
    level : {'peak', 'energy'}
        What both clips are scaled to before.
    noise_db : float or None
        White noise in place of second clips: the first clip's level over its, in dB.
    second_fold : int or None
        The fold the second clips come from; None: the test fold, as the first ones.
    explain : str
        ``predicted`` (whatever the classifier says), ``first``, ``second``, or a class.
    method : str
        A name in `l2i.explanation.METHODS`; empty: the run's own.
    seed : int
    """

    mixtures: int = 100
    pairs: tuple[tuple[str, str], ...] = ()
    gains_db: tuple[float, ...] = (0.0,)
    level: Level = "peak"
    noise_db: float | None = None
    second_fold: int | None = None
    explain: str = "predicted"
    method: str = ""
    seed: int = 0


def overlap(
    word: str,
    wanted: Overlap,
    progress: Progress,
    *,
    fold: int | None = None,
    threshold: float | None = None,
    max_components: int | None = None,
    sounds: int = 4,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Explain mixtures, and hold the explanations against what was mixed.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    wanted : Overlap
    progress : Progress
    fold : int, optional
        Where the first clips come from; by default the run's test fold.
    threshold, max_components : float, int, optional
        L2I's, instead of the run's own.
    sounds : int
        Mixtures per gain whose sounds are written.
    **where
        `out` has ``overlap.json``, ``pairs.csv`` and ``sounds/``.

    Returns
    -------
    dict
        ``conditions``: one per gain, with ``gain_db``, ``scores`` and ``intervals``;
        ``meaning``; ``mixtures``; ``run``; ``kept``, the id of the run made.

    Raises
    ------
    UsageError
        No such run, method, clip, class or fold; or no two clips that differ in class.
    """
    if wanted.method:
        METHODS[wanted.method]  # A name that is not known is told before anything is done.
    opened = open_finished(word, progress, fold=fold, **where)
    wanted = replace(wanted, method=wanted.method or opened.config.method.name)
    settings = opened.told([wanted.method], threshold, max_components, wanted.seed)
    classes = opened.classes
    carried = carried_by(opened, progress)
    firsts, seconds = drawn_pairs(opened, wanted, carried, progress)
    ask = _asked(wanted.explain, firsts, seconds, classes, carried)
    conditions: list[dict[str, Any]] = []
    tables: list[dict[str, NDArray[Any]]] = []
    gains = wanted.gains_db if wanted.noise_db is None else (wanted.noise_db,)

    with sounds_aside() as (held, put):
        for gain_db in dict.fromkeys(gains):
            name = "white noise" if wanted.noise_db is not None else f"{gain_db:+.1f} dB"
            folder = held / (
                f"noise{gain_db:g}dB" if wanted.noise_db is not None else f"gain{gain_db:+.1f}dB"
            )
            with progress.task(name, total=len(firsts), unit="mixture") as bar:
                rows = judge_scenes(
                    opened.subject,
                    wanted.method,
                    settings,
                    mixed_scenes(opened, wanted, firsts, seconds, gain_db, carried),
                    ask,
                    on_scene=bar.advance,
                    keep_sounds=sound_writer(
                        folder, classes, opened.subject.domain.sample_rate, sounds
                    ),
                )
            if not rows:
                raise UsageError("The classifier detects nothing in any of these mixtures.")
            scores, intervals = truth_scores(rows, wanted.seed, settings.metrics)
            conditions.append(
                {
                    "gain_db": gain_db,
                    "explained": len(rows["scene"]),
                    "scores": finite(scores),
                    "intervals": {k: list(v) for k, v in intervals.items()},
                }
            )
            tables.append({"gain_db": np.full(len(rows["scene"]), gain_db), **rows})
        document = {
            "mixtures": len(firsts),
            "settings": {**asdict(wanted), "fold": opened.config.dataset.fold, **asdict(settings)},
            "conditions": conditions,
            "meaning": meanings((*TRUTH_SCORES, "present", *mask_scores(settings.metrics))),
        }

        def write(folder: Path) -> None:
            write_table(folder / "pairs.csv", *tables)
            put(folder)

        return write_found(
            opened,
            "overlap",
            {**asdict(wanted), **asdict(settings), "fold": opened.config.dataset.fold},
            {
                f"{k}/gain_db_{c['gain_db']:g}" if len(conditions) > 1 else k: v
                for c in conditions
                for k, v in c["scores"].items()
                if v is not None
            },
            document,
            write,
        )


def drawn_pairs(
    opened: Opened, wanted: Overlap, carried: Carried, progress: Progress
) -> tuple[list[Clip], list[Clip]]:
    """First and second clips, as asked."""
    material = opened.material
    if wanted.pairs:
        by_id = {clip.id: clip for clip in material.dataset.clips()}
        for name in {name for pair in wanted.pairs for name in pair} - by_id.keys():
            hint = did_you_mean(name, by_id)
            raise UsageError(f"{material.card.title} has no clip {name!r}{hint}")
        test = {clip.id for clip in material.split.test}
        if trained := sorted({name for pair in wanted.pairs for name in pair} - test):
            progress.say(f"Not of the test fold, so the run may have learnt from it: {trained[0]}.")
        return [by_id[a] for a, _ in wanted.pairs], [by_id[b] for _, b in wanted.pairs]
    firsts = [clip for clip in material.split.test if carried(clip)]
    if not firsts:
        raise UsageError("The classifier detects nothing in any test clip: nothing can be mixed.")
    seconds = firsts
    if wanted.second_fold is not None and wanted.noise_db is None:
        there = [c for c in material.dataset.clips() if c.fold == wanted.second_fold]
        there = [c for c in there if carried(c)]
        if not there:
            raise UsageError(f"{material.card.title} has no clips in fold {wanted.second_fold}.")
        if wanted.second_fold != opened.config.dataset.fold:
            progress.say(
                f"The second clips are of fold {wanted.second_fold}, from which the run learnt."
            )
        seconds = there
    rng = np.random.default_rng([wanted.seed, len(firsts), len(seconds)])
    chosen: tuple[list[Clip], list[Clip]] = ([], [])
    order: list[int] = []
    while len(chosen[0]) < wanted.mixtures:
        # Every first clip once before any comes twice.
        order = order or list(rng.permutation(len(firsts)))
        first = firsts[order.pop()]
        fitting = [c for c in seconds if not carried(c) & carried(first)]
        if not fitting:
            raise UsageError(
                f"{material.card.title} has no clip without the classes of {first.id}."
            )
        chosen[0].append(first)
        chosen[1].append(fitting[int(rng.integers(len(fitting)))])
    return chosen


def carried_by(opened: Opened, progress: Progress) -> Carried:
    """What a clip carries, by the classifier's classes: its labels, where the classifier has the
    data set's classes, else what the classifier says of it alone."""
    material, clf = opened.material, opened.subject.classifier
    if material.labels([], clf.classes) is not None:
        carried = material.carried(clf.classes)
        return lambda clip: carried(clip.labels)
    progress.say(
        "The classifier has not the data set's classes: a clip carries what the classifier says of "
        "it alone."
    )
    known: dict[str, frozenset[int]] = {}

    def heard(clip: Clip) -> frozenset[int]:
        if clip.id not in known:
            x = torch.from_numpy(np.array(material.waves.array[material.rows([clip])]))
            with torch.no_grad():
                decisions = clf.decisions(clf.logits(x.to(clf.device)))[0]
            known[clip.id] = frozenset(decisions.nonzero()[:, 0].tolist())
        return known[clip.id]

    return heard


def _asked(
    explain: str,
    firsts: Sequence[Clip],
    seconds: Sequence[Clip],
    classes: Sequence[str],
    carried: Carried,
) -> Callable[[Scene, NDArray[np.bool_]], Sequence[int]]:
    if explain == "predicted":
        return predicted
    if explain in ("first", "second"):
        clips = firsts if explain == "first" else seconds
        return lambda scene, decisions: sorted(carried(clips[scene.key]))
    c = class_index(classes, explain, "The run", also="; or say predicted, first or second")
    return lambda scene, decisions: [c]


def mixed_scenes(
    opened: Opened,
    wanted: Overlap,
    firsts: Sequence[Clip],
    seconds: Sequence[Clip],
    gain_db: float | None,
    carried: Carried,
) -> Iterator[Scene]:
    """Each pair as a scene of two parts, the second with a gain, or as the first with noise."""
    array, rows = opened.material.waves.array, opened.material.rows

    def scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if wanted.level == "peak":
            return peak_normalise(torch.from_numpy(x.copy())).numpy()
        level = rms(x)
        return x if level == 0 else (x / level).astype(np.float32)

    gain = db_to_gain(gain_db or 0.0)
    for number, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        x = scaled(np.asarray(array[rows([first])[0]]))
        if wanted.noise_db is not None:
            rng = np.random.default_rng([wanted.seed, number])
            noise = coloured_noise(len(x), "white", rng) * rms(x) * db_to_gain(-wanted.noise_db)
            other = Part(noise.astype(np.float32), frozenset())
            name = f"{first.id}+noise"
        else:
            y = scaled(np.asarray(array[rows([second])[0]]))
            other = Part((gain * y).astype(np.float32), carried(second))
            name = f"{first.id}+{second.id}"
        yield Scene(name, number, (Part(x, carried(first)), other))

"""Does an explanation say what the classifier really goes by? A cue that it must go by is planted.

Every clip of one class is there twice, the second time with a beep and under another name
(`l2i.data.planted`), so that the beep alone tells the two apart. The classifier is trained on it;
whether it goes by the beep is seen when the beep is taken out again: the decision must change. On
such clips the true explanation is the beep, and nothing of the sound that it lies over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.config import Config
from l2i.data.planted import Cue, Planted
from l2i.errors import DataError, UsageError
from l2i.explanation import METHODS
from l2i.metrics import meanings
from l2i.metrics.statistics import bootstrap_interval
from l2i.recipes.measuring.figures import write_table
from l2i.recipes.measuring.truth import clip_scenes, judge_scenes
from l2i.recipes.opening.opened import Opened, open_finished, write_found
from l2i.recipes.tables.benchmark import chosen_methods
from l2i.recipes.training.train import train
from l2i.registry import class_index
from l2i.run.progress import Progress
from l2i.types import Classifier, Clip

CUE_SCORES = ("cue_kept", "rest_kept", "cue_lost", "pointing")
"""Columns whose means over clips are scores."""


def shortcut(
    config: Config,
    cue: Cue,
    progress: Progress,
    *,
    methods: Sequence[str] = (),
    limit: int | None = None,
    out: Path | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """Plant a cue, train on it, and ask methods what the classifier goes by.

    Parameters
    ----------
    config : Config
        The training's; its data set is the one that the cue is planted in.
    cue : Cue
    progress : Progress
    methods : sequence of str
        Names in `l2i.explanation.METHODS`; none: all that have what they need.
    limit : int, optional
        At most so many clips with the cue.
    out : Path, optional
        A folder for ``shortcut.json`` and ``pairs.csv``.
    keep : bool
        Whether a run is made of it, under the one that is trained.

    Returns
    -------
    dict
        ``used``: share of the test clips with the cue whose decision changes without it, of those
        that are taken for the class at all; ``with_cue``, ``without_cue``: mean probability of the
        class; ``clips``: how many are explained; ``methods``: name -> ``scores``, ``intervals`` of
        `CUE_SCORES`; ``meaning``; ``run``; ``kept``.

    Raises
    ------
    UsageError
        There is no such class or method, or the beep does not fit.
    DataError
        The classifier does not go by the cue on any clip.
    """
    for name in methods:
        METHODS[name]  # A name that is not known is told before hours.
    own = {
        "experiment": config.run.experiment or "shortcut",
        "name": config.run.name or f"{cue.dataset}-{cue.name}-cue",
    }
    done = train(config.changed(dataset={"name": cue.word}, run=own), progress)
    opened = open_finished(
        done.run_id,
        progress,
        data_dir=config.dataset.data_dir or None,
        device=config.run.device,
        precision=config.run.precision,
        keep=keep,
        out=out,
    )
    clips, heard = _by_the_cue(opened, cue, progress)
    if limit is not None:
        clips = clips[:limit]
    settings = opened.told()
    chosen = chosen_methods(methods, opened, progress)
    label = class_index(opened.classes, cue.label, "The classifier")
    groups = {clip.id: clip.group for clip in clips}
    by_method: dict[str, Any] = {}
    tables: list[dict[str, NDArray[Any]]] = []
    for name in chosen:
        with progress.task(name, total=len(clips), unit="clip") as bar:
            rows = judge_scenes(
                opened.subject,
                name,
                settings,
                clip_scenes(opened.material, clips, opened.classes),
                lambda scene, decisions: [label],
                on_scene=bar.advance,
            )
        rows["cue_kept"] = 10 ** (rows["class_left"] / 10)
        rows["rest_kept"] = 10 ** (rows["other_left"] / 10)
        rows["cue_lost"] = rows["ff_mean"]
        of = np.array([groups[i] for i in rows["scene"]])
        short = name.rpartition(":")[2]
        called = name if short in by_method else short
        by_method[called] = {
            "scores": {k: float(np.nanmean(rows[k])) for k in CUE_SCORES},
            "intervals": {
                k: list(bootstrap_interval(rows[k], seed=settings.seed, groups=of))
                for k in CUE_SCORES
            },
        }
        tables.append({"method": np.full(len(of), called), **rows})
    document = {
        "cue": asdict(cue),
        **heard,
        "clips": len(clips),
        "meaning": meanings(CUE_SCORES),
        "methods": by_method,
    }

    def write(folder: Path) -> None:
        write_table(folder / "pairs.csv", *tables)

    return write_found(
        opened,
        "shortcut",
        {"methods": chosen, "clips": len(clips), **asdict(cue), **asdict(settings)},
        {f"{m}/{k}": v for m, f in by_method.items() for k, v in f["scores"].items()} | heard,
        document,
        write,
    )


def cue_clips(data: Planted, clips: Sequence[Clip]) -> list[Clip]:
    """Those of some clips that have the cue."""
    return [clip for clip in clips if data.has_cue(clip)]


def cue_answers(
    data: Planted, classifier: Classifier, clips: Sequence[Clip]
) -> tuple[list[Clip], NDArray[np.float64]]:
    """Those of some clips that have the cue, and what the classifier says of each: probability of
    the cue's class with the cue and without, and whether it decides for it with and without
    [N, 4]."""
    place = class_index(classifier.classes, data.cue.label, "The classifier")
    clips = cue_clips(data, clips)
    answers = []
    for clip in clips:
        sounds = (data.load(clip), data.parts(clip)[data.cue.name])
        x = torch.from_numpy(np.stack(sounds)).to(classifier.device)
        with torch.inference_mode():
            logits = classifier.logits(x)
            p = classifier.probabilities(logits)[:, place].tolist()
            answers.append((*p, *classifier.decisions(logits)[:, place].tolist()))
    return clips, np.array(answers, np.float64).reshape(-1, 4)


def _by_the_cue(
    opened: Opened, cue: Cue, progress: Progress
) -> tuple[list[Clip], dict[str, float]]:
    """Test clips that are taken for the class with the beep, and no longer without it; and what
    the classifier says of all that have it."""
    data = opened.material.dataset
    if not isinstance(data, Planted):
        raise UsageError("There is no cue in this run's data.")
    clips, table = cue_answers(data, opened.subject.classifier, opened.material.split.test)
    taken, still = table[:, 2] > 0, table[:, 3] > 0
    needed = taken & ~still
    heard = {
        "used": float(needed.sum() / max(1, taken.sum())),
        "with_cue": float(table[:, 0].mean()),
        "without_cue": float(table[:, 1].mean()),
    }
    progress.say(
        f"With the beep {taken.sum()} of {len(clips)} test clips are taken for {cue.label!r}; "
        f"without it {needed.sum()} of them no longer are, and those are explained."
    )
    if not needed.any():
        raise DataError(
            f"The classifier does not go by the beep on any of {len(clips)} test clips, so that no "
            "explanation owes it anything: make it louder or longer, or train for longer."
        )
    return [clip for clip, is_needed in zip(clips, needed, strict=True) if is_needed], heard

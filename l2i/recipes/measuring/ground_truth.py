"""Explanations of clips whose parts were kept, against those parts, class by class."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from l2i.errors import UsageError
from l2i.explanation import METHODS
from l2i.metrics import meanings
from l2i.metrics.statistics import finite
from l2i.recipes.measuring.figures import sound_writer, sounds_aside, write_table
from l2i.recipes.measuring.truth import (
    TRUTH_SCORES,
    clip_scenes,
    judge_scenes,
    predicted,
    truth_scores,
)
from l2i.recipes.opening.opened import Where, open_finished, write_found
from l2i.run.progress import Progress


def ground_truth(
    word: str,
    progress: Progress,
    *,
    method: str = "",
    explain: str = "predicted",
    threshold: float | None = None,
    max_components: int | None = None,
    sounds: int = 4,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Explain the test clips of a run, and hold the explanations against the clips' parts.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``; of a data set that knows the parts of its clips.
    progress : Progress
    method : str
        A name in `l2i.explanation.METHODS`.
    explain : {'predicted', 'labels'}
        What the classifier says, or what is there.
    threshold, max_components : float, int, optional
        L2I's, instead of the run's own.
    sounds : int
        Clips whose sounds are written.
    **where
        `out` has ``ground-truth.json``, ``pairs.csv`` and ``sounds/``.

    Returns
    -------
    dict
        ``scores``, ``intervals``, ``per_class``: class -> scores and ``explained``, the number
        of explanations; ``meaning``; ``clips``; ``run``; ``kept``.

    Raises
    ------
    UsageError
        The data set does not know the parts of its clips.
    """
    if method:
        METHODS[method]  # A name that is not known is told before anything is done.
    opened = open_finished(word, progress, **where)
    material = opened.material
    method = method or opened.config.method.name
    clips = material.split.test
    if not material.dataset.parts(clips[0]):
        raise UsageError(
            f"Nobody knows the parts of {material.card.title}'s clips: ground truth is to be had "
            "of runs on demo and demo-multilabel ('l2i overlap' mixes clips of any data set)."
        )
    settings = opened.told([method], threshold, max_components)
    labels = {clip.id: clip.labels for clip in clips}
    classes = opened.classes
    with sounds_aside() as (held, put):
        with progress.task("explanations", total=len(clips), unit="clip") as bar:
            rows = judge_scenes(
                opened.subject,
                method,
                settings,
                clip_scenes(material, clips, classes),
                predicted if explain == "predicted" else lambda scene, _: labels[scene.id],
                on_scene=bar.advance,
                keep_sounds=sound_writer(held, classes, opened.subject.domain.sample_rate, sounds),
            )
        if not rows:
            raise UsageError("The classifier detects nothing in any test clip.")
        scores, intervals = truth_scores(rows, settings.seed, settings.metrics)
        per_class: dict[str, dict[str, float | None]] = {}
        for name in classes:
            mine = rows["class"] == name
            if mine.any():
                figures, _ = truth_scores(
                    {k: v[mine] for k, v in rows.items()}, settings.seed, settings.metrics
                )
                per_class[name] = {"explained": int(mine.sum()), **finite(figures)}
        document = {
            "clips": len(clips),
            "method": method,
            "explained": len(rows["scene"]),
            "scores": finite(scores),
            "intervals": {k: list(v) for k, v in intervals.items()},
            "per_class": per_class,
            "meaning": meanings(scores),
        }

        def write(folder: Path) -> None:
            write_table(folder / "pairs.csv", rows)
            put(folder)

        return write_found(
            opened,
            "ground-truth",
            {"method": method, "explain": explain, **asdict(settings)},
            scores
            | {
                f"{k}/{name}": v
                for name, figures in per_class.items()
                for k in TRUTH_SCORES
                if (v := figures[k]) is not None
            },
            document,
            write,
        )

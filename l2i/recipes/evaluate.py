"""Measure a run again, on the test clips of its fold; the run itself is left as it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from l2i.explanation import METHODS, MethodSettings
from l2i.metrics import METRICS
from l2i.recipes.figures import document, write_evaluation
from l2i.recipes.measure import MASK_SCORES, evaluate_clips
from l2i.recipes.opened import open_finished
from l2i.recipes.truth import TRUTH_SCORES, clip_scenes, judge_scenes, said, table_of, truth_scores
from l2i.run.progress import Progress
from l2i.storage import atomic_write_text, store_errors

__all__ = ["evaluate"]


def evaluate(
    word: str,
    progress: Progress,
    *,
    method: str = "l2i",
    data_dir: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    threshold: float | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Figures of a finished run on its test clips.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    method : str
        Of `l2i.explanation.METHODS`. Another one than ``l2i`` has the figures that any mask
        has, and no others.
    data_dir : str, optional
        Where the data lie now; by default where they lay when the run was made.
    device, precision : str
    threshold : float, optional
        tau for removal, instead of the run's own.
    out : Path, optional
        A folder for ``scores.json``, ``clips.csv``, ``confusion_matrix.png``,
        ``faithfulness.png`` and ``figures.html``.

    Returns
    -------
    dict
        ``run``, and what ``scores.json`` holds.
    """
    METHODS[method]
    opened = open_finished(
        word, progress, data_dir=data_dir, device=device, precision=precision, out=out
    )
    material, config = opened.material, opened.config
    settings = config.explanation
    if threshold is not None:
        settings = settings.model_copy(update={"faithfulness_threshold": threshold})
    test = material.split.test
    run = {"id": opened.run.id, "name": opened.run.name}
    if method == "l2i":
        evaluation = evaluate_clips(
            opened.explainer,
            material.waves.array,
            material.rows(test),
            material.targets(test).numpy().astype(np.bool_),
            settings,
            seed=config.run.seed,
            progress=progress,
        )
        if out is not None:
            with store_errors(out):
                classes = opened.explainer.classifier.classes
                title = f"{opened.run.name}, measured again"
                write_evaluation(evaluation, test, classes, out, title=title)
        return {"run": run, "method": method, **document(evaluation)}

    told = MethodSettings(
        settings.threshold if threshold is None else threshold,
        settings.max_components,
        config.run.seed,
    )
    with progress.task(method, total=len(test), unit="clip") as bar:
        rows = judge_scenes(
            opened.explainer, method, told, clip_scenes(material, test), said, on_scene=bar.advance
        )
    scores, intervals = truth_scores(rows, told.seed)
    found = {
        "clips": len(test),
        "task": str(material.card.task),
        "scores": {k: scores[k] if np.isfinite(scores[k]) else None for k in MASK_SCORES},
        "intervals": {k: list(v) for k, v in intervals.items() if k in MASK_SCORES},
        "meaning": {k: asdict(METRICS[k]) for k in MASK_SCORES},
    }
    if out is not None:
        with store_errors(out):
            dropped = (*TRUTH_SCORES, "present")
            named = {"clip" if k == "scene" else k: v for k, v in rows.items() if k not in dropped}
            table_of(named, out / "clips.csv")
            text = json.dumps(found, indent=2, ensure_ascii=False)
            atomic_write_text(out / "scores.json", text + "\n")
    return {"run": run, "method": method, **found}

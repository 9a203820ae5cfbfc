"""Measure a run again, on the test clips of its fold; the run itself is left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from l2i.recipes.bundle import open_bundle
from l2i.recipes.material import prepare
from l2i.recipes.measure import document, evaluate_clips, write_evaluation
from l2i.run.device import pick_device, seed_everything, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run

__all__ = ["evaluate"]


def evaluate(
    word: str,
    progress: Progress,
    *,
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
    data_dir : str, optional
        Where the data lie now; by default where they lay when the run was made.
    device, precision : str
    threshold : float, optional
        tau for removal, instead of the run's own.
    out : Path, optional
        A folder for ``scores.json``, ``clips.csv`` and ``confusion_matrix.png``.

    Returns
    -------
    dict
        ``run``, and what ``scores.json`` holds.
    """
    run = resolve_run(word)
    threads = run.tags.get("l2i.threads", "")
    set_threads(int(threads) if threads.isdigit() else 0)
    place, dtype, sentences = pick_device(device, precision)
    for sentence in sentences:
        progress.say(sentence)
    config, explainer = open_bundle(run, place, dtype)
    if data_dir:
        config = config.model_copy(
            update={"dataset": config.dataset.model_copy(update={"data_dir": data_dir})}
        )
    settings = config.explanation
    if threshold is not None:
        settings = settings.model_copy(update={"faithfulness_threshold": threshold})
    seed_everything(config.run.seed)
    material = prepare(config, progress)
    test = material.split.test
    if material.digest != run.tags.get("l2i.data_digest", material.digest):
        progress.say("The clips are not those that the run was made with; the figures may differ.")
    evaluation = evaluate_clips(
        explainer,
        material.waves.array,
        material.rows(test),
        material.targets(test).numpy().astype(np.bool_),
        settings,
        seed=config.run.seed,
        progress=progress,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_evaluation(evaluation, test, explainer.classifier.classes, out)
    return {"run": {"id": run.id, "name": run.name}, **document(evaluation)}

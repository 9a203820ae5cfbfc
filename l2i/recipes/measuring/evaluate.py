"""Measure a run again, on the test clips of its fold; the run itself is left as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from l2i.config import Config
from l2i.explanation import METHODS, MethodSettings, Subject, check_heeded, make_method, part_names
from l2i.metrics.doubts import class_doubts, run_doubts, weak_classes
from l2i.recipes.measuring.figures import document, write_evaluation
from l2i.recipes.measuring.measure import Evaluation, beside, evaluate_clips
from l2i.recipes.measuring.truth import clip_scenes, evaluate_method
from l2i.recipes.opening.bundle import explainer_of
from l2i.recipes.opening.material import Material
from l2i.recipes.opening.opened import Where, open_finished, write_found
from l2i.run.progress import Progress


def evaluate(
    word: str,
    progress: Progress,
    *,
    method: str = "",
    threshold: float | None = None,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Figures of a finished run on its test clips.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    method : str
        A name in `l2i.explanation.METHODS`; empty: the run's own. Another one than ``l2i`` has the
        figures that any mask has, and no others.
    threshold : float, optional
        tau for removal, instead of the run's own.
    **where
        `out` has ``scores.json``, ``clips.csv``, ``confusion_matrix.png`` and ``figures.html``.

    Returns
    -------
    dict
        ``run``, ``method``, ``kept``, and what ``scores.json`` holds.
    """
    if method:
        METHODS[method]  # A name that is not known is told before anything is done.
    opened = open_finished(word, progress, **where)
    material, config = opened.material, opened.config
    method = method or config.method.name
    if "interpreter" not in part_names(METHODS[method]):  # Else the published rule is judged, too.
        check_heeded([method], threshold=threshold)
    evaluation = evaluate_run(
        opened.subject, config, material, progress, method=method, threshold=threshold
    )
    title = f"{opened.run.name}, measured again"
    made = write_found(
        opened,
        "evaluate",
        {"method": method, **({} if threshold is None else {"threshold": threshold})},
        evaluation.scores,
        None,
        lambda to: write_evaluation(evaluation, material, opened.classes, to, title=title),
    )
    return {"run": made["run"], "method": method, "kept": made["kept"], **document(evaluation)}


def evaluate_run(
    subject: Subject,
    config: Config,
    material: Material,
    progress: Progress,
    *,
    method: str = "",
    threshold: float | None = None,
) -> Evaluation:
    """Figures of a method on the test clips of a run.

    Parameters
    ----------
    subject : Subject
    config : Config
    material : Material
    progress : Progress
    method : str
        Empty: the run's own.
    threshold : float, optional
        tau for removal, instead of the run's own; of other methods than L2I, all that they have.
    """
    method, clips = method or config.method.name, material.split.test
    labels = material.labels(clips, subject.classifier.classes)
    settings, seed = config.explanation, config.run.seed
    tau = settings.threshold if threshold is None else threshold
    told = MethodSettings(tau, settings.max_components, seed, tuple(settings.metrics))
    if threshold is not None:
        settings = settings.model_copy(update={"faithfulness_threshold": threshold})
    make_method(method, subject, told)  # What it lacks is told before anything is heard.
    published = None
    if "interpreter" in part_names(METHODS[method]):
        published = evaluate_clips(
            explainer_of(subject),
            material.waves.array,
            material.rows(clips),
            labels,
            settings,
            seed=seed,
            progress=progress,
        )
    evaluation = published
    if evaluation is None or method != "l2i":
        scenes = list(clip_scenes(material, clips, subject.classifier.classes))
        evaluation = evaluate_method(subject, method, told, scenes, labels, progress=progress)
        if published is not None:
            evaluation = beside(evaluation, published)
    task = subject.classifier.task
    warnings = run_doubts(evaluation.scores, evaluation.logits, labels, task, settings.warn)
    warnings += class_doubts(evaluation.per_class, settings.warn)
    weak = weak_classes(evaluation.per_class, settings.warn)
    return replace(evaluation, warnings=warnings, weak_classes=weak)

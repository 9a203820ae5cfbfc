"""A training's figures, tables, pictures and sounds, as files and in the store."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from l2i.config import Config
from l2i.data.split import spread
from l2i.explanation import Subject
from l2i.metrics.labels import doubted_labels
from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.measuring.figures import write_evaluation
from l2i.recipes.measuring.measure import Evaluation
from l2i.recipes.opening.bundle import MODEL
from l2i.recipes.opening.description import DESCRIPTION, describe_model, main_figures
from l2i.recipes.opening.material import LISTING, Material
from l2i.recipes.publishing.examples import write_examples
from l2i.recipes.publishing.served import write_model
from l2i.run.progress import Progress
from l2i.run.tracker import Tracker
from l2i.storage import write_csv, write_json
from l2i.types import Clip, Task

# The run's tag: a sentence a line.
WARNINGS = "l2i.warnings"
# Why the page shows a clip.
_WRONG = "one of the surest mistakes"
_WEAK = "its class falls least without the explanation"
_SPREAD = "one of its class"


def publish(
    config: Config,
    material: Material,
    run: Tracker,
    bundle: Path,
    subject: Subject,
    evaluation: Evaluation,
    stages: Sequence[str],
    progress: Progress,
) -> None:
    """Figures, tables, pictures and sounds: to the run's folder, then to the store."""
    from l2i import plots

    out = run.folder / "artifacts"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    write_csv(out / LISTING, material.listing())
    told = write_model(bundle, config, out / MODEL)
    split = material.split
    documents = {name: load_checkpoint(bundle / f"{name}.safetensors", name)[1] for name in stages}
    histories = {name: document["history"] for name, document in documents.items()}
    kept = {name: document["epoch"] for name, document in documents.items() if "epoch" in document}
    classes = subject.classifier.classes
    chosen = telling(evaluation, split.test, config.output.clips)
    write_evaluation(
        evaluation,
        material,
        classes,
        out,
        title=run.name,
        histories=histories,
        kept=kept,
        heard=[index for index, _ in chosen],
    )
    plots.training_curves(histories, out / "training_curves.png", kept)
    if "dictionary" in subject.parts:
        w = subject.parts["dictionary"].cpu().numpy()
        plots.dictionary(w, subject.domain, out / "dictionary.png")
    with progress.task("explanations", total=len(chosen), unit="clip") as bar:
        write_examples(
            subject,
            config.method.name,
            material.waves.array,
            material.rows(split.test),
            split.test,
            config.explanation,
            chosen,
            out / "explanations",
            on_clip=lambda: bar.advance(1),
            title=f"{run.name}: explanations",
            labels=material.label_names(split.test),
            known=material.labels(split.test, classes),
            summary=main_figures(evaluation.scores),
        )
    write_json(out / "provenance.json", {"data": material.identity, "config": config.signature()})
    run.final({f"test/{k}": v for k, v in evaluation.scores.items() if math.isfinite(v)})
    run.artifact(out)
    if evaluation.warnings:
        told[WARNINGS] = "\n".join(evaluation.warnings)
    tested_on = f"fold {config.dataset.fold}" if material.card.folds else "its test split"
    told[DESCRIPTION] = describe_model(
        what=f"{material.card.title}, tested on {tested_on}, seed {config.run.seed}",
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        clips=len(split.test),
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        listen=config.output.clips > 0,
        warnings=evaluation.warnings,
    )
    run.tags(told)
    # They are in the store now, and the stages keep what another run could use.
    shutil.rmtree(run.folder, ignore_errors=True)


def telling(e: Evaluation, clips: Sequence[Clip], n: int) -> list[tuple[int, str]]:
    """Which clips a run's page shows, at most `n`: their indices, and why each is there.

    A dozen of hundreds of clips are looked at, and those of the test list's begin tell the least.
    So up to a third are mistakes, the surest first (`l2i.metrics.labels`); up to another third are
    those whose class falls least when the explanation is removed; all others are spread over the
    classes.

    Parameters
    ----------
    e : Evaluation
    clips : sequence of Clip
        Those of `e`, in its order.
    n : int
    """
    n = min(n, len(clips))
    third = -(-n // 3)
    chosen = dict.fromkeys(_surest_mistakes(e)[:third], _WRONG)
    weak = [i for i in _least_faithful(e) if i not in chosen]
    chosen |= dict.fromkeys(weak[: min(third, n - len(chosen))], _WEAK)
    rest = [i for i in range(len(clips)) if i not in chosen]
    fill = spread([clips[i] for i in rest], n - len(chosen))
    return list((chosen | {rest[k]: _SPREAD for k in fill}).items())


def _surest_mistakes(e: Evaluation) -> list[int]:
    """Clips whose label the classifier contradicts, in the order of ``labels.csv``."""
    if e.labels is None:
        return []
    p = softmax(e.logits, axis=1) if e.task is Task.SINGLE_LABEL else expit(e.logits)
    clips, classes = ([str(i) for i in range(n)] for n in p.shape)
    table = doubted_labels(p, e.decisions, e.labels, e.task, clips, classes)
    return [int(i) for i in table["clip"].unique()]


def _least_faithful(e: Evaluation) -> list[int]:
    """Clips with an explanation, by how much the class falls when it is removed, in the mean of
    its classes; the least first."""
    # FF is of what is heard; where that is not measured, the published rule's removal.
    falls = e.pairs.get("ff_mean", e.pairs.get("fall_probability"))
    if falls is None:
        return []
    of: dict[int, list[float]] = {}
    for clip, fall in zip(e.pairs["clip"], falls, strict=True):
        of.setdefault(int(clip), []).append(float(fall))
    return sorted(of, key=lambda clip: (float(np.mean(of[clip])), clip))

"""Who judges explanations and was not in the loop: another run's classifier, or a tuned one."""

from __future__ import annotations

from typing import Unpack

from l2i.errors import UsageError
from l2i.models.checkpoint import load_checkpoint
from l2i.models.classifier import FrozenClassifier
from l2i.models.vgg import VGG
from l2i.recipes.measuring.probes import Evaluator
from l2i.recipes.measuring.tuned import tuned_on_masks
from l2i.recipes.opening.bundle import WEIGHTS, build_network, open_bundle
from l2i.recipes.opening.opened import Opened, Where
from l2i.run.artifacts import download
from l2i.run.device import pick_device
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run

__all__ = ["TUNED", "open_evaluator"]

TUNED = "random-masks"
"""The run's own classifier, fine-tuned on random masks."""


def open_evaluator(
    opened: Opened, word: str, progress: Progress, **where: Unpack[Where]
) -> Evaluator:
    """The classifier of another run, or the run's own after random masks, as a probe."""
    own = opened.subject.classifier
    if word == TUNED:
        if not isinstance(own, FrozenClassifier):
            raise UsageError(
                "Only the built-in classifier can be fine-tuned on random masks: give another run "
                "as the evaluator."
            )
        material = opened.material
        rows = material.rows(material.split.train)
        seed = opened.config.run.seed
        network = _network(opened)
        waves = material.waves.array
        tuned = tuned_on_masks(own, network, waves, rows, seed=seed, progress=progress)
        return Evaluator(tuned, own)
    run = resolve_run(word)
    if run.id == opened.run.id:
        raise UsageError(
            f"The evaluator {run.name} ({run.id[:8]}) is the run itself, which was in the loop: "
            "give a run with another seed."
        )
    place, dtype, _ = pick_device(where.get("device", "auto"), where.get("precision", "float32"))
    config, subject = open_bundle(run, place, dtype)
    mine, other = opened.config.dataset, config.dataset
    if (mine.name, mine.fold) != (other.name, other.fold):
        progress.say(
            f"The evaluator was trained on {other.name}, fold {other.fold}, and these are the test "
            f"clips of {mine.name}, fold {mine.fold}: it may have learnt from them."
        )
    return Evaluator(subject.classifier, own)


def _network(opened: Opened) -> VGG:
    """The run's own network, as it was trained."""
    path = download(opened.run, WEIGHTS) / "classifier.safetensors"
    return build_network(*load_checkpoint(path, "classifier"), path)

"""The whole method on one fold: classifier -> dictionary -> interpreter -> figures -> sounds.

Each part is a stage that survives a crash (see `stage`); the same command again goes on from the
last finished epoch, in the same MLflow run. What is done in them is in `fit_classifier`,
`fit_dictionary` and `fit_interpreter`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from l2i.config import Config
from l2i.data import refuse_folder
from l2i.data.base import class_counts, listed
from l2i.errors import CheckpointError
from l2i.explanation import Explainer
from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.bundle import MODEL, build_classifier, build_explainer
from l2i.recipes.checkpoints import keep_checkpoints
from l2i.recipes.description import DESCRIPTION, describe_model
from l2i.recipes.examples import write_examples
from l2i.recipes.figures import write_evaluation
from l2i.recipes.fit_classifier import (
    check_classifier,
    fit_classifier,
    same_data,
    training_precision,
)
from l2i.recipes.fit_dictionary import check_dictionary, fit_dictionary
from l2i.recipes.fit_interpreter import fit_interpreter
from l2i.recipes.listing import IDENTITY, data_differences, write_listing
from l2i.recipes.material import Material, prepare
from l2i.recipes.measure import Evaluation, evaluate_clips
from l2i.recipes.served import write_model
from l2i.recipes.stage import Stage, open_stage
from l2i.run import provenance
from l2i.run.device import pick_device, seed_everything, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import adopt, register
from l2i.run.tracker import RunInfo, Tracker, find_finished, open_run
from l2i.types import Clip

__all__ = ["Outcome", "train"]


@dataclass(frozen=True)
class Outcome:
    """What `train` gives back: the finished run, and whether it was there already."""

    run_id: str
    name: str
    experiment: str
    scores: dict[str, float]
    resumed: bool = False
    found: bool = False


def train(
    config: Config,
    progress: Progress,
    *,
    again: bool = False,
    parent: str = "",
    register_as: str = "",
    owner: str = "",
    marks: Mapping[str, str] | None = None,
) -> Outcome:
    """Train, measure and explain; everything is kept as one MLflow run.

    Parameters
    ----------
    config : Config
    progress : Progress
    again : bool
        Make a new run even where a finished one has the same signature. Finished stages are
        reused all the same: they would come out equal.
    parent : str
        The id of a run to lie under.
    register_as : str
        Name of a registered model, of which this run's model becomes a version.
    owner : str
        See `l2i.run.tracker.open_run`.
    marks : mapping, optional
        More tags of the run, be it trained or found.

    Returns
    -------
    Outcome
    """
    refuse_folder(config.dataset.name, config.dataset.data_dir)
    threads = set_threads(config.run.threads)
    device, dtype, sentences = pick_device(config.run.device, config.run.precision)
    learns_in, more = training_precision(config, device, dtype)
    sentences = [*sentences, *more]
    seed_everything(config.run.seed)
    material = prepare(config, progress)
    experiment = config.run.experiment or config.dataset.name
    weights = _weights_digest(config)
    signature = _sign(config.signature(), material.identity, weights)
    if not again and (done := find_finished(experiment, signature)) is not None:
        adopt(done, parent, marks)
        if register_as:
            register(done, register_as, MODEL)
        return _found(done)
    _say_if_other_data(config, material, experiment, weights, progress)
    check_classifier(config, material)
    check_dictionary(config, material)
    name = config.run.name or f"{config.dataset.name}-fold{config.dataset.fold}-{signature[:6]}"
    tags = provenance.tags(device) | {
        "l2i.kind": "train",
        "l2i.dataset": config.dataset.name,
        "l2i.fold": str(config.dataset.fold),
        "l2i.config": config.signature(),
        "l2i.data_digest": material.digest,
        IDENTITY: material.identity,
        "l2i.threads": str(threads),
        **({"mlflow.parentRunId": parent} if parent else {}),
        **(marks or {}),
    }
    with (
        open_run(
            experiment=experiment,
            name=name,
            signature=signature,
            tags=tags,
            params=config.flat(),
            resume=not again,
            owner=owner,
            on_away=progress.say,
        ) as run,
        keep_checkpoints(run, config.run.checkpoint_minutes, progress) as kept,
    ):
        for sentence in sentences:
            progress.say(sentence)
        word = "Resuming" if run.resumed else "Run"
        progress.say(f"{word} {run.name} ({run.run_id[:8]}) of experiment {experiment}.")
        source = material.card.homepage or material.card.title
        run.input(config.dataset.name, material.identity, source)
        split = material.split
        progress.say(
            f"{material.card.title}: {len(split.train)} clips train, {len(split.validate)} "
            f"choose the epoch, {len(split.test)} test."
        )
        counts = class_counts(material.card.classes, (*split.train, *split.validate, *split.test))
        words = listed((f"{name} {n}" for name, n in counts.items()), 12)
        progress.say(f"{len(counts)} classes, clips of each: {words}.")
        work = run.folder.parent
        bundle = run.folder / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)

        stages = {
            k: _sign(config.signature(k), material.training_identity, _weights_digest(config, k))
            for k in _STAGES
        }
        if fetched := kept.fetch(stages):
            progress.say(f"Fetched the checkpoint of an earlier attempt: {fetched}.")
            run.tags({"l2i.resumed_from": fetched})

        def hold(name: str) -> AbstractContextManager[Stage]:
            return open_stage(name, stages[name], work, run, progress, kept.saved)

        with hold("classifier") as stage:
            if not stage.result.exists():
                fit_classifier(config, material, stage, device, learns_in, progress)
            tensors, document = stage.load()
            classifier = build_classifier(tensors, document, stage.result, device, dtype)
            shutil.copy2(stage.result, bundle)
        same_data(classifier, material, stage.result)

        with hold("dictionary") as stage:
            if not stage.result.exists():
                fit_dictionary(config, material, stage, device, progress)
            tensors, _ = stage.load()
            w = tensors["W"].to(device)
            shutil.copy2(stage.result, bundle)

        with hold("interpreter") as stage:
            if not stage.result.exists():
                fit_interpreter(config, material, classifier, w, stage, device, dtype, progress)
            stage.load()
            shutil.copy2(stage.result, bundle)
        explainer = build_explainer(bundle, device, dtype)

        evaluation = evaluate_clips(
            explainer,
            material.waves.array,
            material.rows(split.test),
            material.targets(split.test).numpy().astype(bool),
            config.explanation,
            seed=config.run.seed,
            progress=progress,
        )
        _publish(config, material, run, bundle, explainer, evaluation, progress)
        if register_as:
            run.register(register_as, MODEL)
        kept.done()
        return Outcome(run.run_id, run.name, experiment, evaluation.scores, run.resumed)


_STAGES = ("classifier", "dictionary", "interpreter")


def _sign(signature: str, data: str, weights: str) -> str:
    """A config's signature together with its data's identity and the content of its weights."""
    words = f"{signature} {data} {weights}"
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _say_if_other_data(
    config: Config, material: Material, experiment: str, weights: str, progress: Progress
) -> None:
    """Name the finished run of the same settings that one may have expected to find."""
    former = find_finished(experiment, config.signature(), tag="l2i.config")
    if former is not None and (different := data_differences(material, former)):
        progress.say(
            f"The data are not those of run {former.name} ({former.id[:8]}): {different}. A run "
            "of their own is made."
        )
    elif material.identity != material.digest:
        # As earlier versions signed: by the sounds alone.
        older = find_finished(experiment, _sign(config.signature(), material.digest, weights))
        if older is not None:
            progress.say(
                f"Run {older.name} ({older.id[:8]}) has these settings and sounds, but an earlier "
                "version made it, which did not record labels and split: a new run is made."
            )


def _weights_digest(config: Config, stage: str = "interpreter") -> str:
    """Of the files of weights that a stage depends on, by default the last one and so all.

    Another file under the same name is another experiment.
    """
    c = config.classifier
    named = {
        "classifier": (c.weights, c.audioset_weights),
        "dictionary": (config.dictionary.weights,),
    }
    found = []
    for part, words in named.items():
        for word in words:
            if word and stage in (part, "interpreter"):
                path = Path(word)
                if not path.is_file():
                    raise CheckpointError(f"There are no {part} weights at {path}.")
                with path.open("rb") as file:
                    found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(found)


def _found(done: RunInfo) -> Outcome:
    scores = {k.removeprefix("test/"): v for k, v in done.metrics.items() if k.startswith("test/")}
    return Outcome(done.id, done.name, done.experiment, scores, found=True)


def _description(
    config: Config,
    material: Material,
    run: Tracker,
    evaluation: Evaluation,
    test: Sequence[Clip],
) -> str:
    d = config.dataset
    split = f"fold {d.fold}" if material.card.folds else "its test split"
    return describe_model(
        what=f"{material.card.title}, tested on {split}, seed {config.run.seed}",
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        clips=len(test),
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        listen=config.output.clips > 0,
    )


def _publish(
    config: Config,
    material: Material,
    run: Tracker,
    bundle: Path,
    explainer: Explainer,
    evaluation: Evaluation,
    progress: Progress,
) -> None:
    """Figures, tables, pictures and sounds: to the run's folder, then to the store."""
    from l2i import plots

    out = run.folder / "artifacts"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    write_listing(material, out)
    told = write_model(bundle, config, out / MODEL)
    split = material.split
    documents = {name: load_checkpoint(bundle / f"{name}.safetensors", name)[1] for name in _STAGES}
    histories = {name: document["history"] for name, document in documents.items()}
    kept = {name: document["epoch"] for name, document in documents.items() if "epoch" in document}
    classes = explainer.classifier.classes
    write_evaluation(
        evaluation,
        split.test,
        classes,
        out,
        title=run.name,
        histories=histories,
        kept=kept,
    )
    plots.training_curves(histories, out / "training_curves.png", kept)
    plots.dictionary(explainer.w.cpu().numpy(), explainer.settings, out / "dictionary.png")
    with progress.task("explanations", total=config.output.clips, unit="clip") as bar:
        write_examples(
            explainer,
            material.waves.array,
            material.rows(split.test),
            split.test,
            config.explanation,
            config.output.clips,
            out / "explanations",
            on_clip=lambda: bar.advance(1),
            title=f"{run.name}: explanations",
        )
    (out / "provenance.json").write_text(
        json.dumps({"data": material.identity, "config": config.signature()}, indent=2) + "\n",
        encoding="utf-8",
    )
    run.final({f"test/{k}": v for k, v in evaluation.scores.items() if math.isfinite(v)})
    run.artifacts(out)
    run.tags(told | {DESCRIPTION: _description(config, material, run, evaluation, split.test)})
    # They are in the store now, and the stages keep what another run could use.
    shutil.rmtree(run.folder, ignore_errors=True)

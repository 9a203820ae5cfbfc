"""The whole method on one fold: classifier -> dictionary -> interpreter -> figures -> sounds.

Classifier and parts are stages that survive a crash (see `l2i.training`); the same command again
goes on from the last finished epoch, in the same MLflow run. With a classifier of the user's
own nothing is trained but the parts, and the run keeps how it is loaded.

Over 300 lines: one recipe, to be read from top to bottom.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from l2i.config import Config
from l2i.data import DATASETS, refuse_folder
from l2i.data.base import class_counts, listed
from l2i.errors import CheckpointError, ConfigError, StoreError
from l2i.explanation import Subject, check_gradients
from l2i.metrics.own import own_digest, own_metrics
from l2i.models.spec import Loaded, keep_classifier, open_classifier
from l2i.recipes.measuring.evaluate import evaluate_run
from l2i.recipes.opening.bundle import MODEL, build_classifier, keep_method
from l2i.recipes.opening.material import (
    IDENTITY,
    Material,
    data_differences,
    data_name,
    heard_by,
    prepare,
)
from l2i.recipes.publishing.results import WARNINGS, publish
from l2i.recipes.training.checkpoints import keep_checkpoints
from l2i.recipes.training.fit_classifier import (
    check_classifier,
    fit_classifier,
    same_data,
    training_precision,
)
from l2i.registry import METHODS, did_you_mean
from l2i.run import provenance
from l2i.run.artifacts import download
from l2i.run.device import pick_device, seed_everything, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import adopt, find_finished, register
from l2i.run.search import RunInfo
from l2i.run.tracker import open_run
from l2i.training.parts import Context, Part, check_parts, parts_of
from l2i.training.stage import Stage, open_stage
from l2i.types import Classifier


@dataclass(frozen=True)
class Outcome:
    """What `train` gives back: the finished run, and whether it was there already."""

    run_id: str
    name: str
    experiment: str
    scores: dict[str, float]
    resumed: bool = False
    finished_before: bool = False
    warnings: tuple[str, ...] = ()
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)


def train(
    config: Config,
    progress: Progress,
    *,
    again: bool = False,
    from_scratch: bool = False,
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
    from_scratch : bool
        The same, with all stages trained anew.
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
    parts = parts_of(config.method.name)
    settings = part_settings(config, parts)
    own_metrics(config.explanation.metrics)  # One that is not there is told before hours.
    loaded = open_classifier(config.classifier.spec) if config.classifier.spec else None
    if loaded is not None:
        check_gradients(config.method.name, loaded.classifier, "say --method l2i")
        config = heard_by(config, loaded)
    threads = set_threads(config.run.threads)
    device, dtype, sentences = pick_device(config.run.device, config.run.precision)
    learns_in = dtype
    if loaded is None:
        learns_in, more = training_precision(config, device, dtype)
        sentences = [*sentences, *more]
    seed_everything(config.run.seed)
    material = prepare(config, progress, own=loaded is None)
    experiment = config.run.experiment or config.dataset.name
    weights = _weights_digest(config, loaded)
    signature = _sign(config.signature(), material.identity, weights)
    again = again or from_scratch
    if not again and (done := find_finished(experiment, signature)) is not None:
        adopt(done, parent, marks)
        if register_as:
            register(done, register_as, MODEL)
        return _finished_before(done)
    _say_if_other_data(config, material, experiment, weights, progress)
    if loaded is None:
        check_classifier(config, material)
    known = material.card.classes if loaded is None else tuple(loaded.classifier.classes)
    sounds = replace(material.sounds(), known=known)
    check_parts(parts, settings, sounds, material.domain, device)
    own_name = "" if loaded is None else f"{loaded.word}-"
    name = config.run.name or f"{own_name}{data_name(config, material)}-{signature[:6]}"
    tags = provenance.tags(device) | {
        "l2i.kind": "train",
        "l2i.dataset": config.dataset.name,
        "l2i.fold": str(config.dataset.fold),
        "l2i.config": config.signature(),
        "l2i.data_digest": material.digest,
        IDENTITY: material.identity,
        "l2i.threads": str(threads),
        "l2i.method": config.method.name,
        **(
            {"l2i.classifier": loaded.spec, "l2i.classifier_digest": loaded.digest}
            if loaded is not None
            else {}
        ),
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
        every = (*split.train, *split.validate, *split.test)
        if counts := class_counts(material.card.classes, every):
            words = listed((f"{name} {n}" for name, n in counts.items()), 12)
            progress.say(f"{len(counts)} classes, clips of each: {words}.")
        if loaded is not None:
            _say_classifier(loaded, material, progress)
        work = run.folder.parent
        bundle = run.folder / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)

        stages = {
            k: _sign(
                config.signature(k),
                material.training_identity,
                _weights_digest(config, loaded, stage=k),
            )
            for k in (*(("classifier",) if loaded is None else ()), *(p.name for p in parts))
        }
        if fetched := kept.fetch(stages):
            progress.say(f"Fetched the checkpoint of an earlier attempt: {fetched}.")
            run.tags({"l2i.resumed_from": fetched})

        @contextmanager
        def hold(name: str) -> Iterator[Stage]:
            with open_stage(
                name, stages[name], work, progress, on_figures=run.metrics, on_save=kept.saved
            ) as stage:
                if from_scratch:
                    stage.begin_anew()
                number = list(stages).index(name) + 1
                before = ", finished before" if stage.result.exists() else ""
                progress.say(f"Stage {number} of {len(stages)}: {name}{before}.")
                yield stage

        classifier: Classifier
        if loaded is None:
            with hold("classifier") as stage:
                if not stage.result.exists():
                    fit_classifier(config, material, stage, device, learns_in, progress)
                tensors, document = stage.load()
                built = build_classifier(tensors, document, stage.result, device, dtype)
                shutil.copy2(stage.result, bundle)
            same_data(built, material, stage.result)
            classifier = built
        else:
            classifier = loaded.classifier
            keep_classifier(loaded, bundle)
        keep_method(config, bundle)
        context = Context(
            classifier, material.domain, sounds, config.run.seed, device, dtype, progress
        )
        for part in parts:
            with hold(part.name) as stage:
                if not stage.result.exists():
                    part.fit(settings[part.name], context, stage)
                tensors, document = stage.load()
                learnt = part.load(tensors, document, stage.result, context)
                shutil.copy2(stage.result, bundle)
            context = replace(context, parts={**context.parts, part.name: learnt})
        subject = Subject(classifier, material.domain, context.parts)
        evaluation = evaluate_run(subject, config, material, progress)
        publish(config, material, run, bundle, subject, evaluation, list(stages), progress)
        if register_as:
            run.register(register_as, MODEL)
        kept.done()
        return Outcome(
            run.run_id,
            run.name,
            experiment,
            evaluation.scores,
            run.resumed,
            warnings=tuple(evaluation.warnings),
            intervals=evaluation.intervals,
        )


def part_settings(config: Config, parts: Sequence[Part]) -> dict[str, Any]:
    """The settings of each part: a section of its own, or the table ``[parts.<name>]``.

    Raises
    ------
    ConfigError
        A table is for no part of this method, or has a setting that the part has not.
    """
    names = [part.name for part in parts]
    own = [name for name in names if name not in type(config).model_fields]
    problems = []
    for name in config.parts:
        if name not in own:
            hint = did_you_mean(name, own)
            problems.append(
                f"There is no part {name!r} of method {config.method.name!r}: [parts.{name}]{hint}"
            )
    settings: dict[str, Any] = {}
    for part in parts:
        if part.name not in own:
            settings[part.name] = getattr(config, part.name)
            continue
        try:
            settings[part.name] = part.settings.model_validate(config.parts.get(part.name, {}))
        except ValidationError as error:
            for e in error.errors():
                key = ".".join(map(str, ("parts", part.name, *e["loc"])))
                if e["type"] != "extra_forbidden":
                    problems.append(f"{key} = {e['input']!r}: {e['msg']}.")
                    continue
                known = [f"parts.{part.name}.{field}" for field in part.settings.model_fields]
                hint = did_you_mean(key, known, f". There are: {', '.join(known)}.")
                problems.append(f"There is no setting {key!r}{hint}")
    if problems:
        raise ConfigError(problems)
    return settings


def _say_classifier(loaded: Loaded, material: Material, progress: Progress) -> None:
    clf = loaded.classifier
    progress.say(
        f"Classifier {loaded.spec}: {len(clf.classes)} classes, {clf.task}, {clf.sample_rate} Hz."
    )
    if material.card.classes and material.labels([], clf.classes) is None:
        lacking = [
            name
            for name, at in zip(material.card.classes, material.places(clf.classes), strict=True)
            if at is None
        ]
        progress.say(
            f"The classifier has no class {listed(map(repr, lacking), 3)}, so that labels are left "
            "out: fidelity and faithfulness need none."
        )


def _sign(signature: str, data: str, weights: str) -> str:
    """A config's signature together with its data's identity and the content of its weights."""
    return hashlib.sha256(f"{signature} {data} {weights}".encode()).hexdigest()[:12]


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


def _weights_digest(config: Config, loaded: Loaded | None, stage: str = "") -> str:
    """A digest of the files that a stage depends on, by default of all.

    Another file under the same name is another experiment: weights, a classifier's code, the code
    of a method or a data set that is not built in.
    """
    c = config.classifier
    code = [DATASETS.digest(config.dataset.name)]
    if stage not in ("classifier", "dictionary", "interpreter"):
        code += [METHODS.digest(config.method.name), own_digest(config.explanation.metrics)]
    if loaded is not None and stage != "dictionary":
        code.append(loaded.digest)
    named = {
        "classifier": (c.weights, c.audioset_weights),
        "dictionary": (config.dictionary.weights,),
    }
    digests = []
    for part, words in named.items():
        for word in words:
            if word and (stage == part or stage not in named):
                path = Path(word)
                if not path.is_file():
                    raise CheckpointError(f"There are no {part} weights at {path}.")
                with path.open("rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join([*digests, *filter(None, code)])


def _finished_before(done: RunInfo) -> Outcome:
    try:
        text = download(done, "scores.json").read_text(encoding="utf-8")
        intervals = json.loads(text)["intervals"]
    except (StoreError, OSError, ValueError, KeyError):  # The figures are known all the same.
        intervals = {}
    return Outcome(
        done.id,
        done.name,
        done.experiment,
        done.scores,
        finished_before=True,
        warnings=tuple(done.tags.get(WARNINGS, "").splitlines()),
        intervals=intervals,
    )

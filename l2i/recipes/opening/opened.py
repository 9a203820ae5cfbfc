"""A finished run, opened to be measured: its networks, its clips, and a place for what is found.

What is measured is a run of its own in MLflow, folded under the one it is about: its settings are
its parameters, its figures its metrics, and the run that was measured is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from l2i.config import Config, resolve
from l2i.data import refuse_folder
from l2i.environment import usual_data_dir
from l2i.explanation import Explainer, MethodSettings, Subject, check_gradients, check_heeded
from l2i.models.spec import open_classifier
from l2i.recipes.opening.bundle import explainer_of, explanation_settings, open_bundle
from l2i.recipes.opening.description import DESCRIPTION, describe_found
from l2i.recipes.opening.material import Material, data_differences, data_name, heard_by, prepare
from l2i.run import provenance
from l2i.run.device import pick_device, seed_everything, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run
from l2i.run.search import RunInfo
from l2i.run.tracker import check_place, open_run
from l2i.storage import disk_errors, is_output, is_s3, make_output, mark_output, write_json


class Where(TypedDict, total=False):
    """Where a run is measured, and where the result is left.

    Attributes
    ----------
    data_dir : str, optional
        Where the data lie now; by default where they lay when the run was made, or ``L2I_DATA_DIR``
        if that is gone.
    device, precision : str
        By default ``auto`` and ``float32``.
    out : Path, optional
        A folder of the user's for tables, pictures and sounds; made.
    keep : bool
        Whether a run is made of the result, under the one that is measured; by default it is.
    """

    data_dir: str | None
    device: str
    precision: str
    out: Path | None
    keep: bool


@dataclass(frozen=True)
class Opened:
    """A finished run, and what it takes to measure it; `out` and `keep` as in `Where`."""

    run: RunInfo
    config: Config
    subject: Subject
    material: Material
    device: torch.device
    out: Path | None
    keep: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """The classifier's."""
        return self.subject.classifier.classes

    def explainer(self) -> Explainer:
        """L2I's own object; an error where the run's method is another one."""
        return explainer_of(self.subject, self.run)

    def told(
        self,
        methods: Sequence[str] = (),
        threshold: float | None = None,
        max_components: int | None = None,
        seed: int | None = None,
    ) -> MethodSettings:
        """What methods are told: the run's settings, but for what is given, which one of the
        methods must heed."""
        check_heeded(methods, threshold=threshold, max_components=max_components)
        own = explanation_settings(self.config, threshold, max_components)
        seed = self.config.run.seed if seed is None else seed
        return MethodSettings(own.threshold, own.max_components, seed, tuple(own.metrics))


def open_finished(
    word: str,
    progress: Progress,
    *,
    fold: int | None = None,
    stream: bool = False,
    **where: Unpack[Where],
) -> Opened:
    """Networks and clips of a finished run; whether its result can be left is found out first.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    fold : int, optional
        Another test fold than the run's. Clips of it may have trained the run: that is said.
    stream : bool
        As for `prepare`.
    **where
        See `Where`.
    """
    run, data_dir = resolve_run(word), where.get("data_dir")
    out, keep = _check_places(where, run.experiment, run.id, run.name)
    threads = run.tags.get("l2i.threads", "")
    set_threads(int(threads) if threads.isdigit() else 0)
    place, dtype = _device(where, progress)
    config, subject = open_bundle(run, place, dtype)
    changes: dict[str, Any] = {}
    if data_dir:
        refuse_folder(config.dataset.name, data_dir)
        changes["data_dir"] = data_dir
    elif (there := config.dataset.data_dir) and not is_s3(there) and not Path(there).is_dir():
        # A run of another machine, or of outside the container.
        changes["data_dir"] = usual_data_dir() or there
    if fold is not None and fold != config.dataset.fold:
        progress.say(f"Fold {fold} is not the run's test fold: its clips trained the run.")
        changes["fold"] = fold
    config = config.changed(dataset=changes)
    seed_everything(config.run.seed)
    who = f"run {run.name} ({run.id[:8]})"
    own = not config.classifier.spec
    material = prepare(
        config, progress, classes=subject.classifier.classes, who=who, own=own, stream=stream
    )
    # Another fold has the same clips on other sides.
    if "fold" not in changes and (different := data_differences(material, run)):
        progress.say(f"The data are not those of {who}: {different}. The figures may differ.")
    return Opened(run, config, subject, material, place, out, keep)


def _check_places(
    where: Where, experiment: str, run_id: str = "", name: str = ""
) -> tuple[Path | None, bool]:
    """`out` and `keep`, where `write_found` will be able to write."""
    out, keep = where.get("out"), where.get("keep", True)
    if keep:
        check_place(experiment)
    if out is not None:
        with disk_errors(out):
            make_output(out, run_id, name)
    return out, keep


def _device(where: Where, progress: Progress) -> tuple[torch.device, torch.dtype]:
    device, precision = where.get("device", "auto"), where.get("precision", "float32")
    place, dtype, sentences = pick_device(device, precision)
    for sentence in sentences:
        progress.say(sentence)
    return place, dtype


def open_unmeasured(
    spec: str, progress: Progress, *, dataset: str = "", method: str = "", **where: Unpack[Where]
) -> Opened:
    """A classifier of the user's own and the clips of a folder; its run has a name and no id.

    Parameters
    ----------
    spec : str
        As `l2i.models.spec.open_classifier` takes it.
    progress : Progress
    dataset : str
        The data set that is there; empty: a folder of the user's own.
    method : str
        Empty: one that needs nothing learnt, ``saliency``, or ``occlusion`` of a black box.
    **where
        See `Where`. Clips may have labels or none, and are decoded when they are asked for.
    """
    loaded = open_classifier(spec)
    method = method or ("saliency" if loaded.classifier.differentiable else "occlusion")
    options = {"dataset.data_dir": where.get("data_dir") or "", "method.name": method}
    options |= {"classifier.spec": spec}
    config = heard_by(resolve(None, dataset=dataset or None, options=options), loaded)
    check_gradients(config.method.name, loaded.classifier, "say --method occlusion")
    experiment = config.run.experiment or config.dataset.name
    out, keep = _check_places(where, experiment)
    set_threads(config.run.threads)
    place, _ = _device(where, progress)
    seed_everything(config.run.seed)
    material = prepare(config, progress, own=False, stream=True)
    run = RunInfo(
        id="",
        name=f"{loaded.word}-{data_name(config, material)}",
        experiment=experiment,
        experiment_id="",
        status="",
        artifact_uri="",
        tags={"l2i.classifier": loaded.spec, "l2i.classifier_digest": loaded.digest},
    )
    subject = Subject(loaded.classifier, material.domain, {})
    return Opened(run, config, subject, material, place, out, keep)


def write_found(
    opened: Opened,
    kind: str,
    params: Mapping[str, Any],
    scores: Mapping[str, float],
    document: Mapping[str, Any] | None,
    write: Callable[[Path], None],
    marks: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Leave a result where the run was opened for: in a folder, and as a run, under the one that
    was measured if there is one.

    Parameters
    ----------
    opened : Opened
    kind : str
        ``overlap``, say: the tag ``l2i.kind``, and a part of the run's name.
    params : mapping
        What was asked.
    scores : mapping of str to float
        Metrics; what is not finite is left out of them.
    document : mapping or None
        The content of ``<kind>.json`` beside ``run``; None: `write` writes all there is.
    write : callable
        Writes all other files into a folder.
    marks : mapping, optional
        More tags of the run.

    Returns
    -------
    dict
        ``run``, the ``id`` and the ``name`` of the one that was measured; what `document` has; and
        ``kept``, the id of the run that was made, or None.
    """

    run = opened.run
    told = {"run": {"id": run.id, "name": run.name}, **(document or {})}

    def fill(folder: Path) -> None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write(folder)
            if document is not None:
                write_json(folder / f"{kind}.json", told)

    if (out := opened.out) is not None:
        before = set(out.iterdir())
        fill(out)
        for new in set(out.iterdir()) - before:
            if new.is_dir() and not is_output(out):  # Sounds in a folder of the user's own.
                mark_output(new, run.id, run.name)
    if not opened.keep:
        return told | {"kept": None}
    # What has no run of its own is told apart by its classifier.
    about = {k: v for k, v in run.tags.items() if k.startswith("l2i.classifier")}
    words = json.dumps([run.id or about, kind, params], sort_keys=True, default=str)
    signature = hashlib.sha256(words.encode()).hexdigest()[:12]
    tags = provenance.tags(opened.device) | {
        **about,
        "l2i.kind": kind,
        **({"mlflow.parentRunId": run.id} if run.id else {}),
        "l2i.dataset": opened.config.dataset.name,
        "l2i.fold": str(opened.config.dataset.fold),
        "l2i.data_digest": opened.material.digest,
        **(marks or {}),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(
            experiment=run.experiment,
            name=f"{run.name}-{kind}",
            signature=signature,
            tags=tags,
            params={"measured": run.name, **params},
            resume=False,
        ) as tracker,
    ):
        fill(Path(folder))
        tracker.final({f"{kind}/{k}": v for k, v in scores.items() if math.isfinite(v)})
        tracker.artifact(folder)
        tracker.tags({DESCRIPTION: describe_found(run, kind, params, scores)})
        return told | {"kept": tracker.run_id}

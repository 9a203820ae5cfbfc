"""Make a run of networks that somebody else trained: the files that the method's authors publish.

Such a run is like one that `train` made, without figures: settings, checkpoints, a picture of the
dictionary. The data set need not be at hand, since its card says what the classes are; measuring
the run needs it. Files that do not hold all that a run needs can be converted into checkpoints,
which `train` takes (``classifier.weights``, ``dictionary.weights``).

Everything is read and checked before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from l2i.config import Config, Method
from l2i.data import DATASETS, card, open_dataset
from l2i.data.base import Card, clip_settings
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import DataError, UsageError
from l2i.models.checkpoint import encode_checkpoint
from l2i.models.published import (
    MAPS,
    SETTINGS,
    THRESHOLDS,
    Networks,
    PublishedFile,
    fit,
    read_published,
)
from l2i.recipes.opening.bundle import MODEL, build_subject, explainer_of
from l2i.recipes.opening.description import DESCRIPTION, escaped
from l2i.recipes.publishing.served import write_model
from l2i.run import provenance
from l2i.run.progress import Progress
from l2i.run.runs import find_finished
from l2i.run.tracker import open_run
from l2i.storage import atomic_write_bytes, disk_errors, make_output, write_json
from l2i.types import Task


def import_files(
    paths: Sequence[Path], config: Config | None, progress: Progress, *, out: Path | None = None
) -> dict[str, Any]:
    """Turn published files into a finished run, or into checkpoints.

    Parameters
    ----------
    paths : sequence of Path
        Together they hold a classifier, a dictionary and an interpreter with its head; for
        checkpoints, any of these.
    config : Config, optional
        For the data set the networks were trained on. What the files themselves say (K, the widths
        of head and attention) replaces what it says. A dictionary and AudioSet weights can do
        without.
    progress : Progress
    out : Path, optional
        A folder for checkpoints: no run is made. One that is there already and differs is left
        alone, and an error.

    Returns
    -------
    dict
        ``files``: what each is; ``components`` (K), ``classes`` (C), ``head``,
        ``attention_width``, if they are known; ``checkpoints``: kind to file; ``run_id``,
        ``name`` and ``experiment`` of the run, None if none was asked for; ``found``: whether the
        run was there already.

    Raises
    ------
    UsageError
        The data set is not named, or the config contradicts the files.
    DataError, CheckpointError
        A file is absent, damaged, unsafe or does not fit, or a part is missing.
    """
    files = tuple(read_published(path) for path in paths)
    networks = fit(files)
    described = [_describe(file) for file in files]
    done: dict[str, Any] = {"run_id": None, "name": None, "experiment": None, "found": False}
    done |= {"files": described, **networks.sizes, "checkpoints": {}}
    if set(networks.tensors) == {"trunk"}:
        # `classifier.audioset_weights` takes the file as it is.
        return done
    about: Card | None = None
    if {"classifier", "interpreter"} & set(networks.tensors):
        about, config = _settle(config, networks)
    checkpoints = _encode(networks, config, about)
    if out is not None:
        return done | {"checkpoints": _write(checkpoints, out)}
    needed = ("classifier", "dictionary", "interpreter")
    if missing := [part for part in needed if part not in checkpoints]:
        raise DataError(
            "A run needs a classifier, a dictionary and an interpreter, and there is no "
            f"{' and no '.join(missing)} in {', '.join(map(str, paths))}: give the whole model's "
            "file, or --out DIR for checkpoints of what there is."
        )
    assert config is not None and about is not None
    return done | _make_run(checkpoints, described, config, about, progress)


def _describe(file: PublishedFile) -> dict[str, Any]:
    """What a file is: kind, size, git blob id, and whether it is a published one."""
    return {
        "file": file.path.name,
        "kind": file.kind,
        "parts": list(file.parts),
        "bytes": file.size,
        "git_blob": file.git_blob,
        "sha256": file.sha256,
        "known": file.known,
    }


def _settle(config: Config | None, networks: Networks) -> tuple[Card, Config]:
    """The data set's card, and the config with what the tensors say."""
    sizes = networks.sizes
    n_classes = sizes["classes"]
    same = [name for name in DATASETS if len(card(name).classes) == n_classes]
    hint = f" ({', '.join(same)} has as many)" if same else ""
    if config is None:
        raise UsageError(
            f"These networks know {n_classes} classes{hint}, but not what they are called: name "
            "the data set they were trained on with --dataset."
        )
    about = card(config.dataset.name)
    if not about.classes:
        about = open_dataset(config.dataset).card
    if len(about.classes) != n_classes:
        raise DataError(
            f"These networks know {n_classes} classes{hint}, and {about.title} has "
            f"{len(about.classes)}: name the data set they were trained on with --dataset."
        )
    if about.folds and config.dataset.fold not in about.folds:
        raise UsageError(
            f"{about.title} has no fold {config.dataset.fold}; its folds are "
            f"{', '.join(map(str, about.folds))}."
        )
    rate, _ = clip_settings(about, config.dataset)
    asked = SpectrogramSettings(rate, **config.spectrogram.model_dump())
    if different := SETTINGS.differences(asked):
        raise UsageError(
            f"The published networks were made under other settings ({', '.join(different)} asked "
            "for now): set dataset.sample_rate and spectrogram to theirs with -o."
        )
    thresholds = list(config.classifier.thresholds)
    if about.task is Task.MULTI_LABEL:
        thresholds = thresholds or list(THRESHOLDS.get(about.name, [0.5] * n_classes))
        if len(thresholds) != n_classes:
            raise UsageError(
                f"classifier.thresholds has {len(thresholds)} values for {n_classes} classes."
            )
    updates: dict[str, dict[str, Any]] = {
        "classifier": {"head": sizes.get("head"), "width": 1.0, "thresholds": thresholds},
        "dictionary": {"components": sizes.get("components")},
        "interpreter": {
            "maps": list(MAPS),
            "pooling": "attention",
            "attention_width": sizes.get("attention_width"),
        },
    }
    config = config.changed(**{k: v for k, v in updates.items() if k in networks.tensors})
    # What is published has no gates.
    return about, config.model_copy(update={"method": Method(name="l2i"), "parts": {}})


# --- checkpoints --------------------------------------------------------------------------------


def _encode(networks: Networks, config: Config | None, about: Card | None) -> dict[str, bytes]:
    """Each checkpoint's content by its kind, with the metadata that the stages of `train` write."""
    sizes = networks.sizes
    documents: dict[str, dict[str, Any]] = {"dictionary": {"method": "published", "classes": []}}
    if config is not None and about is not None:
        documents["classifier"] = {
            "classes": list(about.classes),
            "task": str(about.task),
            "head": sizes.get("head"),
            "dropout": config.classifier.dropout,
            "thresholds": list(config.classifier.thresholds),
        }
        documents["interpreter"] = {
            "components": sizes.get("components"),
            "n_classes": sizes["classes"],
            "maps": list(MAPS),
            "rows": SETTINGS.n_mels // 32,
            "pooling": "attention",
            "attention_width": sizes.get("attention_width"),
        }
    encoded = {}
    for kind, tensors in networks.tensors.items():
        if kind != "trunk":
            file = networks.origin[kind]
            source = {"source": file.path.name, "git_blob": file.git_blob, "history": []}
            encoded[kind] = encode_checkpoint(kind, tensors, documents[kind] | source, SETTINGS)
    return encoded


def _write(checkpoints: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Write the checkpoints, all of them or, where another file is in the way, none."""
    paths = {kind: folder / f"{kind}.safetensors" for kind in checkpoints}
    with disk_errors(folder):
        make_output(folder)
        for kind, path in paths.items():
            if os.path.lexists(path) and (
                not path.is_file() or path.read_bytes() != checkpoints[kind]
            ):
                raise DataError(
                    f"{path} is there already and is something else: choose another --out."
                )
        for kind, path in paths.items():
            atomic_write_bytes(path, checkpoints[kind])
    return {kind: str(path) for kind, path in paths.items()}


# --- a run --------------------------------------------------------------------------------------


def _make_run(
    checkpoints: Mapping[str, bytes],
    files: Sequence[Mapping[str, Any]],
    config: Config,
    about: Card,
    progress: Progress,
) -> dict[str, Any]:
    """The finished run of these files and this config: the one that is there, or a new one."""
    from l2i import plots

    digests = sorted(file["sha256"] for file in files)
    words = json.dumps(["import", config.signature(), digests])
    signature = hashlib.sha256(words.encode()).hexdigest()[:12]
    experiment = config.run.experiment or about.name
    if (done := find_finished(experiment, signature)) is not None:
        known = {"run_id": done.id, "name": done.name, "experiment": done.experiment}
        return known | {"found": True}
    name = config.run.name or f"{about.name}-fold{config.dataset.fold}-import-{signature[:6]}"
    tags = provenance.tags(torch.device("cpu")) | {
        "l2i.kind": "import",
        "l2i.dataset": about.name,
        "l2i.fold": str(config.dataset.fold),
        "l2i.files": ", ".join(f"{file['file']} {file['git_blob']}" for file in files),
    }
    with (
        open_run(
            experiment=experiment, name=name, signature=signature, tags=tags, params=config.flat()
        ) as run,
        disk_errors(run.folder),
    ):
        progress.say(f"Run {run.name} ({run.run_id[:8]}) of experiment {experiment}.")
        out, bundle = run.folder / "artifacts", run.folder / "bundle"
        for folder in (out, bundle):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for kind, content in checkpoints.items():
            atomic_write_bytes(bundle / f"{kind}.safetensors", content)
        # As `evaluate` and `explain` will: what they cannot open is not to be found finished.
        explainer = explainer_of(build_subject(bundle, config, torch.device("cpu"), torch.float32))
        (out / "config.toml").write_text(config.to_toml(), encoding="utf-8")
        plots.dictionary(explainer.w.numpy(), explainer.domain, out / "dictionary.png")
        write_json(out / "provenance.json", {"config": config.signature(), "files": files})
        told = write_model(bundle, config, out / MODEL)
        run.artifact(out)
        names = ", ".join(file["file"] for file in files)
        run.tags(told | {DESCRIPTION: f"{about.title}: {escaped(names)}, imported\n"})
        shutil.rmtree(run.folder, ignore_errors=True)
        return {"run_id": run.run_id, "name": run.name, "experiment": experiment}

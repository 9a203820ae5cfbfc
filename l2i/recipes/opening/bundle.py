"""What a run has learnt, from its checkpoints: the classifier, and the parts of its method.

The built-in classifier is ``classifier.safetensors``; of another one ``classifier.json`` says how
it is loaded (see `l2i.models.spec`). Each part is ``<name>.safetensors``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2i.config import Config, resolve
from l2i.config import Explanation as ExplanationSettings
from l2i.data import card
from l2i.data.base import clip_settings
from l2i.dsp.spectrogram import Domain
from l2i.errors import CheckpointError, ConfigError, UsageError
from l2i.explanation import Explainer, Subject
from l2i.models.checkpoint import load_checkpoint, load_weights, read_settings
from l2i.models.classifier import FrozenClassifier
from l2i.models.spec import is_kept, reopen_classifier
from l2i.models.vgg import VGG
from l2i.run.artifacts import download
from l2i.run.search import RunInfo
from l2i.training.parts import Around, load_parts
from l2i.types import Classifier, Task

MODEL = "model"
"""Among a run's artifacts, the folder of what was trained: an MLflow model."""
WEIGHTS = f"{MODEL}/artifacts"
"""The three checkpoints in it."""
_METHOD = "method.py"
_OWN = r"method\.py|metric-\d+\.py"
MAX_SECONDS = 300.0
"""Longer sounds are not explained as a whole: one explanation of many minutes says little, and
takes much memory, at 44.1 kHz about a GiB for each."""


def shortest_input(config: Config, classifier: Classifier) -> int:
    """Samples below which a sound is padded with silence: a clip of the data set's length for the
    built-in classifier, which learnt from such; no more than it must for another one."""
    least = getattr(classifier, "min_samples", 1)
    if config.classifier.spec:
        return max(1, least)
    _, clip_samples = clip_settings(card(config.dataset.name), config.dataset)
    return max(clip_samples, least)


def clip_seconds(config: Config) -> float:
    """Length of the clips that a run's method was trained on."""
    rate, samples = clip_settings(card(config.dataset.name), config.dataset)
    return samples / rate


def explanation_settings(
    config: Config, threshold: float | None, max_components: int | None
) -> ExplanationSettings:
    """A run's settings of explanations, but for what is given."""
    given = {"threshold": threshold, "max_components": max_components}
    changes = {key: value for key, value in given.items() if value is not None}
    return config.explanation.model_copy(update=changes)


def build_network(tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path) -> VGG:
    """The network of a classifier's checkpoint, as it was trained."""
    network = VGG(
        len(document["classes"]),
        head=document["head"],
        dropout=document["dropout"],
        width=document.get("width", 1.0),  # Older checkpoints do not say.
    )
    load_weights(network, tensors, path)
    return network


def build_classifier(
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> FrozenClassifier:
    """The frozen classifier of a checkpoint's content."""
    return FrozenClassifier(
        build_network(tensors, document, path),
        read_settings(path, document),
        document["classes"],
        Task(document["task"]),
        document.get("thresholds") or None,
        device,
        dtype,
    )


def open_bundle(run: RunInfo, device: torch.device, dtype: torch.dtype) -> tuple[Config, Subject]:
    """The config and the networks of a finished run, from its artifacts.

    Raises
    ------
    UsageError
        The run is not finished, or not of a kind that has networks.
    StoreError, CheckpointError
        Artifacts are absent or damaged.
    """
    if not run.has_model:
        about = run.params.get("measured")
        raise UsageError(
            f"Run {run.name} ({run.id[:8]}) is of kind {run.kind!r} and has no networks"
            + (f"; it is about run {about}." if about else ".")
        )
    if run.status != "FINISHED":
        raise UsageError(
            f"Run {run.name} ({run.id[:8]}) is {run.status.lower()}, and only a finished run has "
            "its networks: give its 'l2i train' command again to go on."
        )
    path = download(run, "config.toml")
    try:
        config = resolve(path)
    except ConfigError as error:
        raise CheckpointError(f"Run {run.name} has a config of another l2i: {error}") from None
    folder = download(run, WEIGHTS)
    config = with_kept_method(config, folder)
    return config, build_subject(folder, config, device, dtype)


def keep_method(config: Config, folder: Path) -> None:
    """Copy the user's own files, of a method and of metrics, beside what was learnt."""
    for word, kept in _own_files(config).items():
        shutil.copyfile(Path(word.rpartition(":")[0]).expanduser(), folder / kept)


def with_kept_method(config: Config, folder: Path) -> Config:
    """A config that names the files which `keep_method` kept, wherever they are now."""
    own = {
        word: f"{folder / kept}:{word.rpartition(':')[2]}"
        for word, kept in _own_files(config).items()
        if (folder / kept).is_file()
    }
    name, metrics = config.method.name, config.explanation.metrics
    return config.changed(
        method={"name": own.get(name, name)},
        explanation={"metrics": [own.get(word, word) for word in metrics]},
    )


def kept_files(folder: Path) -> list[Path]:
    """Those that `keep_method` wrote."""
    return [p for p in sorted(folder.glob("*.py")) if re.fullmatch(_OWN, p.name)]


def _own_files(config: Config) -> dict[str, str]:
    """Words of a config that name files of Python, and what these are called where they are kept:
    files of one name may come from several folders."""
    words = [(config.method.name, _METHOD)]
    words += [(w, f"metric-{n}.py") for n, w in enumerate(config.explanation.metrics, start=1)]
    return {w: kept for w, kept in words if w.rpartition(":")[0].endswith(".py")}


def build_subject(
    folder: Path, config: Config, device: torch.device, dtype: torch.dtype
) -> Subject:
    """The classifier and the parts of the method, from a folder.

    A classifier of another making is as exact, and on the device, as its code has it.

    Raises
    ------
    CheckpointError
        One is absent or damaged, or they were not made for one another.
    """
    classifier: Classifier
    if is_kept(folder):
        classifier = reopen_classifier(folder).classifier
        s = config.spectrogram
        domain = Domain(classifier.sample_rate, s.n_fft, s.hop_length)
    else:
        path = folder / "classifier.safetensors"
        tensors, document = load_checkpoint(path, "classifier")
        classifier = build_classifier(tensors, document, path, device, dtype)
        domain = classifier.domain

    def read(name: str) -> tuple[Mapping[str, Tensor], Mapping[str, Any], Path]:
        path = folder / f"{name}.safetensors"
        return *load_checkpoint(path, name), path

    around = Around(classifier, domain, device)
    return Subject(classifier, domain, load_parts(config.method.name, around, read))


def explainer_of(subject: Subject, run: RunInfo | None = None) -> Explainer:
    """L2I's own object, of a run whose method is L2I.

    Raises
    ------
    UsageError
        It learnt another method, which has no dictionary and interpreter.
    """
    try:
        w, interpreter = subject.parts["dictionary"], subject.parts["interpreter"]
    except KeyError:
        who = "This run" if run is None else f"Run {run.name} ({run.id[:8]})"
        raise UsageError(
            f"{who} has no dictionary and no interpreter, which this is about: its method is "
            "another one than 'l2i'."
        ) from None
    return Explainer(subject.classifier, w, interpreter, subject.domain)

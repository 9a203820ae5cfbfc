"""A run's networks from its three checkpoints: ``classifier``, ``dictionary``, ``interpreter``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2i.config import Config, resolve
from l2i.config import Explanation as ExplanationSettings
from l2i.data import card
from l2i.data.base import clip_settings
from l2i.errors import CheckpointError, ConfigError, UsageError
from l2i.explanation import Explainer
from l2i.models.checkpoint import load_checkpoint, load_weights, read_settings
from l2i.models.classifier import FrozenClassifier
from l2i.models.interpreter import Interpreter
from l2i.models.vgg import MIN_FRAMES, VGG
from l2i.registry import nearest
from l2i.run.runs import RunInfo, download
from l2i.types import Task

__all__ = [
    "MAX_SECONDS",
    "MODEL",
    "WEIGHTS",
    "build_classifier",
    "build_explainer",
    "build_interpreter",
    "class_index",
    "explanation_settings",
    "open_bundle",
    "shortest_input",
]

MODEL = "model"
"""Among a run's artifacts, the folder of what was trained: an MLflow model."""
WEIGHTS = f"{MODEL}/artifacts"
"""The three checkpoints in it."""
MAX_SECONDS = 300.0
"""Longer sounds are refused: one explanation of many minutes says little, and takes much memory,
at 44.1 kHz about a GiB for each."""


def shortest_input(config: Config, hop_length: int) -> int:
    """Samples below which a sound is padded with silence: a clip of the data set's length."""
    _, clip_samples = clip_settings(card(config.dataset.name), config.dataset)
    return max(clip_samples, MIN_FRAMES * hop_length)


def class_index(classes: Sequence[str], name: str, who: str, also: str = "") -> int:
    """The index of the class of this name; `who` knows the classes, and `also` is what else may
    be said, for the message.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in classes:
        like = nearest(name, list(classes))
        hint = f"; did you mean {like!r}?" if like else "."
        known = f"{', '.join(classes)}{also}"
        raise UsageError(f"{who} knows no class {name!r}{hint} It knows: {known}.")
    return classes.index(name)


def explanation_settings(
    config: Config, threshold: float | None, max_components: int | None
) -> ExplanationSettings:
    """A run's settings of explanations, but for what is given."""
    given = {"threshold": threshold, "max_components": max_components}
    changes = {key: value for key, value in given.items() if value is not None}
    return config.explanation.model_copy(update=changes)


def build_classifier(
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> FrozenClassifier:
    """The frozen classifier of a checkpoint's content."""
    classes = document["classes"]
    network = VGG(len(classes), head=document["head"], dropout=document["dropout"])
    load_weights(network, tensors, path)
    return FrozenClassifier(
        network,
        read_settings(path, document),
        classes,
        Task(document["task"]),
        document.get("thresholds") or None,
        device,
        dtype,
    )


def build_interpreter(document: Mapping[str, Any]) -> Interpreter:
    """An interpreter of the shape that a checkpoint's metadata describe."""
    return Interpreter(
        document["components"],
        document["n_classes"],
        maps=tuple(document["maps"]),
        rows=document["rows"],
        pooling=document["pooling"],
        attention_width=document["attention_width"],
        skip_silence=document.get("skip_silence", False),  # Older checkpoints do not say.
    )


def open_bundle(run: RunInfo, device: torch.device, dtype: torch.dtype) -> tuple[Config, Explainer]:
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
    return config, build_explainer(download(run, WEIGHTS), device, dtype)


def build_explainer(folder: Path, device: torch.device, dtype: torch.dtype) -> Explainer:
    """Classifier, dictionary and interpreter from the checkpoints in a folder.

    Raises
    ------
    CheckpointError
        One is absent or damaged, or they were not made for one another.
    """
    path = folder / "classifier.safetensors"
    tensors, document = load_checkpoint(path, "classifier")
    classifier = build_classifier(tensors, document, path, device, dtype)
    path = folder / "dictionary.safetensors"
    tensors, document = load_checkpoint(path, "dictionary")
    read_settings(path, document, classifier.settings)
    w = tensors["W"].to(device)
    path = folder / "interpreter.safetensors"
    tensors, document = load_checkpoint(path, "interpreter")
    read_settings(path, document, classifier.settings)
    if document["components"] != w.shape[1] or document["n_classes"] != len(classifier.classes):
        raise CheckpointError(
            f"{path} is for {document['components']} components and {document['n_classes']} "
            f"classes, the dictionary has {w.shape[1]} and the classifier "
            f"{len(classifier.classes)}."
        )
    interpreter = build_interpreter(document)
    load_weights(interpreter, tensors, path)
    return Explainer(classifier, w, interpreter.to(device).eval().requires_grad_(False))

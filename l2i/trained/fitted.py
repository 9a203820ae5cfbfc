"""A method that learns to explain a classifier: fitted, asked, saved and loaded.

Over 300 lines: one object from fit to load, with the examples of its docstrings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor

from l2i import config
from l2i.data import open_dataset
from l2i.data.cards import in_threads
from l2i.dsp.audio import fit_length, read_part
from l2i.dsp.spectrogram import Domain
from l2i.errors import CheckpointError, DataError, UsageError, need_positive
from l2i.explained import explain_by
from l2i.explanation import MethodSettings, Subject, check_gradients, make_method
from l2i.library import check_classifier, clips_of, targets_of
from l2i.models.checkpoint import load_checkpoint, read_domain, save_checkpoint
from l2i.models.heard import hear
from l2i.registry import did_you_mean
from l2i.run.progress import Progress
from l2i.storage import local_place
from l2i.training.parts import (
    Around,
    Context,
    Part,
    Sounds,
    check_parts,
    learn,
    load_parts,
    parts_of,
)
from l2i.training.stage import tensors_below
from l2i.types import Classifier

FEWEST = 4
"""Sounds that a method learns from, at least."""
Clips = str | Path | Sequence[Any] | NDArray[Any] | Tensor
_LONGEST_S = 10.0
# Probabilities of one classifier on two devices, or in two precisions, differ by less.
_ALIKE = 0.01
# What `fit` takes beside the settings of a method's parts.
_DOMAIN = ("n_fft", "hop_length")
_TOLD = ("threshold", "max_components")

_Settings = TypeVar("_Settings", bound=BaseModel)


@dataclass(frozen=True)
class Fitted:
    """A method that has learnt to explain one classifier; made by `fit` or `load`.

    Attributes
    ----------
    method : str
    subject : Subject
        The classifier, where the masks live, and what was learnt.
    settings : MethodSettings
    history : dict of str to list of dict
        Each part's figures, epoch by epoch.
    """

    method: str
    subject: Subject
    settings: MethodSettings
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict, repr=False)
    _files: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def classifier(self) -> Classifier:
        """What is explained."""
        return self.subject.classifier

    def explain(
        self,
        sound: Any,
        target: str | int | Sequence[str | int | None] | None = None,
        *,
        sample_rate: int | None = None,
        on_clip: Callable[[int], None] | None = None,
    ) -> Any:
        """Explain a class of a sound; see `l2i.explain` for the parameters.

        Returns
        -------
        Explained, or a list of them where there are several clips
            Where the method's mask is one of log magnitudes, as L2I's is, explanation and removal
            add up to the clip in the log domain, not as waveforms.
        """
        clf = self.classifier
        clips, several = clips_of(clf, sound, sample_rate)
        targets = targets_of(clf, target, len(clips))
        way = make_method(self.method, self.subject, self.settings)
        explanations = []
        for number, (clip, wanted) in enumerate(zip(clips, targets, strict=True)):
            least = getattr(clf, "min_samples", 1)
            x = torch.from_numpy(fit_length(clip, max(len(clip), least))).unsqueeze(0)
            heard = hear(clf, x, self.subject.domain, way.layers)
            c = int(heard.logits.argmax()) if wanted is None else wanted
            explanations.append(
                explain_by(way, heard, c, method=self.method, key=number, length=len(clip))
            )
            if on_clip is not None:
                on_clip(len(explanations))
        return explanations if several else explanations[0]

    def save(self, path: str | Path) -> Path:
        """Write what was learnt into one file, without pickled code; the classifier is not in it.

        Raises
        ------
        UsageError
            It is an address, or a folder.
        StoreError
            The file cannot be written.
        """
        path = local_place(path)
        if path.is_dir():
            raise UsageError(f"{path} is a folder: name a file in it.")
        tensors = {
            f"{name}/{key}": tensor
            for name, (part, _) in self._files.items()
            for key, tensor in part.items()
        }
        clf = self.classifier
        about = {
            "method": self.method,
            "parts": {name: document for name, (_, document) in self._files.items()},
            "classes": list(clf.classes),
            "task": str(clf.task),
            "threshold": self.settings.threshold,
            "max_components": self.settings.max_components,
            "seed": self.settings.seed,
            "heard": _says(clf),
        }
        # A file that says nothing but how it is explained has one tensor all the same.
        save_checkpoint(
            path, "explainer", tensors or {"none": torch.zeros(1)}, about, self.subject.domain
        )
        return path


def load(path: str | Path, classifier: Classifier) -> Fitted:
    """What `Fitted.save` wrote, for the classifier that it was learnt for.

    Raises
    ------
    CheckpointError
        The file is absent, damaged, or for another classifier.
    """
    check_classifier(classifier)
    path = Path(path)
    tensors, about = load_checkpoint(path, "explainer")
    domain = read_domain(path, about)
    if list(classifier.classes) != about["classes"] or classifier.sample_rate != domain.sample_rate:
        raise CheckpointError(
            f"{path} is for a classifier of {len(about['classes'])} classes at "
            f"{domain.sample_rate} Hz; this one has {len(classifier.classes)} at "
            f"{classifier.sample_rate} Hz, or other names."
        )
    if str(classifier.task) != about["task"]:
        raise CheckpointError(
            f"{path} is for a {about['task']} classifier; this one is {classifier.task}."
        )
    # Files of before have no such words.
    if "heard" in about and not np.allclose(_says(classifier), about["heard"], atol=_ALIKE):
        raise CheckpointError(
            f"{path} is for a classifier with the same classes and other weights: load it with "
            "the one that it was learnt for, or let the method learn again (l2i.fit)."
        )
    files = {
        name: (tensors_below(tensors, f"{name}/"), document)
        for name, document in about["parts"].items()
    }
    told = MethodSettings(about["threshold"], about["max_components"], about["seed"])

    def read(name: str) -> tuple[Mapping[str, Tensor], Mapping[str, Any], Path]:
        if name not in files:
            raise CheckpointError(f"{path} lacks the {name} of method {about['method']!r}.")
        return *files[name], path

    parts = load_parts(about["method"], Around(classifier, domain, classifier.device), read)
    history = {name: document.get("history", []) for name, (_, document) in files.items()}
    return Fitted(about["method"], Subject(classifier, domain, parts), told, history, files)


def _says(classifier: Classifier) -> list[float]:
    """Probabilities of two seconds' noise, a loud one and a quiet one: what tells classifiers."""
    n = max(classifier.sample_rate, getattr(classifier, "min_samples", 1))
    noise = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    x = torch.from_numpy(noise * np.array([[0.3], [0.01]], np.float32))
    with torch.inference_mode():
        probabilities = classifier.probabilities(classifier.logits(x.to(classifier.device)))
    return [float(p) for p in probabilities.flatten().cpu()]


def fit(
    classifier: Classifier,
    sounds: Clips,
    method: str = "gated-l2i",
    *,
    sample_rate: int | None = None,
    duration_s: float | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Fitted:
    """Let a method learn to explain a classifier; labels are not needed.

    Parameters
    ----------
    classifier : Classifier
        See `l2i.wrap`; left as it is.
    sounds : folder, list of files, array or tensor
        A folder of sound files at any depth; several files; samples [N, S], or a list of [S].
    method : str
        A name in `l2i.registry.METHODS`, or ``MODULE:NAME``; by default that of ``l2i train``.
    sample_rate : int, optional
        Hz, of arrays and tensors; by default the classifier's. Others are resampled.
    duration_s : float, optional
        What clips are cut or padded to; by default the length of the longest, at most 10 s.
    validation_share : float
        In (0, 1): of the clips, to choose the best epoch by.
    seed : int
    progress : bool
        Say on standard error how far it is.
    **settings
        Settings of the method's parts, such as ``components`` and ``epochs`` (see ``l2i config
        show``); of the transform, ``n_fft`` and ``hop_length``; ``threshold`` and
        ``max_components``.

    Returns
    -------
    Fitted

    Raises
    ------
    UsageError
        There is no such method or setting.
    DataError
        There are fewer than four clips, or a sound cannot be read.
    """
    check_classifier(classifier)
    parts = parts_of(method)
    check_gradients(method, classifier)
    _valid(config.Run, {"seed": seed})
    _valid(config.Dataset, {"validation_share": validation_share})
    told, transform, own = _sorted_settings(classifier, method, parts, settings)
    domain = Domain(classifier.sample_rate, **transform)
    quiet = Progress(not progress)
    x = gathered(classifier, sounds, sample_rate, duration_s) if parts else np.zeros((0, 1))
    if parts and len(x) < FEWEST:
        n = f"is {len(x)} sound" if len(x) == 1 else f"are {len(x)} sounds"
        raise DataError(f"There {n}, and at least {FEWEST} are needed to learn.")
    order = np.random.default_rng(seed).permutation(len(x))
    held = min(max(1, round(validation_share * len(x))), max(1, len(x) - 2))
    learnt_from = Sounds(
        x.astype(np.float32),
        np.sort(order[held:]),
        np.sort(order[:held]),
        known=tuple(classifier.classes),
    )
    context = Context(
        classifier, domain, learnt_from, seed, classifier.device, torch.float32, quiet
    )
    check_parts(parts, own, learnt_from, domain, classifier.device)
    with (
        tempfile.TemporaryDirectory() as work,
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        context, files = learn(parts, own, context, Path(work))
    told = {**told, "seed": seed}
    history = {name: document["history"] for name, (_, document) in files.items()}
    subject = Subject(classifier, domain, context.parts)
    made = Fitted(method, subject, MethodSettings(**told), history, files)
    make_method(method, subject, made.settings)  # What it cannot explain is told now.
    return made


def known_settings(methods: Sequence[str], given: Iterable[str]) -> dict[str, list[str]]:
    """Which settings each method has; one that none of them has is refused."""
    known = {
        method: [*_DOMAIN, *_TOLD, *(f for p in parts_of(method) for f in p.settings.model_fields)]
        for method in methods
    }
    every = list(dict.fromkeys(chain.from_iterable(known.values())))
    for name in given:
        if name not in every:
            hint = did_you_mean(name, every, f"; there are: {', '.join(every)}.")
            who = " or ".join(map(repr, methods))
            raise UsageError(f"Method {who} has no setting {name!r}{hint}")
    return known


def _sorted_settings(
    classifier: Classifier, method: str, parts: Sequence[Part], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int], dict[str, BaseModel]]:
    """What the method is told, the transform's, and each part's settings."""
    known_settings([method], settings)
    own: dict[str, dict[str, Any]] = {part.name: {} for part in parts}
    if not hasattr(classifier, "published_maps"):
        own = {name: config.own_classifier_preset(name) for name in own}
    transform, told = (
        {name: settings[name] for name in names if name in settings} for names in (_DOMAIN, _TOLD)
    )
    for name in [name for name in settings if name not in (*_DOMAIN, *_TOLD)]:
        for home in [part.name for part in parts if name in part.settings.model_fields]:
            own[home][name] = settings[name]
    by_part = {part.name: _valid(part.settings, own[part.name]) for part in parts}
    spectrogram = _valid(config.Spectrogram, transform)
    explanation = _valid(config.Explanation, told)
    return (
        explanation.model_dump(include={*told}),
        spectrogram.model_dump(include={*transform}),
        by_part,
    )


def _valid(settings: type[_Settings], given: Mapping[str, Any]) -> _Settings:
    """Settings as the shell has them, with its bounds."""
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        word = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{word} = {first['input']!r}: {why}." if word else f"{why}.") from None


def gathered(
    classifier: Classifier, sounds: Clips, sample_rate: int | None, duration_s: float | None
) -> NDArray[np.float32]:
    """Clips [N, S] of one length, at the classifier's rate."""
    rate = classifier.sample_rate
    most = _LONGEST_S if duration_s is None else duration_s
    need_positive("duration_s", most, "s")
    if isinstance(sounds, str | Path) and Path(sounds).is_file():
        sounds = [sounds]
    if isinstance(sounds, str | Path):
        folder = config.Dataset(name="folder", data_dir=str(sounds))
        paths = [c.path for c in open_dataset(folder, unlabelled=True).clips() if c.path]
        clips = _decoded(paths, rate, most)
    elif isinstance(sounds, Tensor | np.ndarray):
        clips = clips_of(classifier, sounds, sample_rate)[0]
    elif not isinstance(sounds, Sequence):
        raise UsageError(
            f"Sounds are a folder, a list of files, or samples, not {type(sounds).__name__}."
        )
    elif sounds and all(isinstance(s, str | Path) for s in sounds):
        clips = _decoded([Path(s) for s in sounds], rate, most)
    else:
        clips = [clip for s in sounds for clip in clips_of(classifier, s, sample_rate)[0]]
    if not clips:
        raise DataError("There are no sounds.")
    longest = max(map(len, clips))
    n = round(duration_s * rate) if duration_s else min(longest, round(_LONGEST_S * rate))
    n = max(n, getattr(classifier, "min_samples", 1))
    return np.stack([fit_length(clip, n) for clip in clips])


def _decoded(paths: Sequence[Path], rate: int, most_s: float) -> list[NDArray[np.float32]]:
    return list(in_threads(lambda path: read_part(path, rate, duration_s=most_s), paths))

"""What a part of a method is, and what it learns from; neither knows a data set or a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.spectrogram import Domain
from l2i.errors import UsageError
from l2i.registry import METHODS, Registry
from l2i.run.device import learning_dtype
from l2i.run.progress import Progress
from l2i.training.stage import Stage
from l2i.types import Classifier

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel
    from torch import Tensor

PARTS = Registry(
    "part",
    {
        "dictionary": "l2i.training.dictionary:DICTIONARY",
        "interpreter": "l2i.training.interpreter:INTERPRETER",
        "gates": "l2i.training.gates:GATES",
        "mask-decoder": "l2i.training.mask_decoder:MASK_DECODER",
        "audio-mask-decoder": "l2i.training.mask_decoder:AUDIO_MASK_DECODER",
        "quantised-mask": "l2i.training.learnt:QUANTISED_MASK",
        "time-domain-mask": "l2i.training.time_domain:TIME_DOMAIN_MASK",
        "chunk-selector": "l2i.training.learnt:CHUNK_SELECTOR",
        "attributes": "l2i.training.learnt:ATTRIBUTES",
        "shapley-values": "l2i.training.shapley:SHAPLEY_VALUES",
        "class-dictionary": "l2i.training.class_dictionary:CLASS_DICTIONARY",
    },
)


@dataclass(frozen=True)
class Sounds:
    """Clips of one length, decoded.

    Attributes
    ----------
    waveforms : float32 [M, S]
        Often a file that is mapped.
    train, validate : int64 [n]
        Rows to learn from, and to choose by.
    classes : tuple of str
        The data set's, which need not be the classifier's; none where nothing is labelled.
    labels : sequence of sequence of int
        For each clip of `train`, indices into `classes`.
    title : str
        What they are, for messages.
    known : tuple of str
        The classifier's classes; none where nobody asked.
    """

    waveforms: NDArray[np.float32]
    train: NDArray[np.int64]
    validate: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    labels: Sequence[Sequence[int]] = ()
    title: str = "These sounds"
    known: tuple[str, ...] = ()

    @property
    def n_samples(self) -> int:
        """S."""
        return self.waveforms.shape[1]


@dataclass(frozen=True)
class Context:
    """What a part is learnt with.

    Attributes
    ----------
    classifier : Classifier
        Frozen.
    domain : Domain
        Where the masks live.
    sounds : Sounds
    parts : mapping of str to object
        Those learnt before, by name.
    seed : int
    device : torch.device
    dtype : torch.dtype
        The networks' arithmetic; weights and losses are float32.
    progress : Progress
    """

    classifier: Classifier
    domain: Domain
    sounds: Sounds
    seed: int
    device: torch.device
    dtype: torch.dtype
    progress: Progress
    parts: Mapping[str, Any] = field(default_factory=dict)


class Part(Protocol):
    """Something that a method must learn.

    Attributes
    ----------
    name : str
        What its checkpoint, its stage and its table of settings are called.
    settings : type of pydantic.BaseModel
    """

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> type[BaseModel]: ...

    def check(self, settings: Any, sounds: Sounds, domain: Domain) -> None:
        """Refuse what cannot be learnt, before anything is trained for hours.

        Raises
        ------
        UsageError, DataError, CheckpointError
        """

    def fit(self, settings: Any, context: Context, stage: Stage) -> None:
        """Learn from where the stage stands, and finish the stage."""

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Any:
        """What the method works with, of a finished stage's checkpoint.

        Parameters
        ----------
        tensors, document : mapping
            As `Stage.finish` was given them.
        path : Path
            For messages.
        context : object
            With ``classifier``, ``domain``, ``device``, and ``parts``, those loaded before.

        Raises
        ------
        CheckpointError
            It was made for something else.
        """


@dataclass(frozen=True)
class Around:
    """What a part is loaded with; a `Context` is one, too."""

    classifier: Classifier
    domain: Domain
    device: torch.device
    parts: Mapping[str, Any] = field(default_factory=dict)


def load_parts(
    method: str,
    around: Around,
    read: Callable[[str], tuple[Mapping[str, Tensor], Mapping[str, Any], Path]],
) -> dict[str, Any]:
    """What a method has learnt, each part with those before it.

    Parameters
    ----------
    method : str
    around : Around
    read : callable
        Name of a part -> its tensors, its metadata, and where they come from, for messages.
    """
    parts: dict[str, Any] = {}
    for part in parts_of(method):
        parts[part.name] = part.load(*read(part.name), replace(around, parts=dict(parts)))
    return parts


def check_parts(
    parts: Sequence[Part],
    settings: Mapping[str, Any],
    sounds: Sounds,
    domain: Domain,
    device: torch.device,
) -> None:
    """Refuse before anything is learnt what a part would refuse after those before it.

    Parameters
    ----------
    parts : sequence of Part
    settings : mapping of str to object
        Each part's.
    sounds : Sounds
    domain : Domain
    device : torch.device

    Raises
    ------
    DataError, UsageError
        As the parts have it.
    DeviceError
        A part's number format is none that the device has.
    """
    import torch

    for part in parts:
        part.check(settings[part.name], sounds, domain)
        word = getattr(settings[part.name], "precision", "")
        learning_dtype(word, device, torch.float32, f"parts.{part.name}.precision")


def learn(
    parts: Sequence[Part], settings: Mapping[str, Any], context: Context, folder: Path
) -> tuple[Context, dict[str, tuple[dict[str, Tensor], dict[str, Any]]]]:
    """Let parts be learnt one after the other, each with those before it, and nothing be resumed.

    Parameters
    ----------
    parts : sequence of Part
    settings : mapping of str to object
        Each part's.
    context : Context
    folder : Path
        For what they write on the way; each has a folder of its own in it.

    Returns
    -------
    Context
        With the parts.
    dict of str to (dict, dict)
        Each part's tensors and metadata, as its checkpoint has them.
    """
    files = {}
    for part in parts:
        place = folder / part.name
        place.mkdir()
        stage = Stage(part.name, place)
        part.fit(settings[part.name], context, stage)
        tensors, document = stage.load()
        files[part.name] = (tensors, document)
        learnt = part.load(tensors, document, stage.result, context)
        context = replace(context, parts={**context.parts, part.name: learnt})
    return context, files


def parts_of(method: str) -> tuple[Part, ...]:
    """What a method of `l2i.registry.METHODS` must learn, in order; none: nothing.

    Raises
    ------
    UsageError
        It is no explanation method, or one that explains no clip alone.
    """
    kind = METHODS[method]
    if not callable(kind) or not hasattr(kind, "parts"):
        raise UsageError(
            f"{method} is no explanation method: a method is a class with 'parts', what it must "
            "learn, empty where there is nothing."
        )
    if getattr(kind, "knows_parts", False):
        raise UsageError(
            f"Method {method!r} knows the parts of a mixture, and explains no clip alone: train "
            "another method, and compare this one by 'l2i benchmark --protocol mix0'."
        )
    return tuple(PARTS[word] if isinstance(word, str) else word for word in kind.parts)

"""A dictionary with a block of components for each class, learnt from the labels alone.

Each block is learnt by sparse NMF of the training clips of its class, as
``dictionary.method = "class-wise"`` learns it, here without components for the other clips. No
classifier takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from l2i import config
from l2i.dsp.spectrogram import Domain
from l2i.errors import UsageError
from l2i.registry import class_places
from l2i.training.dictionary import Dictionary
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage


@dataclass(frozen=True)
class ClassBlocks:
    """Components, and whose they are.

    Attributes
    ----------
    w : Tensor [F, K]
    owners : Tensor [K], int64
        The class of each, of the classifier's; -1 where the classifier does not have it.
    """

    w: Tensor
    owners: Tensor


class ClassDictionarySettings(BaseModel):
    """The table ``[parts.class-dictionary]``."""

    model_config = ConfigDict(extra="forbid")

    each: int = Field(10, ge=1, description="Components of each class.")
    sparsity: float = Field(0.8, ge=0)
    iterations: int = Field(100, ge=1)
    tolerance: float = Field(1e-4, ge=0, description="Stop below this relative fall.")
    max_clips: int = Field(0, ge=0, description="Clips of a class, at most; 0: all.")


class ClassDictionary:
    """Blocks of W, class by class: a `l2i.training.parts.Part`."""

    name = "class-dictionary"
    settings = ClassDictionarySettings

    def __init__(self) -> None:
        self._learner = Dictionary(f"parts.{self.name}.each")

    def check(self, settings: ClassDictionarySettings, sounds: Sounds, domain: Domain) -> None:
        """Refuse sounds without labels, or of which a class has too few.

        Raises
        ------
        UsageError
            Nothing is labelled.
        DataError
            A class has no training clip, or more components than frames.
        """
        if not sounds.classes:
            raise UsageError(
                f"{sounds.title} have no labels, and the {self.name} is learnt class by class: "
                "give a data set with classes."
            )
        self._learner.check(self._as_dictionary(settings, sounds), sounds, domain)

    def fit(self, settings: ClassDictionarySettings, context: Context, stage: Stage) -> None:
        """Learn the blocks, and finish the stage with them."""
        self._learner.fit(self._as_dictionary(settings, context.sounds), context, stage)

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> ClassBlocks:
        """The blocks, on the device, by the classifier's classes.

        Raises
        ------
        UsageError
            The classifier has none of the classes that were learnt.
        """
        w = self._learner.load(tensors, document, path, context)
        names = document["names"]
        places = class_places(names, context.classifier.classes)
        if all(at is None for at in places):
            raise UsageError(
                f"The classifier has none of the classes of {path.name} ({', '.join(names[:5])}): "
                "take a method that asks the classifier."
            )
        owners = [-1 if (at := places[c]) is None else at for c in document["classes"]]
        return ClassBlocks(w, torch.tensor(owners, device=w.device))

    @staticmethod
    def _as_dictionary(s: ClassDictionarySettings, sounds: Sounds) -> config.Dictionary:
        return config.Dictionary(
            method="class-wise",
            components=s.each * len(sounds.classes),
            noise_components=0,
            **s.model_dump(exclude={"each"}),
        )


CLASS_DICTIONARY = ClassDictionary()

"""The whole tree of settings, and the signatures that name an experiment and its stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

from pydantic import Field, model_validator

from l2i.config.schema import (
    GATED,
    Classifier,
    Dataset,
    Dictionary,
    Explanation,
    Interpreter,
    Method,
    Output,
    Run,
    Section,
    Spectrogram,
)
from l2i.config.text import meanings, toml_tables

# What an experiment is called, where its data lie and what it runs on are not the experiment.
_NOT_SCIENCE: dict[str, Any] = {
    "dataset": {"data_dir"},
    # Its content counts (see `l2i.recipes.training.train`), wherever it lies.
    "classifier": {"spec"},
    # What is said of figures does not change them.
    "explanation": {"warn"},
    "run": {"device", "threads", "checkpoint_minutes", "experiment", "name"},
    "output": True,
}

# Unset, they leave the signatures of runs that were made before there were these keys.
_LATE_KEYS = {
    ("classifier",): ("width", "freeze_after", "last_epoch", "precision"),
    ("classifier", "augmentation"): ("filter_db", "noise_db"),
    ("dictionary",): ("weights",),
    ("interpreter",): (
        *("network", "layers", "skip_silence", "head_learning_rate", "average"),
        *("mixed_db", "silenced"),
    ),
    ("explanation",): ("metrics",),
}

# The sections each stage of `train` reads; a stage depends on those before it.
STAGES = {
    "classifier": ("dataset", "spectrogram", "classifier", "run"),
    "dictionary": ("dataset", "spectrogram", "dictionary", "run"),
    "interpreter": ("dataset", "spectrogram", "classifier", "dictionary", "interpreter", "run"),
}


class Config(Section):
    """The whole tree."""

    dataset: Dataset = Dataset()
    spectrogram: Spectrogram = Spectrogram()
    classifier: Classifier = Classifier()
    dictionary: Dictionary = Dictionary()
    interpreter: Interpreter = Interpreter()
    method: Method = Method()
    parts: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of each part that a method of your own learns.",
    )
    explanation: Explanation = Explanation()
    output: Output = Output()
    run: Run = Run()

    @model_validator(mode="after")
    def _published(self) -> Config:
        if self.explanation.rule == "published" and self.method.name == GATED:
            object.__setattr__(self, "method", Method(name="l2i"))
            object.__setattr__(self, "parts", {k: v for k, v in self.parts.items() if k != "gates"})
        return self

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """With other values of some settings of some sections, which are not validated again.

        >>> Config().changed(run={"seed": 1}).run.seed
        1
        """
        new = {name: getattr(self, name).model_copy(update=v) for name, v in sections.items()}
        return self.model_copy(update=new)

    def flat(self) -> dict[str, Any]:
        """Every setting under its dotted key, ``interpreter.epochs`` say.

        >>> Config().flat()["dictionary.components"]
        100
        """
        return flatten(self.model_dump(mode="json"))

    def science(self) -> dict[str, Any]:
        """The settings of `flat` that make the experiment: not where its data lie, what it is
        called, what it runs on.

        >>> set(Config().flat()) - set(Config().science()) >= {"run.device", "dataset.data_dir"}
        True
        """
        return flatten(self.model_dump(mode="json", exclude=_NOT_SCIENCE))

    def signature(self, stage: str | None = None) -> str:
        """Twelve hexadecimal digits that name the experiment, or one stage of it.

        Parameters
        ----------
        stage : str, optional
            ``classifier``, ``dictionary`` or ``interpreter``: only what this stage reads counts.
            For a part of another method all does.

        Examples
        --------
        >>> from l2i.config import resolve
        >>> a, b = resolve(), resolve(overrides=["run.device=cuda", "run.name=mine"])
        >>> a.signature() == b.signature()
        True
        >>> c = resolve(overrides=["interpreter.epochs=3"])
        >>> a.signature("classifier") == c.signature("classifier")
        True
        >>> a.signature() == c.signature()
        False
        """
        tree = self.model_dump(mode="json", exclude=_NOT_SCIENCE)
        sections = tuple(tree)
        del tree["explanation"]["rule"]  # It says which method, and that is among the settings.
        defaults = Config().model_dump(mode="json")
        for path, keys in _LATE_KEYS.items():
            node, unset = (reduce(getitem, path, each) for each in (tree, defaults))
            for key in keys:
                if node[key] == unset[key]:
                    del node[key]
        if tree["method"] == Method().model_dump():
            del tree["method"]
        if not tree["parts"]:
            del tree["parts"]
        if stage is not None:
            read = STAGES.get(stage, sections)
            tree = {name: tree[name] for name in read if name in tree}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]

    def to_toml(self, explain: bool = False) -> str:
        """The tree as TOML that `resolve` reads back to an equal tree; unset keys are left out.

        With `explain`, what each setting means stands over it as a comment.
        """
        known = meanings(type(self)) if explain else None
        return toml_tables(self.model_dump(mode="json"), known).rstrip() + "\n"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values under their dotted keys, whether these were quoted or written as tables.

    >>> flatten({"run": {"seed": 1}, "interpreter.epochs": 2})
    {'run.seed': 1, 'interpreter.epochs': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

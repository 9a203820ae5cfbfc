"""The whole tree of settings, and the signatures that name an experiment and its stages; what a
setting means and may be, in words; and TOML that is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from textwrap import wrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, model_validator

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
        default_factory=dict, description="Settings of each part that a method of your own learns."
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


# --- in words -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a setting is.

    Attributes
    ----------
    text : str
        Its description; units are in it, or in the name.
    allowed : str
        Its range or its choices; empty: anything of its kind.
    default : object
        Before presets.
    """

    text: str
    allowed: str
    default: Any

    def __str__(self) -> str:
        return f"{self.text} ({self.allowed})" if self.allowed else self.text


def meanings(model: type[BaseModel], prefix: str = "") -> dict[str, Meaning]:
    """What each setting of a section, and of those below it, means, under its dotted key.

    >>> from l2i.config import Config
    >>> str(meanings(Config)["interpreter.average"])
    'Decay of the moving average of the weights; 0: none. (0 or more, below 1)'
    """
    by_name: dict[str, Meaning] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            by_name |= meanings(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            allowed = _allowed(kind, field.metadata)
            by_name[prefix + name] = Meaning(field.description or "", allowed, default)
    return by_name


def _allowed(kind: Any, metadata: Sequence[Any]) -> str:
    """The range or the choices of a setting, in words."""
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = [*more, *metadata]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        (one, *others) = [k for k in get_args(kind) if k is not type(None)]
        return "" if others else _allowed(one, metadata)
    words = {"ge": "{:g} or more", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}
    bounds = []
    for bound in [b for m in metadata for b in (*getattr(m, "metadata", ()), m)]:
        for name, text in words.items():
            if (value := getattr(bound, name, None)) is not None:
                bounds.append(text.format(value))
    return ", ".join(dict.fromkeys(bounds))


def toml_tables(
    tree: Mapping[str, Any], known: Mapping[str, Meaning] | None = None, prefix: str = ""
) -> str:
    """A tree of tables as TOML that `read_toml` reads back; keys without a value are left out.

    What is `known` of a setting, by its dotted key, stands over it as a comment.
    """
    text = ""
    for name, table in tree.items():
        if not isinstance(table, dict) or not table:
            continue
        text += f"[{prefix}{name}]\n"
        for key, value in table.items():
            if value is None or isinstance(value, dict):
                continue
            if meaning := (known or {}).get(f"{prefix}{name}.{key}"):
                text += "".join(f"# {line}\n" for line in wrap(str(meaning), 78))
            text += f"{key} = {_toml_value(value)}\n"
        text += "\n" + toml_tables(table, known, f"{prefix}{name}.")
    return text


def toml_of(tree: Mapping[str, Any]) -> str:
    """A tree as TOML that `read_toml` reads back; keys without a value are left out.

    >>> print(toml_of({"extends": "demo", "sweep": {"seeds": [0, 1], "interpreter.epochs": [2]}}))
    "extends" = "demo"
    "sweep" = {"seeds" = [0, 1], "interpreter.epochs" = [2]}
    """
    return "\n".join(_toml_pairs(tree))


def _toml_pairs(tree: Mapping[str, Any]) -> list[str]:
    return [f"{_toml_value(str(k))} = {_toml_value(v)}" for k, v in tree.items() if v is not None]


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_toml_pairs(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's too, but for one control character that JSON
    # leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""A config in words: what a setting means and may be, and TOML that is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


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

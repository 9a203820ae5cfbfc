"""What options take beyond click's own kinds: places, quantities with their unit, data sets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

_EMPTY = "it is empty; the current folder is '.'."


class _Finite(click.types.FloatParamType):
    """A number; not NaN, which is in every range, nor infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


class FiniteRange(_Finite, click.FloatRange):
    """A finite number in a range."""


class _Place(click.ParamType):
    """A local path as a `Path`, or an ``s3://`` address as it stands."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        text = str(value)
        if not text:
            self.fail(_EMPTY, param, ctx)
        if "://" not in text:
            return Path(text)
        if not text.lower().startswith("s3://"):
            self.fail(f"{text!r} is neither a folder nor an s3:// address.", param, ctx)
        return text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return click.Path().shell_complete(ctx, param, incomplete)


class _Folder(click.Path):
    """A local folder, as a `Path`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail(_EMPTY, param, ctx)
        return super().convert(value, param, ctx)


class Quantity(click.ParamType):
    """A number with its unit, as a number of one unit.

    Parameters
    ----------
    units : mapping of str to float
        What each is worth; a number without a unit is of the one that is worth 1.
    least : float
        Refused below it.
    whole : bool
        Whether an integer is wanted.

    Examples
    --------
    >>> DURATION_S.convert("1h30m", None, None), DURATION_S.convert("90", None, None)
    (5400.0, 90.0)
    """

    def __init__(self, units: Mapping[str, float], least: float = 0.0, whole: bool = False) -> None:
        self.units = {name.lower(): worth for name, worth in units.items()}
        self.names = list(units)
        self.least = least
        self.whole = whole
        self.name = "quantity"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip().lower()
        pattern = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)"
        parts = re.findall(pattern, text)
        known = all(unit in self.units or unit == "" for _, unit in parts)
        # Each of several numbers must have its unit.
        bare = any(unit == "" for _, unit in parts) and len(parts) > 1
        if not re.fullmatch(f"(?:{pattern})+", text) or not known or bare:
            self.fail(
                f"{value!r} is no number with a unit; there are {', '.join(self.names)}.",
                param,
                ctx,
            )
        total = sum(float(n) * self.units.get(unit, 1.0) for n, unit in parts)
        if total < self.least:
            one = next(name for name in self.names if self.units[name.lower()] == 1)
            self.fail(f"{value} is not in the range: it must be {self.least:g} {one} or more.")
        return round(total) if self.whole else total


_TIME = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = {"MiB": 1.0, "M": 1.0, "GiB": 1024.0, "G": 1024.0}
DURATION_S = Quantity(_TIME)
MINUTES = Quantity({name: worth / 60 for name, worth in _TIME.items()})


def timeout_s(least: int) -> Quantity:
    """Whole seconds."""
    return Quantity(_TIME, least, whole=True)


def memory_mib(least: int) -> Quantity:
    """Whole MiB."""
    return Quantity(_SIZE, least, whole=True)


class _Dataset(click.ParamType):
    """The name of a data set, as it stands: what has none says so with the nearest one."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if ":" not in text and Path(text).is_dir():
            from l2i.data import DATASETS

            if text not in DATASETS:
                why = f"{text!r} is a folder, and no data set's name"
                self.fail(f"{why}: name 'folder', and give --data-dir {text}.", param, ctx)
        return text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from l2i.data import DATASETS

        return [CompletionItem(name) for name in DATASETS if name.startswith(incomplete)]


FINITE = _Finite()
FOLDER = _Folder(path_type=Path, file_okay=False)
PLACE = _Place()
DATASET = _Dataset()

"""What options take beyond click's own kinds: places, quantities with their unit, data sets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from l2i.errors import UsageError
from l2i.registry import METHODS


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


class _Place(click.Path):
    """A local path as a `Path`: a folder's, or, of any place, an ``s3://`` address as it stands."""

    def __init__(self, anywhere: bool) -> None:
        super().__init__(path_type=Path, file_okay=anywhere, readable=not anywhere)
        self._anywhere = anywhere

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; the current folder is '.'.", param, ctx)
        if "://" not in str(value):
            return super().convert(value, param, ctx)
        if not self._anywhere:
            # As a path it would be a folder called 's3:' in the current one.
            self.fail(f"{value!r} is an address, not a folder of this machine.", param, ctx)
        if not str(value).lower().startswith("s3://"):
            self.fail(f"{value!r} is neither a folder nor an s3:// address.", param, ctx)
        return value


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


TIME = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_MIB = {"MiB": 1.0, "M": 1.0, "GiB": 1024.0, "G": 1024.0}
DURATION_S = Quantity(TIME)
MINUTES = Quantity({name: worth / 60 for name, worth in TIME.items()})


class Word(click.ParamType):
    """A word as it stands.

    Parameters
    ----------
    check : callable
        Says by a `UsageError` what is wrong with it.
    names : callable
        The words that complete it.
    """

    name = "name"

    def __init__(self, check: Callable[[str], object], names: Callable[[], Iterable[str]]) -> None:
        self._check, self._names = check, names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._check(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def _datasets() -> Iterable[str]:
    from l2i.data import DATASETS

    return DATASETS


def _check_dataset(word: str) -> None:
    """Refuse a folder; what else is none says so later, with the nearest one."""
    if ":" not in word and Path(word).is_dir() and word not in _datasets():
        raise UsageError(
            f"{word!r} is a folder, and no data set's name: name 'folder', and give --data-dir "
            f"{word}."
        )


FINITE, POSITIVE = _Finite(), FiniteRange(0, min_open=True)
FOLDER, PLACE = _Place(anywhere=False), _Place(anywhere=True)
DATASET = Word(_check_dataset, _datasets)
METHOD = Word(METHODS.where, lambda: METHODS)

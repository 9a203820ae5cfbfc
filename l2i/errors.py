"""What can go wrong, as one tree.

::

    L2IError
    ├── UsageError      exit code 2: the words of the command or of the config are wrong
    │   ├── ConfigError     a config with one or more mistakes, all of them named
    │   ├── UnknownName     a name that is not registered, with the nearest one that is
    │   └── MissingPackage  what was asked for needs a package that is not installed
    └── InputError      exit code 1: the words are fine, what they point to is not
        ├── DataError       a data set or a clip is absent, corrupt or does not fit
        ├── CheckpointError weights are absent, damaged or made under other settings
        ├── LaunchError     an engine, its queue, an image or a job is absent, or refuses
        ├── StoreError      the run store cannot be read or written
        └── DeviceError     the device asked for is not there

Every message is one sentence or two: what is wrong, where, and what to do. The command line
prints it without a traceback. Any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "InputError",
    "L2IError",
    "LaunchError",
    "MissingPackage",
    "StoreError",
    "UnknownName",
    "UsageError",
]


class L2IError(Exception):
    """Base of everything a user can mend; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(L2IError):
    """The words of the command or of the config are wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A config that does not validate.

    Parameters
    ----------
    problems : list of str
        One sentence per mistake; all of them are shown at once.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        head = problems[0] if len(problems) == 1 else f"{len(problems)} mistakes in the config:"
        body = "" if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
        super().__init__(head + body)


class UnknownName(UsageError):
    """A name that is not in a registry."""


class MissingPackage(UsageError):
    """What was asked for needs a package that is not installed.

    Parameters
    ----------
    what : str
        What needs it, as the sentence begins.
    package : str
        What pip calls it.
    alone : bool
        Whether that package alone would do.

    Examples
    --------
    >>> raise MissingPackage("This picture", "matplotlib")
    Traceback (most recent call last):
    l2i.errors.MissingPackage: This picture needs matplotlib, which is not installed: \
'pip install matplotlib' will do; 'pip install "l2i[service]"' brings all that l2i can use.
    """

    def __init__(self, what: str, package: str, alone: bool = True) -> None:
        first = f"'pip install {package}' will do; " if alone else ""
        super().__init__(
            f"{what} needs {package}, which is not installed: {first}'pip install "
            '"l2i[service]"\' brings all that l2i can use.'
        )


class InputError(L2IError):
    """The words are fine, what they point to is not."""


class DataError(InputError):
    """A data set or a clip is absent, corrupt, or does not fit what was asked of it."""


class CheckpointError(InputError):
    """Weights are absent, damaged, or were made under other settings."""


class LaunchError(InputError):
    """An engine, its queue, an image or a job is absent, or refuses what was asked of it."""


class StoreError(InputError):
    """The run store cannot be read or written."""


class DeviceError(InputError):
    """The device asked for is not there, or cannot do what was asked of it."""


def need_positive(word: str, value: Any, unit: str) -> None:
    """Refuse what is no finite number above 0.

    Parameters
    ----------
    word : str
        What the value is called where it was given.
    value : object
    unit : str

    Raises
    ------
    UsageError
    """
    if not (isinstance(value, Real) and 0 < float(value) < math.inf):
        raise UsageError(f"{word} {value!r} must be above 0 {unit}, and a finite number.")

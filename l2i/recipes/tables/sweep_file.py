"""A sweep's file: a config, and a table ``[sweep]`` that says what is varied.

::

    extends = "esc10"

    [sweep]
    folds = [1, 2, 3, 4, 5]                 # dataset.fold
    seeds = [0, 1]                          # run.seed
    "interpreter.pooling" = ["attention", "max"]
    metrics = ["accuracy", "fidelity_top1"] # what the table shows; there is a default

    [[sweep.settings]]                      # settings that move together, by a name
    name = "without sparsity"
    "interpreter.lambda_sparsity" = 0.0

The children are the product of it all. Folds and seeds are what a figure's spread is over; each
combination of the others is a **setting**, a row of the table.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2i.config import Config, flatten, read_toml, resolve
from l2i.data import refuse_folder
from l2i.errors import ConfigError
from l2i.metrics import METRICS
from l2i.registry import did_you_mean

_SHORT = {"folds": "dataset.fold", "seeds": "run.seed"}
_SPREAD = tuple(_SHORT.values())

METRICS_SHOWN = (
    *("accuracy", "auprc_macro", "fidelity_top1", "fidelity_top3", "fidelity_auprc_macro"),
    *("faithfulness_probability", "random_probability", "average_increase", "average_drop"),
    *("ff_mean", "fid_in", "components"),
)
"""By default, as far as the task has them."""


@dataclass(frozen=True)
class Child:
    """One training of a sweep.

    Attributes
    ----------
    setting : str
        Its row of the table.
    fold, seed : int
    overrides : tuple of str
        ``key=value`` over the file, as ``l2i train -o`` takes them.
    config : Config
    """

    setting: str
    fold: int
    seed: int
    overrides: tuple[str, ...]
    config: Config

    @property
    def title(self) -> str:
        """For people: setting, fold, seed."""
        return f"{self.setting}, fold {self.fold}, seed {self.seed}"

    @property
    def place(self) -> dict[str, Any]:
        """Its place in the table: setting, fold, seed."""
        return {"setting": self.setting, "fold": self.fold, "seed": self.seed}

    @property
    def key(self) -> str:
        """The same child has the same key, whatever else the sweep has."""
        return self.config.signature()


@dataclass(frozen=True)
class Sweep:
    """What a file asks for.

    Attributes
    ----------
    path : Path
    settings : tuple of str
        The rows of the table, in order.
    children : tuple of Child
    metrics : tuple of str
        Names of `l2i.metrics.METRICS`; empty: the default.
    """

    path: Path
    settings: tuple[str, ...]
    children: tuple[Child, ...]
    metrics: tuple[str, ...]

    @property
    def signature(self) -> str:
        """The same children are the same sweep."""
        words = json.dumps(sorted(child.key for child in self.children))
        return hashlib.sha256(f"sweep {words}".encode()).hexdigest()[:12]


def facts(wanted: Sweep) -> dict[str, Any]:
    """What `l2i.run.family.make_parent` asks about the run above all of a sweep, by its names."""
    first = wanted.children[0].config
    return {
        "experiment": first.run.experiment or first.dataset.name,
        "name": f"{wanted.path.stem}-sweep-{wanted.signature[:6]}",
        "signature": wanted.signature,
        "tags": {"l2i.kind": "sweep", "l2i.dataset": first.dataset.name},
        "params": {
            "sweep.file": wanted.path.name,
            "sweep.children": len(wanted.children),
            "sweep.settings": list(wanted.settings),
            "sweep.folds": sorted({c.fold for c in wanted.children}),
            "sweep.seeds": sorted({c.seed for c in wanted.children}),
        },
    }


def read_sweep(
    path: Path, *, overrides: Iterable[str] = (), options: Mapping[str, Any] | None = None
) -> Sweep:
    """Read and validate a sweep's file, every child of it.

    Parameters
    ----------
    path : Path
    overrides, options
        As for `l2i.config.resolve`; they hold for all children, below what the sweep varies.

    Raises
    ------
    ConfigError
        With one sentence per mistake.
    UsageError
        A data set takes no folder, and one was named.
    """
    table = read_toml(path).get("sweep")
    if not isinstance(table, dict):
        raise ConfigError([f"{path} has no table [sweep]: it is one training, for 'l2i train'."])
    problems: list[str] = []
    metrics = table.pop("metrics", [])
    if not isinstance(metrics, list) or not all(isinstance(m, str) for m in metrics):
        problems.append("sweep.metrics must be a list of names.")
        metrics = []
    for name in metrics:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS)
            problems.append(f"sweep.metrics: there is no figure {name!r}{hint}")
    named = table.pop("settings", [])
    groups: list[tuple[str, dict[str, Any]]] = []
    if not isinstance(named, list) or not all(isinstance(s, dict) for s in named):
        problems.append("sweep.settings must be tables: [[sweep.settings]].")
        named = []
    for number, setting in enumerate(named, start=1):
        flat = flatten(setting)
        name = flat.pop("name", None)
        if not isinstance(name, str) or not name.strip():
            problems.append(f"sweep.settings[{number}] needs a name.")
            continue
        if name in [n for n, _ in groups]:
            problems.append(f"sweep.settings: the name {name!r} comes twice.")
        groups.append((name, flat))
    axes = {_SHORT.get(key, key): values for key, values in flatten(table).items()}
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            problems.append(f"sweep.{key} = {values!r}: it must be a list of values to try.")
        elif len({json.dumps(v) for v in values}) < len(values):
            problems.append(f"sweep.{key} has a value twice.")
    if problems:
        raise ConfigError(problems)
    if not axes and not groups:
        raise ConfigError([f"[sweep] of {path} varies nothing; give folds = [1, 2], say."])

    varied = [key for key in axes if key not in _SPREAD]
    spread = [key for key in axes if key in _SPREAD]
    children: list[Child] = []
    settings: list[str] = []
    seen: dict[str, str] = {}
    for (name, fixed), values in itertools.product(
        groups or [("", {})], itertools.product(*(axes[key] for key in varied))
    ):
        chosen = fixed | dict(zip(varied, values, strict=True))
        words = [name] if name else []
        words += [f"{_called(key, axes)}={_word(v)}" for key, v in chosen.items() if key in axes]
        setting = ", ".join(words) or "all"
        settings.append(setting)
        for drawn in itertools.product(*(axes[key] for key in spread)):
            own = chosen | dict(zip(spread, drawn, strict=True))
            over = [f"{key}={json.dumps(value)}" for key, value in own.items()]
            try:
                config = resolve(path, overrides=[*overrides, *over], options=options)
            except ConfigError as error:
                problems += [p for p in error.problems if p not in problems]
                continue
            child = Child(setting, config.dataset.fold, config.run.seed, tuple(over), config)
            if (twin := seen.get(child.key)) is not None:
                problems.append(f"[sweep]: {child.title!r} and {twin!r} are the same training.")
            seen[child.key] = child.title
            children.append(child)
    if problems:
        raise ConfigError(problems)
    for child in children:
        refuse_folder(child.config.dataset.name, child.config.dataset.data_dir)
    return Sweep(path, tuple(settings), tuple(children), tuple(metrics))


def _called(key: str, axes: Iterable[str]) -> str:
    """What a setting is called in a row: by its last word, unless that tells it from no other.

    >>> axes = ["method.name", "interpreter.epochs", "classifier.epochs", "spectrogram.n_fft"]
    >>> [_called(key, axes) for key in axes]
    ['method', 'interpreter.epochs', 'classifier.epochs', 'n_fft']
    """
    above, _, last = key.rpartition(".")
    if last == "name":
        return above
    return key if sum(axis.rpartition(".")[2] == last for axis in axes) > 1 else last


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_word, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)

"""Files, presets and words, laid over each other, and what is wrong with them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from l2i.config.tree import Config, meanings
from l2i.environment import usual_data_dir
from l2i.errors import ConfigError
from l2i.registry import nearest

# The preset that is laid over a data set's, for a classifier of another making.
_OWN = "own-classifier"


def preset_names() -> list[str]:
    """Names of the built-in presets, one per data set."""
    files = resources.files("l2i") / "presets"
    names = (p.name[: -len(".toml")] for p in files.iterdir() if p.name.endswith(".toml"))
    return sorted(name for name in names if name != _OWN)


def own_classifier_preset(section: str) -> dict[str, Any]:
    """A section of the settings that a classifier of another making is given, where nothing else is
    said; empty: none of them differs."""
    return _preset(_OWN).get(section, {})


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_toml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file's tree, laid over what it `extends`; nothing is validated.

    Raises
    ------
    ConfigError
        There is no such file, or it is not TOML, or it extends itself.
    """
    path = path.resolve()
    if path in seen:
        raise ConfigError([f"{path} extends itself, by way of {' -> '.join(map(str, seen))}."])
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"There is no config file {path}."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"The config file {path} cannot be read: {error}."]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"The config file {path} is not TOML: {error}."]) from None
    extends = tree.pop("extends", None)
    if extends is None:
        return tree
    if not isinstance(extends, str):
        raise ConfigError([f"'extends' in {path} must be the name of one file."])
    if extends in preset_names():
        # A file may build on a built-in preset by its bare name.
        return _build_on(_preset(extends), tree)
    base = path.parent / extends
    if not base.exists():
        raise ConfigError(
            [
                f"{path} extends {extends!r}, which is neither a file ({base.resolve()}) nor a "
                f"preset: {', '.join(preset_names())}."
            ]
        )
    return _build_on(read_toml(base, (*seen, path)), tree)


def _build_on(base: dict[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over those that they build on, whose parts go where another method is named."""
    usual, named = (x.get("method", {}) for x in (base, tree))
    both = isinstance(usual, Mapping) and isinstance(named, Mapping)
    if both and "name" in usual and named.get("name", usual["name"]) != usual["name"]:
        base = {k: v for k, v in base.items() if k != "parts"}
    return _merge(base, tree)


def _preset(name: str) -> dict[str, Any]:
    text = (resources.files("l2i") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _override(word: str) -> dict[str, Any]:
    key, equals, value = word.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError([f"-o {word!r} must be key=value, such as -o interpreter.epochs=10."])
    try:
        tree = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        tree = value  # A bare word is a string: quoting it twice in a shell is no joy.
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return tree


def _sentence(error: Any) -> str:
    # In a location, integers are positions in a list and are shown as such.
    parts = [f"[{p}]" if isinstance(p, int) else str(p) for p in error["loc"]]
    key = ".".join(parts).replace(".[", "[")
    if error["type"] == "extra_forbidden":
        known = list(meanings(Config))
        sections = sorted({k.rpartition(".")[0] for k in known})
        leaf = key.rpartition(".")[2]
        # A word without a dot is more likely a section than a whole key.
        first, second = (known, sections) if "." in key else (sections, known)
        like = (
            nearest(key, first)
            or nearest(key, second)
            or next((k for k in known if k.rpartition(".")[2] == leaf), None)
        )
        hint = f"; did you mean {like!r}?" if like else "; 'l2i config show' lists them."
        return f"There is no setting {key!r}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] in ("value_error", "missing"):
        return f"{key}: {message}."
    return f"{key} = {error['input']!r}: {message}."


def resolve(
    file: str | Path | None = None,
    *,
    dataset: str | None = None,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Lay the layers over each other and validate the result.

    Parameters
    ----------
    file : path, optional
        A TOML file; its ``extends`` names another file, relative to it, or a built-in preset.
        A table ``[sweep]`` is for ``l2i sweep``, and left out here.
    dataset : str, optional
        Name of the data set; wins over the file's. Where nothing names one it is ``folder`` if
        there is a ``dataset.data_dir``, else ``demo``.
    overrides : iterable of str
        ``section.key=value`` with a TOML value; a bare word is taken as a string.
    options : mapping, optional
        ``section.key`` to value; None means not given.

    Raises
    ------
    ConfigError
        With one sentence per mistake, which begins with the file where that is to be mended.

    Examples
    --------
    >>> resolve(overrides=["interpreter.epochs=7"]).interpreter.epochs
    7
    >>> resolve(overrides=["run.sed=7"])
    Traceback (most recent call last):
    l2i.errors.ConfigError: There is no setting 'run.sed'; did you mean 'run.seed'?
    """
    problems: list[str] = []
    own: dict[str, Any] = read_toml(Path(file)) if file is not None else {}
    own.pop("sweep", None)
    over: dict[str, Any] = {}
    for word in overrides:
        try:
            over = _merge(over, _override(word))
        except ConfigError as error:
            problems += error.problems
    for key, value in (options or {}).items():
        if value is not None:
            section, _, leaf = key.rpartition(".")
            over = _merge(over, {section: {leaf: value}})
    if dataset is not None:
        over = _merge(over, {"dataset": {"name": dataset}})
    laid = _build_on(own, over)

    section = laid.get("dataset", {})
    name = "demo"
    if isinstance(section, Mapping):
        # A folder that is named and nothing else is a folder of one's own. L2I_DATA_DIR is for all
        # data sets, and says nothing of which is meant.
        if "name" not in section and section.get("data_dir") not in (None, "", usual_data_dir()):
            laid = _merge(laid, {"dataset": {"name": "folder"}})
        name = laid.get("dataset", {}).get("name", "demo")
    layers = _preset(name) if name in preset_names() else {}
    chosen = laid.get("classifier", {})
    if isinstance(chosen, Mapping) and chosen.get("spec"):
        layers = _merge(layers, _preset(_OWN))
    layers = _build_on(layers, laid)
    try:
        config = Config.model_validate(layers)
    except ValidationError as error:
        for e in error.errors():
            # Presets have no mistakes: what the words do not say is the file's.
            blamed = file is not None and not _says(over, e["loc"])
            problems.append(f"{file}: {_sentence(e)}" if blamed else _sentence(e))
    if problems:
        raise ConfigError(problems)
    return config


def _says(tree: Any, location: Sequence[int | str]) -> bool:
    """Whether a tree has a value where a mistake is, be it a whole list of which an item is."""
    for part in location:
        if not isinstance(tree, Mapping):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True

"""Classifiers by a word: a file of Python and a name in it, a module and a name, a checkpoint of
``transformers``, an entry point.

=========================  ====================================================================
``yamnet.py:load``         ``load`` of the file ``yamnet.py``
``package.module:name``    ``name`` of an importable module
``hf:folder``              the audio classifier in ``folder``, see `l2i.models.hugging_face`
``name``                   of the entry points ``l2i.classifiers`` of installed packages
=========================  ====================================================================

What Python names is a classifier, as `l2i.models.wrapped.wrap` makes it, or a function without
arguments that returns one. The file's code is run: name only files that you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from l2i.errors import DataError, L2IError, UsageError
from l2i.registry import nearest
from l2i.types import Classifier

__all__ = ["installed_classifiers", "load_classifier"]

_GROUP = "l2i.classifiers"
_CHECKPOINT = "hf:"
_FORMS = "FILE.py:NAME, MODULE:NAME or hf:FOLDER"


def installed_classifiers() -> dict[str, str]:
    """Names of classifiers that installed packages offer, and where each is."""
    return {entry.name: entry.value for entry in entry_points(group=_GROUP)}


def load_classifier(spec: str) -> Classifier:
    """The classifier that a word names; see the module.

    Raises
    ------
    UsageError
        The word names nothing, or something that is no classifier.
    DataError
        The file is not there, or its code fails.
    """
    if spec.startswith(_CHECKPOINT):
        from l2i.models.hugging_face import from_transformers

        return from_transformers(Path(spec.removeprefix(_CHECKPOINT)))
    where, colon, name = spec.rpartition(":")
    if not colon:
        known = installed_classifiers()
        if spec not in known:
            like = nearest(spec, list(known))
            hint = f"; did you mean {like!r}?" if like else "."
            raise UsageError(
                f"There is no classifier {spec!r}{hint} Name one as {_FORMS}"
                + (f", or one that is installed: {', '.join(known)}." if known else ".")
            )
        where, _, name = known[spec].rpartition(":")
    if not where or not name:
        raise UsageError(f"{spec!r} names no classifier: give {_FORMS}.")
    module = _of_file(Path(where)) if where.endswith(".py") else _of_module(where)
    try:
        found = getattr(module, name)
    except AttributeError:
        like = nearest(name, [n for n in vars(module) if not n.startswith("_")])
        hint = f"; did you mean {like!r}?" if like else "."
        raise UsageError(f"{where} has no {name!r}{hint}") from None
    if not isinstance(found, Classifier) and callable(found):
        found = _run(spec, found)
    if not isinstance(found, Classifier):
        raise UsageError(
            f"{spec} is {_a(found)}, no classifier: let it return what l2i.wrap(...) gives."
        )
    return found


def _a(thing: Any) -> str:
    return f"a {type(thing).__name__}" if thing is not None else "nothing"


def _of_file(path: Path) -> Any:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    # A name of its own: two files of one name are two modules.
    spec = importlib.util.spec_from_file_location(f"_l2i_classifier_{abs(hash(path))}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # What lies beside it can be imported, as when the file itself is run.
    sys.path.insert(0, str(path.parent))
    try:
        _run(str(path), lambda: spec.loader.exec_module(module))
    finally:
        sys.path.remove(str(path.parent))
    return module


def _of_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"There is no module {name!r} that can be imported.") from None
        raise DataError(f"{name} cannot be imported: {error}.") from error
    except Exception as error:
        raise DataError(f"{name} cannot be imported: {_told(error)}") from error


def _run(what: str, code: Any) -> Any:
    """Run a user's code; what it raises is about it, and not about us."""
    try:
        return code()
    except L2IError:
        raise
    except Exception as error:
        raise DataError(f"{what} cannot be loaded: {_told(error)}") from error


def _told(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."

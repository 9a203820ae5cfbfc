"""Names of things that can be chosen, and where each is.

A registry is a literal table ``name -> "module:attribute"``. Nothing is imported until a name
is asked for, so that listing the names (in ``--help``, say) costs nothing. It is open: a word with
a colon names a thing of somebody else's, and so does an entry point of an installed package.

=========================  ====================================================================
``saliency``               of the table
``mine``                   of the entry points (``l2i.methods``, ``l2i.datasets``, ``l2i.metrics``,
                           ``l2i.classifiers``, ``l2i.engines``) of installed packages
``package.module:Name``    ``Name`` of an importable module
``mine.py:Name``           ``Name`` of the file ``mine.py``
=========================  ====================================================================

What is named so is Python, and is run: name only what you trust. Its content is part of a run's
signature (`source_digest`), as a setting is.

Over 300 lines: five tables of names.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any, SupportsIndex

from l2i.errors import DataError, L2IError, UnknownName, UsageError

__all__ = [
    "CLASSIFIERS",
    "METHODS",
    "Registry",
    "call",
    "class_index",
    "class_places",
    "did_you_mean",
    "load_object",
    "nearest",
    "source_digest",
]

# Names that a message lists, of some hundred.
_MOST = 20


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most like `word`, or None where none is like it.

    >>> nearest("dropuot", ["dropout", "epochs"])
    'dropout'
    >>> nearest("zzz", ["dropout", "epochs"]) is None
    True
    """
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, words: Iterable[str], otherwise: str = ".") -> str:
    """How a sentence goes on after a word that is none of `words`; `otherwise`: none is like it.

    >>> did_you_mean("dropuot", ["dropout", "epochs"])
    "; did you mean 'dropout'?"
    """
    like = nearest(word, words)
    return f"; did you mean {like!r}?" if like else otherwise


def class_index(
    classes: Sequence[str], word: str | int, who: str = "The classifier", also: str = ""
) -> int:
    """The index of a class, by its name or its number.

    Parameters
    ----------
    classes : sequence of str
    word : str or int
    who : str
        Who knows the classes, for the message.
    also : str
        What else may be said, for the message.

    Raises
    ------
    UsageError
        There is none.

    Examples
    --------
    >>> class_index(["dog", "rain"], "rain")
    1
    >>> class_index(["dog", "rain"], "rian")
    Traceback (most recent call last):
    l2i.errors.UsageError: The classifier knows no class 'rian'; did you mean 'rain'? It knows: \
dog, rain.
    """
    if not isinstance(word, str):
        if not (isinstance(word, SupportsIndex) and 0 <= word < len(classes)):
            raise UsageError(f"Class {word} is not one of the {len(classes)}, from 0.")
        return int(word)
    if word in classes:
        return list(classes).index(word)
    hint = did_you_mean(word, classes)
    more = f" and {len(classes) - _MOST} more" if len(classes) > _MOST else ""
    known = f"{', '.join(classes[:_MOST])}{more}{also}"
    raise UsageError(f"{who} knows no class {word!r}{hint} It knows: {known}.")


def class_places(names: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """Where each name stands among some classes, however it is written; None: nowhere.

    >>> class_places(["Crying_baby", "rain"], ["dog", "crying baby"])
    [1, None]
    """

    def folded(name: str) -> str:
        return name.replace("_", " ").casefold().strip()

    known = {folded(name): at for at, name in reversed(list(enumerate(classes)))}
    return [known.get(folded(name)) for name in names]


class Registry(Mapping[str, Any]):
    """A lazily imported table of names.

    Parameters
    ----------
    kind : str
        What the names name, for messages: ``"data set"``.
    table : Mapping of str to str
        ``name -> "module:attribute"``.
    group : str
        The entry points that name more; empty: the table alone, and no words with a colon.
    forms : str
        The words with a colon that there are, for messages.

    Examples
    --------
    >>> r = Registry("function", {"sqrt": "math:sqrt"})
    >>> r["sqrt"](9.0)
    3.0
    >>> r["sqr"]
    Traceback (most recent call last):
    l2i.errors.UnknownName: There is no function 'sqr'; did you mean 'sqrt'? There are: sqrt.
    >>> Registry("function", {}, "l2i.functions")["math:sqrt"](9.0)
    3.0
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, str],
        group: str = "",
        forms: str = "MODULE:NAME, or FILE.py:NAME",
    ) -> None:
        self.kind = kind
        self.forms = forms
        self._own = dict(table)
        self._group = group

    @cached_property
    def _table(self) -> dict[str, str]:
        plugins = {e.name: e.value for e in entry_points(group=self._group)} if self._group else {}
        return self._own | {name: where for name, where in plugins.items() if name not in self._own}

    def where(self, name: str) -> str:
        """The ``module:attribute`` that a name stands for.

        Raises
        ------
        UnknownName
        """
        if not isinstance(name, str):
            raise UnknownName(f"The name of {self.kind} {name!r} is to be a string.")
        if name in self._own:
            return self._own[name]
        if self._group and ":" in name:
            return name
        if name not in self._table:
            hint = did_you_mean(name, self._table)
            if not self._table:
                raise UnknownName(f"There is no {self.kind} {name!r}{hint} Name {self.forms}.")
            more = f"; or {self.forms}" if self._group else ""
            raise UnknownName(
                f"There is no {self.kind} {name!r}{hint} There are: {', '.join(self._table)}{more}."
            )
        return self._table[name]

    def digest(self, name: str) -> str:
        """`source_digest` of what a name stands for; empty where it is one of the table."""
        return "" if name in self._own else source_digest(self.where(name))

    def __getitem__(self, name: str) -> Any:
        where = self.where(name)
        if name in self._own:
            module, _, attribute = where.partition(":")
            return getattr(import_module(module), attribute)
        return load_object(where)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table


def load_object(word: str) -> Any:
    """What ``MODULE:NAME`` or ``FILE.py:NAME`` names; the code there is run.

    Raises
    ------
    UsageError
        There is no such module or name.
    DataError
        There is no such file, or its code fails.
    """
    where, _, name = word.rpartition(":")
    if not where or not name:
        raise UsageError(f"{word!r} names nothing: give MODULE:NAME or FILE.py:NAME.")
    module = _of_file(Path(where)) if where.endswith(".py") else _of_module(where)
    try:
        return getattr(module, name)
    except AttributeError:
        hint = did_you_mean(name, [n for n in vars(module) if not n.startswith("_")])
        raise UsageError(f"{where} has no {name!r}{hint}") from None


def source_digest(word: str) -> str:
    """SHA-256, in hexadecimal digits, of the name and of the file of Python that it is in.

    Raises
    ------
    DataError
        There is no such file or module.
    """
    where, _, name = word.rpartition(":")
    if where.endswith(".py"):
        path = Path(where).expanduser()
    else:
        try:
            spec = importlib.util.find_spec(where)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.origin or not spec.has_location:
            raise DataError(f"There is no module {where!r} whose file could be read.")
        path = Path(spec.origin)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return hashlib.sha256(name.encode() + b"\n" + content).hexdigest()


# Modules that were imported from beside a file, and its folder.
_beside: dict[str, Path] = {}


class _Source(SourceFileLoader):
    """Reads a file as it is now: bytecode that lies beside it is of a file as long, changed in the
    same second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _of_file(path: Path) -> Any:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    # A name of its own: two files of one name are two modules, and so is one that was changed.
    content = str(path).encode() + b"\n" + path.read_bytes()
    name = f"_l2i_{hashlib.sha256(content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Source(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # What lies beside it can be imported, as when the file itself is run.
    sys.path.insert(0, str(path.parent))
    # Another file's neighbour of the same name is not this one's.
    for word in [w for w, folder in _beside.items() if folder != path.parent]:
        sys.modules.pop(word, None)
        del _beside[word]
    before = set(sys.modules)
    try:
        call(str(path), lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
        for word in set(sys.modules) - before - {name}:
            at = getattr(sys.modules[word], "__file__", None)
            if at and Path(at).is_relative_to(path.parent) and "site-packages" not in at:
                _beside[word] = path.parent
    return module


def _of_module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"There is no module {name!r} that can be imported.") from None
        raise DataError(f"{name} cannot be imported: {error}.") from error
    except Exception as error:
        raise DataError(f"{name} cannot be imported: {_told(error)}") from error


def call(what: str, code: Callable[[], Any]) -> Any:
    """Run a user's code; what it raises is about it, and not about us.

    Raises
    ------
    DataError
        It fails; `what` names it for the message.
    """
    try:
        return code()
    except L2IError:
        raise
    except SystemExit as error:
        raise DataError(f"{what} cannot be loaded: it ends the program (sys.exit).") from error
    except Exception as error:
        raise DataError(f"{what} cannot be loaded: {_told(error)}") from error


def _told(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."


METHODS = Registry(
    "explanation method",
    {
        "gated-l2i": "l2i.explanation.gated:GatedL2I",
        "refined-gates": "l2i.explanation.refined:RefinedGates",
        "l2i": "l2i.explanation.listen_to_interpret:ListenToInterpret",
        "l2i-linear": "l2i.explanation.linear:LinearL2I",
        "gates": "l2i.explanation.gates:GatesMethod",
        "shapley": "l2i.explanation.gates:ShapleyMethod",
        "random": "l2i.explanation.baselines:RandomComponents",
        "full": "l2i.explanation.baselines:Full",
        "saliency": "l2i.explanation.baselines:Saliency",
        "smoothgrad": "l2i.explanation.baselines:SmoothGrad",
        "integrated-gradients": "l2i.explanation.baselines:IntegratedGradients",
        "gradcam": "l2i.explanation.baselines:GradCam",
        "occlusion": "l2i.explanation.baselines:Occlusion",
        "slime": "l2i.explanation.perturbation:Slime",
        "lime": "l2i.explanation.perturbation:Lime",
        "audiolime": "l2i.explanation.perturbation:AudioLime",
        "rise": "l2i.explanation.perturbation:Rise",
        "extremal": "l2i.explanation.perturbation:Extremal",
        "iba": "l2i.explanation.bottleneck:Iba",
        "wam": "l2i.explanation.wavelets:Wam",
        "lmac": "l2i.explanation.learnt:LMac",
        "lmac-audio": "l2i.explanation.learnt:LMacAudio",
        "lmac-td": "l2i.explanation.learnt:LMacTd",
        "piq": "l2i.explanation.learnt:Piq",
        "vibi": "l2i.explanation.learnt:Vibi",
        "flint": "l2i.explanation.learnt:Flint",
        "amortised-shapley": "l2i.explanation.learnt:AmortisedShapley",
        "loudest": "l2i.explanation.controls:Loudest",
        "loudest-components": "l2i.explanation.controls:LoudestComponents",
        "random-gates": "l2i.explanation.controls:RandomGates",
        "nmf-classes": "l2i.explanation.controls:NmfClasses",
        "oracle-nmf": "l2i.explanation.controls:OracleNmf",
        "oracle-ratio": "l2i.explanation.controls:OracleRatio",
    },
    "l2i.methods",
)
"""Explanation methods; see `l2i.explanation`. Here, where listing them imports nothing."""

CLASSIFIERS = Registry(
    "classifier", {}, "l2i.classifiers", "FILE.py:NAME, MODULE:NAME, hf:FOLDER or MODEL.ts"
)
"""Classifiers that installed packages offer; see `l2i.models.spec`."""

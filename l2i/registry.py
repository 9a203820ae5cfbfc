"""Names of things that can be chosen, and the modules they live in.

A registry is a literal table ``name -> "module:attribute"``. Nothing is imported until a name
is asked for, so that listing the names (in ``--help``, say) costs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from l2i.errors import UnknownName

__all__ = ["Registry", "nearest"]


def nearest(word: str, words: list[str] | tuple[str, ...]) -> str | None:
    """The word most like `word`, or None where none is like it.

    >>> nearest("dropuot", ["dropout", "epochs"])
    'dropout'
    >>> nearest("zzz", ["dropout", "epochs"]) is None
    True
    """
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return found[0] if found else None


class Registry(Mapping[str, Any]):
    """A lazily imported table of names.

    Parameters
    ----------
    kind : str
        What the names name, for messages: ``"data set"``.
    table : Mapping of str to str
        ``name -> "module:attribute"``.

    Examples
    --------
    >>> r = Registry("function", {"sqrt": "math:sqrt"})
    >>> r["sqrt"](9.0)
    3.0
    >>> r["sqr"]
    Traceback (most recent call last):
    l2i.errors.UnknownName: There is no function 'sqr'; did you mean 'sqrt'? There are: sqrt.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)

    def __getitem__(self, name: str) -> Any:
        if name not in self._table:
            like = nearest(name, list(self._table))
            hint = f"; did you mean {like!r}?" if like else "."
            raise UnknownName(
                f"There is no {self.kind} {name!r}{hint} There are: {', '.join(self._table)}."
            )
        module, _, attribute = self._table[name].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table

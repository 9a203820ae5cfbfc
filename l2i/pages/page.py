"""Templates, escaping, and what keeps a page self-contained."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from l2i import __version__
from l2i.errors import StoreError
from l2i.storage import atomic_write_bytes

MAX_BYTES = 50 * 2**20
"""MLflow shows no file beyond this."""

_FOLDER = Path(__file__).parent
_MARK = '<meta name="generator" content="l2i'
# Scripts that the page's own script asks for, and no others.
_ITS_OWN = " 'strict-dynamic'"
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def escape(text: object) -> str:
    """Text for HTML, within an element or a quoted attribute.

    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(str(text), quote=True)


class Figure(NamedTuple):
    """A figure of a run, for people.

    Attributes
    ----------
    name, value : str
    beside : str
        What it is to be compared with; empty: nothing.
    meaning : str
        What it is, and which way is better.
    """

    name: str
    value: str
    beside: str = ""
    meaning: str = ""


def figures_listed(figures: Iterable[Figure]) -> str:
    """Items of a list; a pointer over a name shows what it means."""
    return "".join(
        f'<li><abbr title="{escape(f.meaning)}">{escape(f.name)}</abbr> '
        f"<strong>{escape(f.value)}</strong> {escape(f.beside and f'({f.beside})')}</li>"
        for f in figures
    )


def figures_explained(figures: Iterable[Figure]) -> str:
    """The meanings, each once, in a line that unfolds: fingers and keys reach no tooltip."""
    meanings = {f.name: f.meaning for f in figures if f.meaning}
    if not meanings:
        return ""
    items = "".join(f"<dt>{escape(n)}</dt><dd>{escape(m)}</dd>" for n, m in meanings.items())
    return (
        f'<details class="means"><summary>What the figures mean</summary><dl>{items}</dl></details>'
    )


def as_json(value: Any) -> str:
    """A value as JSON that may stand in a page or a script: nothing in it ends an element.

    Half a surrogate pair, as in file names that are not UTF-8, stays within JSON's escapes; NaN
    has none and is refused.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def data_block(name: str, value: Any) -> str:
    """A value as JSON in an element of its own, which nothing in it can end or escape.

    >>> data_block("x", "</script>")
    '<script type="application/json" id="x">"\\\\u003c/script\\\\u003e"</script>'
    """
    return f'<script type="application/json" id="{name}">{as_json(value)}</script>'


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put HTML in the places ``{{name}}`` of a template, in one pass: what is put in is not read
    again.

    >>> fill("{{a}}{{b}}", {"a": "{{b}}", "b": "!"})
    '{{b}}!'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(file: str) -> str:
    """The text of one of this folder's files."""
    return (_FOLDER / file).read_text(encoding="utf-8")


def page_text(name: str, title: str, fields: Mapping[str, str], *, beside: bool = False) -> str:
    """A page, filled in.

    Parameters
    ----------
    name : {'listening', 'figures', 'start'}
        What the template, its style and its script are called.
    title : str
        Plain text.
    fields : mapping of str to str
        HTML for the template's places.
    beside : bool
        Whether its script may ask for scripts that lie beside it: where it is too large otherwise.
    """
    style = asset("common.css") + asset(f"{name}.css")
    script = asset(f"{name}.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}{_ITS_OWN if beside else ''}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta charset="utf-8">\n{_MARK} {__version__}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # Else a browser asks the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>"
    )
    own = {"head": head, "title": escape(title), "script": f"<script>{script}</script>"}
    return fill(asset(f"{name}.html"), {**fields, **own})


def policy_of(content: bytes) -> str:
    """The policy under which a server may send a page of this version; empty: it is no such page.

    It lets the scripts of this version run, and no others, whatever else the page holds.
    """
    scripts = [_digest(asset(f"{name}.js")) for name in ("listening", "figures")]
    if not any(digest.encode() in content for digest in scripts):
        return ""
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join(scripts)}; base-uri 'none'; form-action 'none'"
    )


def write_page(
    path: Path, name: str, title: str, fields: Mapping[str, str], *, beside: bool = False
) -> None:
    """Write a page, a ``.html``, whole or not at all; for the rest see `page_text`."""
    text = page_text(name, title, fields, beside=beside)
    # A name that is no UTF-8 has no better form in a page.
    atomic_write_bytes(path, text.encode("utf-8", "replace"))


def refuse_foreign(path: Path) -> None:
    """Refuse to replace a page that is not ours.

    Raises
    ------
    StoreError
        There is something at `path` that this package did not write.
    """
    if not path.exists() and not path.is_symlink():
        return
    try:
        with path.open("rb") as file:
            ours = _MARK.encode() in file.read(4096)
    except OSError:
        ours = False
    if not ours:
        raise StoreError(f"{path} is there already and no page of ours; give another --out.")

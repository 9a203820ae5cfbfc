"""How Sphinx makes pages of this folder: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import l2i

project = "l2i"
author = "The l2i developers"
project_copyright = f"{author}. Apache-2.0"
version = release = l2i.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
]
html_theme = "furo"
html_title = "l2i"
html_show_sphinx = False
# For the players in these pages; a link in Markdown leads to a copy of its own.
html_static_path = ["sounds"]
templates_path: list[str] = []

# A heading of a page can be linked to as on GitHub.
myst_heading_anchors = 3
# "console" lines begin with $; what follows is what was typed.
highlight_language = "none"
# `Name` in a docstring is a link to it where there is one, and code where there is none.
default_role = "py:obj"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Several modules have a `path` or a `Classifier`: such a short name is then code, not a link.
suppress_warnings = ["ref.python"]
# A dataclass's fields are in its docstring.
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}


def _outside(_app: Any, page: str, source: list[str]) -> None:
    """Let links to the project's other Markdown files lead to copies: they are no pages here."""
    if "/" not in page:
        source[0] = re.sub(r"\]\((\.\./[\w./-]+\.md)[^)]*\)", r"](path:\1)", source[0])


def _magnitudes(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]):
    """Let |X| be a magnitude: reStructuredText takes it for a name to be replaced."""
    literal = False
    for number, line in enumerate(lines):
        if line and not line[0].isspace():
            literal = False
        if not literal:
            parts = re.split(r"(``.*?``|`.*?`)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "".join(parts)
        literal = literal or line.endswith("::")


def _lengths(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]):
    """Leave out why a module is long: that is for who edits it."""
    if what == "module":
        begins = [n for n, line in enumerate(lines) if line.startswith("Over 300 lines: ")]
        for begin in begins[::-1]:
            end = next((n for n in range(begin, len(lines)) if not lines[n]), len(lines))
            del lines[begin:end]


def _sources(_app: Any, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Leave the list of all pages out of those of source, which lead back by their own links: made
    anew for each of a hundred, it takes nearly half of the time."""
    if page.startswith("_modules/"):
        context["toctree"] = lambda **_: ""


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", _sources, priority=400)  # Before the theme asks for it.
    app.connect("autodoc-process-docstring", _magnitudes)
    app.connect("autodoc-process-docstring", _lengths)
    app.connect("source-read", _outside)

"""Explanations as files, and on a page to listen to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from l2i.errors import StoreError
from l2i.pages.listening import Media, MediaList, write_listening_page
from l2i.pages.page import refuse_foreign
from l2i.recording import TABLE
from l2i.storage import disk_errors, make_output, write_json

_FACTS = "explanation.json"


class Written(Protocol):
    """What can be written as an explanation."""

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Media]:
        """Write the sounds; what is known, what of that the page has, and its media."""


def write_explained(
    explanations: Iterable[tuple[str, Written]], out: Path, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Write explanations into a folder, each in one of its own, and a page to listen to all.

    Parameters
    ----------
    explanations : iterable of (str, Explained), or others that can be written
        With the names of their folders. Each is written, and let go, before the next is asked for.
    out : Path
        Made for the first of them.
    names : sequence of str
        All that may come: that their folders are free is found out first. One alone may be called
        ``""``, and lies in `out` itself.

    Returns
    -------
    list of dict
        What each ``explanation.json`` holds.

    Raises
    ------
    StoreError
    """
    page = out / "index.html"
    refuse_foreign(page)
    for folder in (out / name for name in names):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _FACTS).is_file():
            raise StoreError(f"{folder} holds other things than an explanation: name another.")
    found_facts: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    media = MediaList(beside=out)
    for name, e in explanations:
        with disk_errors(out):
            make_output(out)
            folder = out / name
            folder.mkdir(exist_ok=True)
            facts, shown, seen = e.write(folder, name)
            if "windows" not in facts:
                (folder / TABLE).unlink(missing_ok=True)  # Another sound's, that lay here.
            write_json(folder / _FACTS, facts)
            media.append(seen, name)
        found_facts.append(facts)
        clips.append(shown)
    if clips:
        title = "Explanations" if len(clips) > 1 else f"Explanation: {clips[0]['class']}"
        with disk_errors(out):
            write_listening_page(page, clips, media, title=title)
    return found_facts

"""Folders of results, run stores, and the mark by which they are known.

Each folder that l2i makes for runs, or for what a command found, holds the file `MARK`, here a line
of JSON with the ``run``'s id and its ``name``, both empty where it is about no single run. So no
data set takes such a folder for a class, wherever it lies, and nothing overwrites what another run
gave. A folder that was there before, with other things in it, is its owner's and is not marked;
folders that a command makes in it are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from l2i.errors import StoreError, UsageError

MARK = ".l2i"
"""A file that says of its folder that l2i wrote it: no sound in it is anybody's data."""


def local_place(place: str | Path) -> Path:
    """A path of this machine.

    Raises
    ------
    UsageError
        It is an address, of which a folder called ``s3:`` would be made in the current one.
    """
    # As a Path it has one slash left. The names of drives have one letter.
    if re.match(r"[A-Za-z][\w+.-]+:/", str(place)):
        raise UsageError(f"{str(place)!r} is an address, not a place of this machine.")
    return Path(place)


def is_output(folder: Path) -> bool:
    """Whether a folder is one of results."""
    return (folder / MARK).is_file()


def mark_output(folder: Path, run: str = "", name: str = "") -> None:
    """Say in a folder that it is one of results, and about which run."""
    line = json.dumps({"run": run, "name": name}, ensure_ascii=False)
    (folder / MARK).write_text(f"{line}\n", encoding="utf-8")


def make_output(folder: Path, run: str = "", name: str = "") -> None:
    """Make a folder of results; mark it, unless things of its owner's are in it.

    Raises
    ------
    StoreError
        It holds what another run gave.
    """
    refuse_other_run(folder, run)
    folder.mkdir(parents=True, exist_ok=True)
    if _is_empty(folder) or (run and is_output(folder)):
        mark_output(folder, run, name)


def refuse_other_run(folder: Path, run: str) -> None:
    """Refuse a folder that holds what another run gave.

    Raises
    ------
    StoreError
    """
    try:
        about = json.loads((folder / MARK).read_text(encoding="utf-8"))
        owner, name = str(about["run"]), str(about["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if run and owner not in ("", run) and not _is_empty(folder):
        raise StoreError(
            f"{folder} holds what run {name} ({owner[:8]}) gave: choose another --out, or remove "
            "that folder first."
        )


def _is_empty(folder: Path) -> bool:
    return all(path.name == MARK for path in folder.iterdir())

"""A data set that lies at ``s3://``: what a run needs of it, brought here once.

Lists and texts are fetched first; they say which clips there are, and of the sounds only those of
the clips wanted follow, many at once. What is here already is not fetched again: see
`l2i.storage.s3`. Archives are left where they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from l2i import config
from l2i.data.base import Card, DataSet, Entry
from l2i.data.places import cache_folder
from l2i.dsp.audio import SUFFIXES
from l2i.errors import DataError
from l2i.storage import file_lock, s3
from l2i.types import Clip

__all__ = ["OnBytes", "find", "open_remote"]

OnBytes = Callable[[int, int], None]
"""Called with the bytes done since the last call, and the bytes of all."""

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z")


def open_remote(
    entry: Entry,
    wanted: config.Dataset,
    needed: Callable[[DataSet], Sequence[Clip]],
    on_bytes: OnBytes | None = None,
) -> DataSet:
    """Open a data set at ``s3://`` by way of a copy in the cache.

    Parameters
    ----------
    entry : Entry
    wanted : l2i.config.Dataset
        Its `data_dir` is the data set's address, or that of the shelf it stands on.
    needed : callable
        Data set -> the clips whose sounds are fetched.
    on_bytes : callable, optional

    Raises
    ------
    DataError
        It is not there.
    StoreError
        The store is away, or refuses.
    """
    place = find(entry.card, wanted.data_dir)
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    word = re.sub(r"[^\w.-]+", "-", PurePosixPath(place.prefix).name or place.bucket)[:40]
    folder = cache_folder() / "remote" / f"{word}-{digest}"
    here = wanted.model_copy(update={"data_dir": str(folder)})

    def bring(chosen: set[str], on_bytes: OnBytes | None = None) -> None:
        some = [f for f in files if f.name in chosen]
        total = sum(f.size for f in some)
        told = None if on_bytes is None else (lambda n: on_bytes(n, total))
        s3.fetch(place, folder, some, on_bytes=told)

    with file_lock(folder.with_name(f".{folder.name}.lock")):
        files = [f for f in s3.listing(place) if _is_data(f.name)]
        if not files:
            raise DataError(f"There is nothing at {place}.")
        sounds = [f for f in files if PurePosixPath(f.name).suffix.lower() in SUFFIXES]
        chosen = {f.name for f in files} - {f.name for f in sounds}
        if entry.card.name == "folder":
            # Its clips are whatever lies there.
            chosen = {f.name for f in files}
        else:
            bring(chosen)
            # By stem, as the data sets look files up: a copy may have another format.
            by_stem = {PurePosixPath(f.name).stem: f.name for f in sounds}
            paths = [clip.path for clip in needed(entry.open(here)) if clip.path is not None]
            chosen = {by_stem[path.stem] for path in paths if path.stem in by_stem}
        bring(chosen, on_bytes)
    return entry.open(here)


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() not in _ARCHIVES


def find(card: Card, address: str) -> s3.Location:
    """The address itself, or a folder in it of the names the card gives.

    Raises
    ------
    DataError
        None has the card's marker.
    """
    base = s3.Location.parse(address)
    if card.name == "folder":
        return base
    places = [base, *(base / name for name in card.folders)]
    for place in places:
        if s3.exists(place / card.marker):
            return place
    looked = "".join(f"\n  {place / card.marker}" for place in places)
    raise DataError(f"{card.title} was not found; there is none of{looked}")

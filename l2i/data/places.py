"""Where data sets and caches lie, and how a listed file is found.

``L2I_DATA_DIR`` names the folder data sets lie in, ``L2I_CACHE_DIR`` the folder for what can be
made again; unset, both are in the user's cache folder, as the system has it. Where that cannot be
written (a container's may lie on a volume that is mounted for reading) caches are in the folder of
temporary files, and last as long as it does.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from l2i.data.base import Card, listed
from l2i.errors import DataError
from l2i.storage import existing, is_inside

__all__ = ["AudioIndex", "cache_folder", "candidates", "data_folder", "find_root", "read_csv"]


def _user_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("l2i", appauthor=False))


def data_folder(data_dir: str | Path = "") -> Path:
    """The folder data sets lie in: `data_dir`, ``L2I_DATA_DIR``, or the user's cache."""
    if data_dir:
        return Path(data_dir).expanduser()
    named = os.environ.get("L2I_DATA_DIR")
    return Path(named).expanduser() if named else _user_cache() / "datasets"


def cache_folder() -> Path:
    """The folder of what can be made again: ``L2I_CACHE_DIR``, or the user's cache."""
    named = os.environ.get("L2I_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    usual = _user_cache()
    above = existing(usual)  # Where it would have to be made.
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return usual
    return Path(tempfile.gettempdir()) / f"l2i-{os.getuid()}"


def candidates(card: Card, data_dir: str | Path = "") -> list[Path]:
    """The folders a data set may lie in, in the order in which they are looked at.

    The folder itself, and folders in it of the names the card gives: so ``--data-dir`` may
    name a data set or the shelf it stands on.
    """
    base = data_folder(data_dir)
    return [base, *(base / name for name in card.folders)]


def find_root(card: Card, data_dir: str | Path = "") -> Path:
    """The first candidate that has the card's marker.

    Raises
    ------
    DataError
        None has: says where it looked, and which command fetches the data set.
    """
    places = candidates(card, data_dir)
    for place in places:
        if (place / card.marker).is_file():
            return place
    looked = "".join(f"\n  {place / card.marker}" for place in places)
    if card.remotes:
        where = f" --data-dir {data_dir}" if data_dir else ""
        get = f"Fetch it with: l2i data fetch {card.name}{where}"
    else:
        get = "Name its folder with --data-dir."
    raise DataError(f"{card.title} was not found; there is none of{looked}\n{get}")


def read_csv(
    path: Path, required: Sequence[str | tuple[str, ...]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a csv file with their line numbers, by the names in its first line.

    Where a column may have several names, it is called by the first.

    Raises
    ------
    DataError
        It is absent, is not UTF-8, lacks a column (named, with those there are), has one by two
        names, or has a row of another length.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            given = [name.strip() for name in next(reader, [])]
            header, missing = list(given), []
            for names in ((each,) if isinstance(each, str) else each for each in required):
                there = [name for name in names if name in given]
                if len(there) > 1:
                    raise DataError(
                        f"{path} has both a column {there[0]!r} and a column {there[1]!r}: keep "
                        "one."
                    )
                if there:
                    header[given.index(there[0])] = names[0]
                else:
                    missing.append(names[0])
            if missing:
                plural = "s" if len(missing) > 1 else ""
                raise DataError(
                    f"{path} lacks the column{plural} {', '.join(map(repr, missing))}; it has "
                    f"{listed(given, 16) or 'no columns'}."
                )
            for row in reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} field{'s' * (len(row) > 1)} "
                        f"where the first line names {len(header)}."
                    )
                yield reader.line_num, dict(zip(header, row, strict=True))
    except FileNotFoundError:
        raise DataError(f"There is no {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a csv file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv file in UTF-8: {error}.") from error


def whole_number(here: str, column: str, row: Mapping[str, str]) -> int:
    """What a row has in a column; `here` says which row, for the message.

    Raises
    ------
    DataError
        It is no whole number.
    """
    try:
        return int(row[column])
    except ValueError:
        raise DataError(f"{here}: {column} {row[column]!r} is not a whole number.") from None


class AudioIndex:
    """Finds listed sound files in some folders, asking the disk once per folder.

    Parameters
    ----------
    folders : sequence of Path
        Looked at in this order; those that do not exist are passed over.
    suffixes : sequence of str
        A listed ``a.wav`` may lie there as ``a.ogg``: the suffixes that count as the same clip.
    """

    def __init__(self, folders: Sequence[Path], suffixes: Sequence[str]) -> None:
        self.folders = list(folders)
        self._names: dict[str, Path] = {}
        self._stems: dict[str, Path] = {}
        for folder in reversed(self.folders):
            if not folder.is_dir():
                continue
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda e: e.name, reverse=True):
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.lower() in suffixes:
                        path = folder / entry.name
                        self._names[entry.name] = path
                        self._stems[stem] = path

    def find(self, name: str) -> Path:
        """The file of this name, or of this stem; where there is none, where it should be."""
        path = self._names.get(name) or self._stems.get(os.path.splitext(name)[0])
        return path or self.folders[0] / name


def safe_name(path: Path, line: int, name: str, seen: set[str], key: Callable[[str], str]) -> str:
    """A file name a csv lists, refused where it leaves its folder or comes twice.

    Raises
    ------
    DataError
    """
    name = name.strip()
    if not name:
        raise DataError(f"{path}, line {line}: the file name is empty.")
    if not is_inside(name):
        raise DataError(
            f"{path}, line {line}: the file name {name!r} leaves the data set's folder."
        )
    if key(name) in seen:
        raise DataError(f"{path}, line {line}: the file name {name!r} is listed twice.")
    seen.add(key(name))
    return name

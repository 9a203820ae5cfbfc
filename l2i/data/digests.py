"""Digests of what files hold, kept until a file changes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from l2i.data.cards import in_threads
from l2i.errors import DataError

# A file whose time of change is as young as this may change again within the clock's grain.
_SETTLED_S = 2.0


def digests_file(folder: Path) -> Path:
    """Where a cache's folder keeps them."""
    return folder / ".digests.sqlite"


def _memory(folder: Path) -> sqlite3.Connection:
    """The memo of digests; a new one where it cannot be had, since it only saves time."""
    with suppress(sqlite3.Error, OSError):
        connection = sqlite3.connect(digests_file(folder), timeout=30)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS contents (path TEXT PRIMARY KEY, size INTEGER, "
            "mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, digest TEXT)"
        )
        return connection
    return sqlite3.connect(":memory:")


def digests_of(folder: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """blake2b of the bytes of each file.

    Read anew unless size, both times of change and the inode are what they were: a file that was
    moved to another's place, or whose time was set back, has another time of its inode's change,
    which nobody can set. `WaveformCache.clean` forgets them all.
    """
    known: dict[str, tuple[tuple[int, ...], str]] = {}
    with closing(_memory(folder)) as memory:
        with suppress(sqlite3.Error):
            rows = memory.execute(
                "SELECT path, digest, size, mtime_ns, ctime_ns, inode FROM contents"
            )
            known = {name: (tuple(marks), digest) for name, digest, *marks in rows}
        digests: dict[Path, str] = {}
        fresh: list[Path] = []
        stats = {}
        for path in paths:
            try:
                info = path.stat()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}.") from error
            stats[path] = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
            memo = known.get(os.path.abspath(path))
            if memo is not None and memo[0] == stats[path]:
                digests[path] = memo[1]
            else:
                fresh.append(path)
        if fresh:
            digests.update(zip(fresh, in_threads(_digest, fresh), strict=True))
            settled = (time.time() - _SETTLED_S) * 1e9
            lines = [
                (os.path.abspath(path), *stats[path], digests[path])
                for path in fresh
                if stats[path][1] < settled
            ]
            # A name that is no UTF-8 cannot be kept; who decodes the file says so.
            with suppress(sqlite3.Error, UnicodeEncodeError), memory:
                memory.executemany(
                    "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", lines
                )
    return digests


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=20)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error

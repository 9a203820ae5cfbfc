"""Every clip is decoded once, and mapped into memory from then on.

An entry of the cache is a folder ``<data set>-<key>`` with ``waveforms.npy`` (float32 ``[N, S]``)
and ``index.json`` (ids in the order of the rows). The key is a hash of the settings (sample rate,
length, version of this code) and of what each clip is made from: the bytes of its file, or the
generator that synthesises it. So a changed file makes another entry, and a moved one does not.

An entry is made under another name while a lock is held, and renamed when it is whole. Whoever
wants the same entry meanwhile waits, and finds it. What a killed process left behind is swept up
by the next one that opens the cache; its lock died with it.

Waveforms are as the file has them: not normalised, since that is done per batch on the device.

Over 300 lines: one cache; who may write when is not to be read in two places.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from l2i.data.cards import DataSet, Progress, Waveform, in_threads, listed
from l2i.data.digests import digests_file, digests_of
from l2i.data.places import cache_folder
from l2i.errors import DataError, StoreError
from l2i.storage import (
    FileLock,
    atomic_write_text,
    disk_errors,
    disk_usage,
    file_lock,
    format_bytes,
)
from l2i.types import Clip

__all__ = ["CacheEntry", "Streamed", "WaveformCache", "Waveforms"]

# Raised whenever the same file would give other samples, or the layout of an entry changes.
VERSION = 1

_ARRAY, _INDEX = "waveforms.npy", "index.json"


@dataclass(frozen=True)
class Waveforms:
    """Clips decoded and at hand.

    Attributes
    ----------
    array : float32 [N, S]
        Read-only, mapped from disk or `Streamed`: a batch is read by ``array[rows]``.
    index : dict of str to int
        Clip id to row.
    path : Path
        Its folder.
    """

    array: NDArray[np.float32]
    index: dict[str, int] = field(repr=False)
    path: Path

    def rows(self, clips: Iterable[Clip]) -> NDArray[np.int64]:
        """Rows of some clips, int64 ``[B]``."""
        return np.array([self.index[clip.id] for clip in clips], dtype=np.int64)

    def take(self, clips: Iterable[Clip]) -> Waveform:
        """Waveforms of some clips, float32 ``[B, S]``: a copy, to be written to at will."""
        return np.asarray(self.array[self.rows(clips)])


class Streamed:
    """Clips that are decoded whenever they are asked for, and forgotten: they take no disk.

    It is read as `Waveforms.array` is. A clip that cannot be read is silence.

    Attributes
    ----------
    broken : dict of str to str
        Clip id to why it could not be read, of those that were asked for.
    """

    def __init__(self, dataset: DataSet, clips: Sequence[Clip]) -> None:
        self._dataset = dataset
        self._clips = clips
        self.shape = (len(clips), dataset.n_samples)
        self.broken: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, rows: Any) -> Waveform:
        """A clip [S], or several [B, S]."""
        if np.ndim(rows) == 0:
            return self._load(int(rows))
        batch = np.empty((len(rows), self.shape[1]), np.float32)
        for place, x in enumerate(in_threads(self._load, [int(row) for row in rows])):
            batch[place] = x
        return batch

    def _load(self, row: int) -> Waveform:
        try:
            return self._dataset.load(self._clips[row])
        except DataError as error:
            self.broken[self._clips[row].id] = str(error)
            return np.zeros(self.shape[1], np.float32)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry, as ``l2i data info`` shows it."""

    dataset: str
    path: Path
    n_clips: int
    sample_rate: int
    n_bytes: int


class WaveformCache:
    """The cache of a user, or one in another folder.

    Parameters
    ----------
    folder : path, optional
        Unset: ``waveforms`` in ``L2I_CACHE_DIR``, or in the user's cache.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "waveforms"

    def open(
        self,
        dataset: DataSet,
        clips: Sequence[Clip],
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> Waveforms:
        """Waveforms of some clips of a data set, decoded now or before.

        One entry serves all folds if it is asked for all clips.

        Parameters
        ----------
        dataset : DataSet
        clips : sequence of Clip
            In any order: the entry is the same.
        progress : callable, optional
            Told (clips done, clips in all) while decoding; never called when the entry is there.
        on_wait : callable, optional
            Called once where another process is decoding the same clips.

        Raises
        ------
        DataError
            A clip is missing or cannot be decoded, or there is none.
        StoreError
            The disk is full, or cannot be written.
        """
        clips, path = self._place(dataset, clips)
        shape = len(clips), dataset.n_samples
        if (waveforms := _map(path, shape)) is not None:
            return waveforms
        with file_lock(_lock_of(path), on_wait):
            # Whoever held the lock before us may have made it.
            if (waveforms := _map(path, shape)) is None:
                self._sweep(path)
                self._decode(path, dataset, clips, progress)
                waveforms = _map(path, shape)
        if waveforms is None:
            raise StoreError(f"The cache entry {path} was removed while it was being opened.")
        return waveforms

    def stream(self, dataset: DataSet, clips: Sequence[Clip]) -> Waveforms:
        """The same where there is such an entry; else none is made, and clips are decoded whenever
        they are asked for (`Streamed`).

        Raises
        ------
        DataError
            A clip is missing, or there is none.
        """
        clips, path = self._place(dataset, clips)
        if (there := _map(path, (len(clips), dataset.n_samples))) is not None:
            return there
        array = cast("NDArray[np.float32]", Streamed(dataset, clips))
        return Waveforms(array, {clip.id: row for row, clip in enumerate(clips)}, path)

    def _place(self, dataset: DataSet, clips: Sequence[Clip]) -> tuple[list[Clip], Path]:
        """Some clips in the order of their entry, and its folder."""
        if not clips:
            raise DataError(f"No clips of {dataset.card.title} were asked for.")
        in_order = sorted(clips, key=lambda clip: clip.id)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return in_order, self.folder / f"{dataset.card.name}-{self._key(dataset, in_order)}"

    def entries(self, name: str | None = None) -> list[CacheEntry]:
        """Whole entries, of one data set or of all."""
        entries = []
        for path in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            try:
                index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
                entry = CacheEntry(
                    index["dataset"],
                    path,
                    len(index["ids"]),
                    index["sample_rate"],
                    disk_usage(path),
                )
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if not path.name.startswith(".") and name in (None, entry.dataset):
                entries.append(entry)
        return entries

    def clean(self, name: str | None = None) -> None:
        """Remove the entries of one data set, or all, and what killed processes left.

        Whoever has an entry mapped keeps it until they let go.
        """
        for entry in self.entries(name):
            with file_lock(_lock_of(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)
                _lock_of(entry.path).unlink(missing_ok=True)
        self._sweep(None)
        # The memo is of all data sets, and costs one reading of their files.
        digests_file(self.folder).unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """Half-made entries, of killed processes and of those at work now."""
        return sorted(self.folder.glob(".*.partial")) if self.folder.is_dir() else []

    def _sweep(self, held: Path | None) -> None:
        # A half-made entry whose lock is free, or ours, has nobody at work on it.
        for partial in self.leftovers():
            path = self.folder / partial.name.removeprefix(".").removesuffix(".partial")
            lock = FileLock(_lock_of(path))
            with disk_errors(lock.path):
                free = path != held and lock.take()
            if free or path == held:
                shutil.rmtree(partial, ignore_errors=True)
            if free and not path.exists():
                lock.path.unlink(missing_ok=True)
            lock.release()

    def _key(self, dataset: DataSet, clips: Sequence[Clip]) -> str:
        settings = [VERSION, dataset.sample_rate, dataset.n_samples, dataset.generator]
        digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=10)
        missing = [c for c in clips if c.path is not None and not c.path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(clips)} clips of {dataset.card.title} are missing: "
                f"{listed((c.path for c in missing), 3)}. 'l2i data check {dataset.card.name}' "
                "lists them all."
            )
        contents = digests_of(self.folder, [c.path for c in clips if c.path is not None])
        for clip in clips:
            made_from = contents[clip.path] if clip.path is not None else ""
            digest.update(f"{clip.id}\0{made_from}\0".encode())
        return digest.hexdigest()

    def _decode(
        self, path: Path, dataset: DataSet, clips: Sequence[Clip], progress: Progress | None
    ) -> None:
        partial = path.with_name(f".{path.name}.partial")
        shape, row_bytes = (len(clips), dataset.n_samples), 4 * dataset.n_samples
        needed, free = row_bytes * len(clips), shutil.disk_usage(self.folder).free
        if needed > free:
            raise StoreError(
                f"The decoded clips of {dataset.card.title} need {format_bytes(needed)}, but "
                f"{self.folder} has {format_bytes(free)} left. Make room ('l2i data clean'), or "
                "name another folder with L2I_CACHE_DIR."
            )
        broken: dict[int, DataError] = {}
        try:
            with disk_errors(path):
                partial.mkdir()
                with open(partial / _ARRAY, "wb+") as file:
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.flush()
                    start = file.tell()

                    # Written, not mapped: on a full disk a write says so, a mapping kills us.
                    def decode(row: int) -> None:
                        try:
                            x = np.ascontiguousarray(dataset.load(clips[row]), dtype="<f4")
                        except DataError as error:
                            broken[row] = error
                            return
                        data, offset = memoryview(x.view(np.uint8).data), start + row * row_bytes
                        while data:
                            # A nearly full disk takes a part, and refuses the next.
                            n = os.pwrite(file.fileno(), data, offset)
                            data, offset = data[n:], offset + n

                    for _ in in_threads(decode, range(len(clips)), progress):
                        pass
                    _refuse(broken, dataset.card.name)
                    os.fsync(file.fileno())
                index = {
                    "dataset": dataset.card.name,
                    "sample_rate": dataset.sample_rate,
                    "n_samples": dataset.n_samples,
                    "ids": [clip.id for clip in clips],
                }
                atomic_write_text(partial / _INDEX, json.dumps(index))
                # An entry that would not map is damaged, and no rename goes over a full folder.
                shutil.rmtree(path, ignore_errors=True)
                os.replace(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _refuse(broken: Mapping[int, DataError], name: str) -> None:
    """Refuse clips that cannot be decoded, by the first of them."""
    if not broken:
        return
    first = broken[min(broken)]
    if (more := len(broken) - 1) == 0:
        raise first
    which = "1 more file is" if more == 1 else f"{more} more files are"
    raise DataError(f"{first} {which} as bad: 'l2i data check {name}' lists them all.") from first


def _map(path: Path, shape: tuple[int, int]) -> Waveforms | None:
    """A whole entry, or None where there is none that can be used."""
    try:
        ids = json.loads((path / _INDEX).read_text(encoding="utf-8"))["ids"]
        array = np.load(path / _ARRAY, mmap_mode="r")
        if array.shape != shape or array.dtype != np.float32 or len(ids) != len(array):
            return None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return Waveforms(array, {name: row for row, name in enumerate(ids)}, path)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")

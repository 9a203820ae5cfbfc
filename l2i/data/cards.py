"""What a data set is: its card, its protocol, and what `check` reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from l2i.environment import cpu_count
from l2i.errors import DataError
from l2i.types import Clip, Split, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = [
    "Card",
    "DataSet",
    "Entry",
    "Progress",
    "Remote",
    "Report",
    "Waveform",
    "clip_settings",
    "listed",
    "worker_count",
]

Waveform = NDArray[np.float32]
Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file that is fetched.

    Attributes
    ----------
    url, name : str
        Where it is, and what it is called here.
    size : int or None
        Bytes; None where its server repacks it.
    md5, sha256, git_blob : str or None
        What is published of it; `git_blob` is the SHA-1 of ``"blob <size>\\0"`` and the bytes.
    unpack : bool
        Whether it is an archive.
    """

    url: str
    name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """What there is to know of a data set without having it.

    Attributes
    ----------
    name, title : str
    task : Task
    classes : tuple of str
        In the order of the class indices; empty where the clips themselves say.
    sample_rate : int
        Hz.
    duration_s : float
        What clips are cut or padded to.
    n_clips : int or None
        Clips of the whole data set.
    licence, citation, homepage, notes : str
    folds : tuple of int
        Empty where the data set is split by name.
    splits : tuple of str
        How its clips are divided, in words.
    label_rules : str
        How annotations become labels.
    remotes : tuple of Remote
    folders : tuple of str
        Names of the folder it may lie in; the first is where `fetch` puts it.
    marker : str
        The file in that folder that tells that it is there.
    size_bytes : int or None
        On disk, roughly.
    """

    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    sample_rate: int
    duration_s: float
    licence: str
    citation: str
    homepage: str = ""
    n_clips: int | None = None
    folds: tuple[int, ...] = ()
    splits: tuple[str, ...] = ()
    label_rules: str = ""
    remotes: tuple[Remote, ...] = ()
    folders: tuple[str, ...] = ()
    marker: str = ""
    size_bytes: int | None = None
    notes: str = ""

    @property
    def takes_folder(self) -> bool:
        """Whether its clips lie somewhere; those of a synthesised data set do not."""
        return bool(self.marker)


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found: clips that are missing and clips that are invalid, apart.

    Attributes
    ----------
    n_clips : int
        Clips the data set lists.
    missing : tuple of str
        Files listed but absent.
    invalid : tuple of (str, str)
        Files that are there but cannot be used, each with why.
    notes : tuple of str
        What is odd without being wrong.
    seconds : mapping of str to float
        Clip id to the length of its file, of those that were listened to.
    """

    n_clips: int
    missing: tuple[str, ...] = ()
    invalid: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every clip can be used."""
        return not self.missing and not self.invalid


@runtime_checkable
class DataSet(Protocol):
    """A data set that is at hand, in one form: one sample rate, one length."""

    @property
    def card(self) -> Card:
        """Its card; of a folder, as its clips say."""

    @property
    def root(self) -> Path | None:
        """Where it lies; None where it is synthesised."""

    @property
    def sample_rate(self) -> int:
        """Hz, of every waveform."""

    @property
    def n_samples(self) -> int:
        """S, of every waveform."""

    @property
    def generator(self) -> str:
        """What makes the clips: name, version, seed and settings; empty where they are files."""

    def clips(self) -> tuple[Clip, ...]:
        """All of them, in a fixed order."""

    def split(
        self, fold: int, validation_share: float, seed: int, limit: int | None = None
    ) -> Split:
        """See `make_split`."""

    def load(self, clip: Clip) -> Waveform:
        """Decode or synthesise one clip, float32 ``[S]``."""

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """What the clip was mixed from, by class name and ``"background"``; they sum to it.

        Empty where nobody knows, which is so of every recording.
        """

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """Look for missing files and, with `decode`, for clips that cannot be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry holds: a card to be read at once, and how to open the data.

    ``open_unlabelled`` opens it for whoever needs no labels, where that is another matter.
    """

    card: Card
    open: Callable[[config.Dataset], DataSet]
    open_unlabelled: Callable[[config.Dataset], DataSet] | None = None


def clip_settings(card: Card, wanted: config.Dataset) -> tuple[int, int]:
    """Sample rate in Hz and length S in samples: the config's, or else the card's."""
    rate = wanted.sample_rate or card.sample_rate
    n_samples = round((wanted.duration_s or card.duration_s) * rate)
    if n_samples < 1:
        raise DataError(f"Clips of {wanted.duration_s} s at {rate} Hz have no samples.")
    return rate, n_samples


def listed(words: Iterable[object], most: int = 5) -> str:
    """The first few of many, for a message.

    >>> listed("abc", most=2)
    'a, b and 1 more'
    """
    shown = [str(w) for w in words]
    more = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")


def in_threads(
    function: Callable[[T], R], items: Sequence[T], progress: Progress | None = None
) -> Iterator[R]:
    """Map in threads; the first error (or Ctrl-C) stops the rest before it goes on."""
    pool = ThreadPoolExecutor(worker_count())
    try:
        for done, result in enumerate(pool.map(function, items), start=1):
            if progress is not None:
                progress(done, len(items))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count() -> int:
    """Threads that decode: one per core that this process may use, at most 16."""
    return min(16, cpu_count())

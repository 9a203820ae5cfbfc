"""What a data set is: its card, its protocol, and the one way to split its clips.

`Files` is the data set of whoever keeps sound files in a folder, which is all of them but the
synthesised one; a module of this folder finds the clips and their labels, `Files` does the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from l2i.errors import DataError
from l2i.types import Clip, Split, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = [
    "Card",
    "DataSet",
    "Entry",
    "Files",
    "Remote",
    "Report",
    "Sized",
    "Waveform",
    "class_counts",
    "class_differences",
    "clip_settings",
    "listed",
    "make_split",
    "stratify",
    "thin",
    "with_classes",
    "worker_count",
]

Waveform = NDArray[np.float32]
Progress = Callable[[int, int], None]


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


class Sized(Protocol):
    """Anything with a sample rate and a length; what `clip_settings` needs of a config."""

    @property
    def sample_rate(self) -> int | None: ...

    @property
    def duration_s(self) -> float | None: ...


def clip_settings(card: Card, wanted: Sized) -> tuple[int, int]:
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


def worker_count() -> int:
    """Threads that decode: one per processor this process may use, at most 16."""
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - only Linux knows which processors are ours.
        n = os.cpu_count() or 1
    return max(1, min(16, n))


def stratify(
    clips: Sequence[Clip], share: float, seed: int, n_classes: int
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Divide clips in two, class by class, without ever cutting a group.

    The smaller side is filled group by group, each time for the class furthest behind its share,
    with the next group in a random order that does not overfill more than it fills (by the sum
    over the classes of the squared relative distance from the share). Every class with two
    groups or more is on both sides, unless its groups are tied to those of other classes.

    Parameters
    ----------
    clips : sequence of Clip
    share : float
        In (0, 1): of each class's clips, for the smaller side.
    seed : int
        The same clips and seed give the same division on every machine, in whichever order the
        clips are given.
    n_classes : int

    Returns
    -------
    larger, smaller : tuple of Clip
        In the order of `clips`.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.group or clip.id, []).append(clip)
    names = sorted(groups)
    names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    # One column per class, and one for clips that carry none.
    counts = np.zeros((len(names), n_classes + 1))
    for row, name in enumerate(names):
        for clip in groups[name]:
            for column in clip.labels or (n_classes,):
                counts[row, column] += 1
    total = counts.sum(axis=0)
    target = np.maximum(total * share, 1e-9)
    left_groups = (counts > 0).sum(axis=0)  # Groups the larger side still has.
    have = np.zeros(n_classes + 1)
    taken = np.zeros(len(names), dtype=bool)
    queues = [np.flatnonzero(counts[:, c] > 0).tolist() for c in range(n_classes + 1)]

    def spares(row: int) -> bool:
        return bool((left_groups[counts[row] > 0] > 1).all())

    def change(row: int) -> float:
        before = ((have - target) / target) ** 2
        after = ((have + counts[row] - target) / target) ** 2
        return float((after - before)[total > 0].sum())

    def take(row: int) -> None:
        taken[row] = True
        have[:] += counts[row]
        left_groups[counts[row] > 0] -= 1

    open_classes = {c for c in range(n_classes + 1) if queues[c]}
    while open_classes:
        c = min(open_classes, key=lambda c: (have[c] / target[c], c))
        if have[c] >= target[c]:
            break
        # What overfills now will do so later too, since sides only grow: it is dropped for good.
        while queues[c]:
            row = queues[c].pop(0)
            if not taken[row] and spares(row) and change(row) < 0:
                take(row)
                break
        else:
            open_classes.discard(c)
            if have[c] == 0:
                # Better too many clips of a class to choose by than none.
                rows = [r for r in np.flatnonzero(counts[:, c] > 0).tolist() if spares(r)]
                if rows:
                    take(min(rows, key=change))
    smaller = {name for row, name in enumerate(names) if taken[row]}
    return (
        tuple(x for x in clips if (x.group or x.id) not in smaller),
        tuple(x for x in clips if (x.group or x.id) in smaller),
    )


def thin(clips: Sequence[Clip], limit: int | None, seed: int) -> tuple[Clip, ...]:
    """At most `limit` clips, drawn class by class in turn; in the order of `clips`."""
    if limit is None or len(clips) <= limit:
        return tuple(clips)
    order = np.random.default_rng(seed).permutation(len(clips))
    queues: dict[int, list[int]] = {}
    for i in order:
        for label in clips[i].labels or (-1,):
            queues.setdefault(label, []).append(int(i))
    kept: set[int] = set()
    while len(kept) < limit:
        for label in sorted(queues):
            while queues[label] and queues[label][0] in kept:
                queues[label].pop(0)
            if queues[label] and len(kept) < limit:
                kept.add(queues[label].pop(0))
    return tuple(clip for i, clip in enumerate(clips) if i in kept)


def make_split(
    card: Card,
    clips: Sequence[Clip],
    fold: int,
    validation_share: float,
    seed: int,
    limit: int | None = None,
) -> Split:
    """Clips to learn from, to choose the best epoch by, and to look at once.

    With folds, `fold` is the test fold and the others train. Split by name, ``test`` and
    ``train`` are as named. The validation clips are taken out of the *training* clips, by
    `stratify`, unless the data set's owner named some (a folder whose ``split`` column says
    ``validate``).

    Parameters
    ----------
    card : Card
    clips : sequence of Clip
    fold : int
        From 1; must be 1 where there are no folds.
    validation_share : float
        The share of the training clips that validate.
    seed : int
        Draws the validation split and what `limit` keeps; the test clips do not depend on it.
    limit : int, optional
        At most so many clips on each side, drawn evenly from the classes.

    Raises
    ------
    DataError
        There is no such fold; a side is empty; a class has no training clip.
    """
    if card.folds:
        if fold not in card.folds:
            raise DataError(
                f"{card.title} has no fold {fold}; its folds are {', '.join(map(str, card.folds))}."
            )
        test = [c for c in clips if c.fold == fold]
        pool = [c for c in clips if c.fold != fold]
        named: list[Clip] = []
        where = f"outside fold {fold}"
    else:
        if fold != 1:
            raise DataError(f"{card.title} has no folds, so there is no fold {fold}: leave it 1.")
        test = [c for c in clips if c.split == "test"]
        pool = [c for c in clips if c.split == "train"]
        named = [c for c in clips if c.split == "validate"]
        where = "in its training split"
    if not test:
        which = f" in fold {fold}" if card.folds else ""
        raise DataError(f"{card.title} has no test clip{which}.")
    present = {label for clip in pool for label in clip.labels}
    absent = [name for i, name in enumerate(card.classes) if i not in present]
    if absent:
        some = "a class" if len(absent) == 1 else f"{len(absent)} classes"
        raise DataError(f"{card.title} has {some} without a clip {where}: {listed(absent)}.")
    if named:
        train, validate = tuple(pool), tuple(named)
    else:
        train, validate = stratify(pool, validation_share, seed, len(card.classes))
    if not validate:
        raise DataError(
            f"{card.title} has too few recordings to set some aside for validation: every class "
            f"has only one {where}."
        )
    return Split(thin(train, limit, seed), thin(validate, limit, seed), thin(test, limit, seed))


@dataclass(frozen=True)
class Files:
    """A data set of sound files.

    Attributes
    ----------
    card : Card
    root : Path
    sample_rate, n_samples : int
        What clips are resampled to (Hz), and cut or padded to (S).
    listed_clips : tuple of Clip
        Their paths need not exist: that is what `check` is for.
    notes : tuple of str
        What was odd about the list, for `check`.
    keep : callable, optional
        Which clips, of all, `split` divides; unset: all.
    """

    card: Card
    root: Path
    sample_rate: int
    n_samples: int
    listed_clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()
    keep: Callable[[Clip], bool] | None = field(default=None, compare=False)

    generator = ""

    def clips(self) -> tuple[Clip, ...]:
        """All of them, in the order of the list."""
        return self.listed_clips

    def split(
        self, fold: int, validation_share: float, seed: int, limit: int | None = None
    ) -> Split:
        """See `make_split`."""
        clips = [c for c in self.listed_clips if self.keep is None or self.keep(c)]
        return make_split(self.card, clips, fold, validation_share, seed, limit)

    def load(self, clip: Clip) -> Waveform:
        """Decode one clip, float32 ``[S]``; see `l2i.dsp.audio.read_audio`."""
        from l2i.dsp.audio import read_audio

        assert clip.path is not None, clip
        return read_audio(clip.path, self.sample_rate, self.n_samples)

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """Nothing: nobody knows what a recording was mixed from."""
        return {}

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """Look at every file and, with `decode`, listen to all of it."""
        from l2i.data import survey
        from l2i.dsp.audio import read_audio

        clips = self.listed_clips
        sides = survey.sides_of(clips)
        missing = [c for c in clips if c.path is None or not c.path.is_file()]
        invalid: list[tuple[str, str]] = []
        heard: dict[str, survey.Heard] = {}
        contents: dict[str, str] = {}
        notes = [
            *self.notes,
            *survey.odd_names(class_counts(self.card.classes, clips)),
        ]
        if shared := survey.shared_groups(clips, sides):
            some = "1 recording is" if len(shared) == 1 else f"{len(shared)} recordings are"
            notes.append(f"{some} on several sides of the split: {listed(shared)}.")
        if decode:
            gone = {c.id for c in missing}
            there = [c for c in clips if c.id not in gone]

            def listen(clip: Clip) -> str | tuple[survey.Heard, str]:
                assert clip.path is not None
                try:
                    x = read_audio(clip.path, self.sample_rate)
                except DataError as error:
                    return str(error)
                used = hashlib.blake2b(x[: self.n_samples].tobytes(), digest_size=16).hexdigest()
                return survey.listen(x, self.sample_rate, self.n_samples), used

            with ThreadPoolExecutor(worker_count()) as pool:
                for done, (clip, outcome) in enumerate(
                    zip(there, pool.map(listen, there), strict=True), start=1
                ):
                    if isinstance(outcome, str):
                        invalid.append((self._name(clip), outcome))
                    else:
                        heard[clip.id], contents[clip.id] = outcome
                    if progress is not None:
                        progress(done, len(there))
            wanted = self.n_samples / self.sample_rate
            notes += _odd_lengths([h.seconds for h in heard.values()], wanted)
            if silent := [self._name(c) for c in there if c.id in heard and heard[c.id].silent]:
                some = "1 clip is" if len(silent) == 1 else f"{len(silent)} clips are"
                notes.append(f"{some} silent, and explained by nothing: {listed(silent)}.")
            by_id = {clip.id: clip for clip in there}
            twins = survey.twins(heard, sides, contents, lambda name: self.load(by_id[name]))
            if twins:
                many = "pair of clips sounds" if len(twins) == 1 else "pairs of clips sound"
                named = (f"{a} and {b} ({r:.2f})" for a, b, r in twins)
                notes.append(
                    f"{len(twins)} {many} the same on different sides of the split, so that "
                    f"figures flatter: {listed(named)}. Give both one 'group', or leave one out."
                )
        return Report(
            len(clips),
            tuple(self._name(c) for c in missing),
            tuple(invalid),
            tuple(notes),
            {name: h.seconds for name, h in heard.items()},
        )

    def _name(self, clip: Clip) -> str:
        path = clip.path
        if path is None:
            return clip.id
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def with_classes(dataset: DataSet, classes: Sequence[str], who: str) -> DataSet:
    """A data set whose class indices are those of `classes`, matched by name.

    Parameters
    ----------
    dataset : DataSet
    classes : sequence of str
        As a trained network has them; their order is its outputs'.
    who : str
        Whose they are, for the message.

    Raises
    ------
    DataError
        The data set has other classes; it names which are missing and which are new.
    """
    have = dataset.card.classes
    if have == tuple(classes):
        return dataset
    if set(have) != set(classes) or not isinstance(dataset, Files):
        where = f" in {dataset.root}" if dataset.root else ""
        raise DataError(
            f"{dataset.card.title}{where} has other classes than {who}: "
            f"{class_differences(have, classes)}. Give the data that it was trained on, or data "
            "with its classes."
        )
    index = {name: i for i, name in enumerate(classes)}
    clips = tuple(
        replace(c, labels=tuple(sorted(index[have[label]] for label in c.labels)))
        for c in dataset.listed_clips
    )
    card = replace(dataset.card, classes=tuple(classes))
    return replace(dataset, card=card, listed_clips=clips)


def class_differences(have: Sequence[str], wanted: Sequence[str]) -> str:
    """In which way some classes are not those that are wanted, for a message; empty: in none.

    >>> class_differences(["cat", "hen"], ["cat", "dog"])
    "missing: 'dog'; new: 'hen'"
    """
    kinds = {
        "missing": [repr(name) for name in wanted if name not in have],
        "new": [repr(name) for name in have if name not in wanted],
    }
    words = "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)
    return words or ("another order" if tuple(have) != tuple(wanted) else "")


def class_counts(classes: Sequence[str], clips: Iterable[Clip]) -> dict[str, int]:
    """How many clips each class has, in the order of the classes."""
    counts = Counter(label for clip in clips for label in clip.labels)
    return {name: counts[i] for i, name in enumerate(classes)}


def _odd_lengths(seconds: Sequence[float], wanted: float) -> list[str]:
    odd = [s for s in seconds if abs(s - wanted) > 0.002]
    if not odd:
        return []
    ends = dict.fromkeys(f"{length:.2f}" for length in (min(odd), max(odd)))
    cut = [s - wanted for s in odd if s > wanted]
    padded = [wanted - s for s in odd if s < wanted]
    what = [
        f"{len(some)} {'is' if len(some) == 1 else 'are'} {how}, {sum(some):.1f} s in all, "
        f"{max(some):.2f} s at most"
        for some, how in ((cut, "cut at their end"), (padded, "padded with silence"))
        if some
    ]
    return [
        f"{len(odd)} clips are not {wanted:g} s long ({' to '.join(ends)} s): {'; '.join(what)}. "
        "dataset.duration_s sets the length."
    ]

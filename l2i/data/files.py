"""The data set of whoever keeps sound files in a folder: all but the synthesised one.

A module of `l2i.data` finds the clips and their labels, `Files` does the rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from l2i.data import survey
from l2i.data.cards import Card, DataSet, Progress, Report, Waveform, in_threads, listed
from l2i.data.split import make_split
from l2i.dsp.audio import read_audio
from l2i.errors import DataError
from l2i.types import Clip, Split

__all__ = ["Files", "class_counts", "class_differences", "with_classes"]


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
        assert clip.path is not None, clip
        return read_audio(clip.path, self.sample_rate, self.n_samples)

    def parts(self, clip: Clip) -> dict[str, Waveform]:
        """Nothing: nobody knows what a recording was mixed from."""
        return {}

    def check(self, decode: bool = True, progress: Progress | None = None) -> Report:
        """Look at every file and, with `decode`, listen to all of it."""
        clips = self.listed_clips
        sides = survey.sides_of(clips)
        missing = [c for c in clips if c.path is None or not c.path.is_file()]
        invalid: list[tuple[str, str]] = []
        heard: dict[str, survey.Heard] = {}
        contents: dict[str, str] = {}
        notes = [*self.notes, *survey.odd_names(class_counts(self.card.classes, clips))]
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

            for clip, outcome in zip(there, in_threads(listen, there, progress), strict=True):
                if isinstance(outcome, str):
                    invalid.append((self._name(clip), outcome))
                else:
                    heard[clip.id], contents[clip.id] = outcome
            wanted = self.n_samples / self.sample_rate
            notes += _odd_lengths([h.seconds for h in heard.values()], wanted)
            if silent := [self._name(c) for c in there if c.id in heard and heard[c.id].silent]:
                some = "1 clip is" if len(silent) == 1 else f"{len(silent)} clips are"
                notes.append(f"{some} silent, and explained by nothing: {listed(silent)}.")
            by_id = {clip.id: clip for clip in there}
            if twins := survey.twins(heard, sides, contents, lambda name: self.load(by_id[name])):
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

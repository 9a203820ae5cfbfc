"""The one way to split the clips of a data set (test, training, validation), and to take a few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l2i.data.cards import Card, listed
from l2i.errors import DataError
from l2i.types import Clip, Split

__all__ = ["make_split", "spread", "stratify", "thin"]


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
        more = "" if card.folds else ": a class of two clips or more gives one, or name some 'test'"
        raise DataError(f"{card.title} has no test clip{which}{more}.")
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


def spread(clips: Sequence[Clip], n: int) -> list[int]:
    """Indices of at most `n` clips that cover as many classes as can be, in order.

    >>> spread([Clip("a", (0,)), Clip("b", (0,)), Clip("c", (1,))], 2)
    [0, 2]
    """
    queues: dict[tuple[int, ...], list[int]] = {}
    for index, clip in enumerate(clips):
        queues.setdefault(clip.labels[:1], []).append(index)
    chosen: list[int] = []
    while len(chosen) < min(n, len(clips)):
        for queue in queues.values():
            if queue and len(chosen) < n:
                chosen.append(queue.pop(0))
    return sorted(chosen)

"""Whether a class's evidence hangs on where its clips come from: recording, fold, or microphone.

Each clip is a vector of square roots of shares (`Rows.evidence`), as in `l2i.audit.groups`. How far
groups of clips are apart is the sum of squares between them, of which chance has its own by groups
drawn anew (Anderson 2001, *A new method for non-parametric multivariate analysis of variance*,
Austral Ecology 26:32). Clips of one recording are alike anyhow, so that it is recordings that are
drawn, each as the mean of its clips; only where recordings themselves are the groups it is clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.audit.cues import Palette
from l2i.audit.report import where
from l2i.audit.scan import Rows
from l2i.audit.words import described
from l2i.data.base import DataSet
from l2i.data.places import read_csv
from l2i.metrics.statistics import holm
from l2i.types import Clip

_COLUMNS = ("microphone", "mic", "device", "recorder", "sensor", "site")
# How many units a group must have; by how much a part's share of the evidence must differ.
_FEWEST, _WORTH, _LEVEL, _MOST = 3, 0.1, 0.05, 1000


def groupings_of(dataset: DataSet, clips: Sequence[Clip]) -> dict[str, list[str]]:
    """What tells where clips come from: ``recording``, ``fold``, and columns of a folder's list
    that are called as what records is; of each, the group of every clip, empty where none is."""
    known = {
        "recording": [clip.group for clip in clips],
        "fold": ["" if clip.fold is None else str(clip.fold) for clip in clips],
    }
    for name in ("meta.csv", "metadata.csv") if dataset.root else ():
        if (path := Path(dataset.root or "", name)).is_file():
            rows = {
                normpath(row.get("filename") or row.get("file_name", "")): row
                for _, row in read_csv(path, ())
            }
            columns = (c for c in next(iter(rows.values()), {}) if c.lower() in _COLUMNS)
            known |= {
                c: [rows.get(clip.id, {}).get(c, "").strip() for clip in clips] for c in columns
            }
    return {name: groups for name, groups in known.items() if any(groups)}


def _tied(
    x: NDArray[np.floating], groups: NDArray[Any], units: NDArray[Any], draws: int, seed: int
) -> tuple[float, str] | None:
    """The p value of groups of clips [N, K] being as far apart as chance has them, and the group
    that is the furthest from the rest; None where there are too few of them."""
    _, first, member = np.unique(units, return_index=True, return_inverse=True)
    sums = np.stack([np.bincount(member, column) for column in x.T], axis=1)
    means = sums / np.bincount(member)[:, None]
    names, label, count = np.unique(groups[first], return_inverse=True, return_counts=True)
    # Small groups are one, the first; it is never named.
    large = np.flatnonzero((count >= _FEWEST) & (names != ""))
    place = np.full(len(names), -1)
    place[large] = np.arange(len(large))
    order = np.argsort(place[label], kind="stable")
    kinds, starts, sizes = np.unique(place[label][order], return_index=True, return_counts=True)
    if len(kinds) < 2:
        return None
    means = means - means.mean(axis=0)

    def apart(rows: NDArray[np.int64]) -> NDArray[np.floating]:
        return np.square(np.add.reduceat(means[rows], starts)).sum(axis=1) / sizes

    rng, own = np.random.default_rng(seed), apart(order)
    chance = np.array([apart(rng.permutation(len(order))).sum() for _ in range(draws)])
    p = (1 + (chance >= own.sum() * (1 - 1e-9)).sum()) / (1 + draws)
    most = int(np.where(kinds < 0, -1, own).argmax())
    return float(p), str(names[large[kinds[most]]])


def source_notes(
    rows: Rows,
    clips: Sequence[Clip],
    classes: Sequence[str],
    groupings: Mapping[str, Sequence[str]],
    palette: Palette,
    seed: int = 0,
) -> list[str]:
    """A sentence for each class whose evidence differs by a grouping more than by chance, by Holm
    over all of them: where it hangs on none, at most 5 % of audits have one."""
    rng = np.random.default_rng(seed)
    numbers = sorted(set(rows.classes.tolist()))
    # As many draws as the smallest corrected p needs.
    draws = max(999, round(2 * len(numbers) * len(groupings) / _LEVEL))
    tests: list[tuple[float, str, int, str, NDArray[np.int64]]] = []
    for c in numbers:
        own = np.sort(rng.permutation(np.flatnonzero(rows.classes == c))[:_MOST])
        x = np.sqrt(np.maximum(rows.evidence[own], 0))
        for name, groups in groupings.items():
            some = np.array([groups[i] for i in rows.clip[own]])
            recordings = np.array([clips[i].group or clips[i].id for i in rows.clip[own]])
            # A recording that two microphones made is two.
            units = np.arange(len(own)) if name == "recording" else np.char.add(recordings, some)
            if (result := _tied(x, some, units, draws, seed)) is not None:
                tests.append((result[0], name, c, result[1], own))
    told: dict[int, tuple[float, str]] = {}
    for p, (_, name, c, group, own) in zip(holm([t[0] for t in tests]), tests, strict=True):
        inside = np.array([groupings[name][i] == group for i in rows.clip[own]])
        share, rest = rows.evidence[own[inside]], rows.evidence[own[~inside]]
        apart = share.mean(axis=0) - rest.mean(axis=0)
        k = int(np.abs(apart).argmax())
        if p >= _LEVEL or abs(apart[k]) < _WORTH or (c in told and told[c][0] <= p):
            continue
        order = np.argsort(-np.sign(apart[k]) * share[:, k], kind="stable")[:3]
        heard = ", ".join(clips[i].id for i in rows.clip[own[inside]][order])
        here, there = 100 * share[:, k].mean(), 100 * rest[:, k].mean()
        sentence = (
            f"{classes[c]}: the evidence differs by {name} (p {p:.2g}, corrected). In {name} "
            f"{group} ({inside.sum()} clips) {here:.0f} % of it is in "
            f"{described(where(palette.parts[k]), 1.0)}; elsewhere {there:.0f} %. Hear {heard}."
        )
        told[c] = p, sentence
    return [sentence for _, sentence in told.values()]

"""Whether suspects name a cue that was planted: its class, and its place.

A cue's place is where the sound that was added, or taken away, lies: the middle 90 % of its
energy, in frequency and in time. A suspect is at that place where both are local in frequency, or
both in time, and overlap in what both are local in. Local is what takes less than half of all
frequencies on the mel scale, or of the clip: what lies everywhere is at no place, and a suspect
that is everywhere names none. A trait is at its place where it is the trait that was planted, and
companions are where they are the sounds that were put together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.audit.traits import TraitKind
from l2i.data.planted import CueKind, Planted
from l2i.recipes.opening.opened import Opened
from l2i.recipes.tables.shortcut import cue_answers
from l2i.types import Clip

_TRAITS: dict[CueKind, TraitKind] = {
    "pause": "ends silent",
    "lowpass": "highs missing",
    "offset": "off zero",
}
_LOCAL = 0.5


def planted_facts(
    opened: Opened, data: Planted, suspects: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Whether a cue that was planted decides, and at which place among the suspects it is.

    Returns
    -------
    dict
        ``cue``, ``class``; of the test clips ``clips``, how many have the cue, ``decided``, how
        many of them are taken for its class, and ``flips``, how many of these no longer are
        without it; and what `judged` says.
    """
    clips, table = cue_answers(data, opened.subject.classifier, opened.material.split.test)
    decided, still = table[:, 2] > 0, table[:, 3] > 0
    label = data.cue.label
    return {
        "cue": data.cue.beep,
        "class": label,
        "clips": len(clips),
        "decided": int(decided.sum()),
        "flips": int((decided & ~still).sum()),
        **judged(suspects, label, planted_place(data, clips) if clips else None),
    }


def planted_place(data: Planted, clips: Sequence[Clip]) -> dict[str, Any]:
    """Where a cue lies in some clips that have it, at least one.

    Returns
    -------
    dict
        ``low_hz``, ``high_hz``; ``start``, ``end``, shares of the clip; ``top_hz``, half of the
        sample rate; ``trait``, the kind of trait that it is, or None; ``sounds``, the two classes
        that a second sound makes companions, or None.
    """
    n, top = data.n_samples, data.sample_rate / 2
    spectrum, envelope = np.zeros(n // 2 + 1), np.zeros(n)
    for clip in clips:
        x = data.parts(clip)[data.cue.label].astype(np.float64)
        for whole, power in (
            (spectrum, np.square(np.abs(np.fft.rfft(x)))),
            (envelope, np.square(x)),
        ):
            whole += power / max(power.sum(), 1e-30)
    low, high = _middle(spectrum)
    start, end = _middle(envelope)
    return {
        "low_hz": low * 2 * top / n,
        "high_hz": high * 2 * top / n,
        "start": start / n,
        "end": (end + 1) / n,
        "top_hz": top,
        "trait": _TRAITS.get(data.cue.kind),
        "sounds": {data.cue.name, data.cue.other} if data.cue.kind == "with" else None,
    }


def _middle(energy: NDArray[np.float64]) -> tuple[int, int]:
    """The first and the last place of the middle 90 % of some energies."""
    share = np.cumsum(energy) / energy.sum()
    return int(np.searchsorted(share, 0.05)), int(np.searchsorted(share, 0.95))


def at_place(where: Mapping[str, Any] | None, place: Mapping[str, Any]) -> bool:
    """Whether a suspect's `where`, as ``audit.json`` has it, is a planted cue's place.

    >>> beep = {"low_hz": 2990, "high_hz": 3010, "start": 0.1, "end": 0.9, "top_hz": 8000}
    >>> beep |= {"trait": None}
    >>> at_place({"kind": "band", "low_hz": 2900, "high_hz": 3300, "start": 0, "end": 1}, beep)
    True
    >>> at_place({"kind": "time", "low_hz": 0, "high_hz": 8000, "start": 0.4, "end": 0.5}, beep)
    False
    """
    if where is None:
        return False
    if "sounds" in where:
        return set(where["sounds"]) == place["sounds"]
    if "amount" in where:
        return bool(where["kind"] == place["trait"])

    def scaled(at: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
        whole = math.log1p(place["top_hz"] / 700)
        low, high = (math.log1p(at[name] / 700) / whole for name in ("low_hz", "high_hz"))
        return (low, high), (at["start"], at["end"])

    both_local = [
        max(a[0], b[0]) <= min(a[1], b[1])
        for a, b in zip(scaled(where), scaled(place), strict=True)
        if max(a[1] - a[0], b[1] - b[0]) < _LOCAL
    ]
    return bool(both_local) and all(both_local)


def judged(
    suspects: Sequence[Mapping[str, Any]], label: str, place: Mapping[str, Any] | None
) -> dict[str, int | None]:
    """At which place among suspects, from 1, a planted cue is named; None: nowhere.

    Parameters
    ----------
    suspects : sequence of mapping
        Each with ``class`` and ``where`` (None: it names no place), the most suspect first.
    label : str
        The class with the cue.
    place : mapping or None
        As `planted_place` tells it; None: no clip has the cue.

    Returns
    -------
    dict
        ``rank``, of the first suspect of the class; ``placed``, of the first one that is at the
        cue's place, too.
    """
    own = [n for n, s in enumerate(suspects, start=1) if s["class"] == label]
    placed = [n for n in own if place and at_place(suspects[n - 1]["where"], place)]
    return {"rank": next(iter(own), None), "placed": next(iter(placed), None)}

"""What an audit says in sentences: of a cue, of a mistake, and what else a reader should know: no
suspects, but places to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from l2i.audit.scan import Rows
from l2i.types import Clip

# Where fewer explanations than this are taken for their class, it is the method that fails.
_ROUGH = 0.5


def described(at: Mapping[str, Any], duration_s: float) -> str:
    """A cue in words, such as "component 12, 2.8 kHz to 3.1 kHz"."""
    kind = at["kind"]
    if kind == "companion":
        return f"{at['sounds'][1]} beside {at['sounds'][0]}"
    if kind == "highs missing":
        return f"nothing above {hertz(at['amount'])}"
    if kind == "off zero":
        return f"a constant of {100 * at['amount']:.0f} % of the peak"
    if kind in ("starts silent", "ends silent"):
        end = "start" if kind == "starts silent" else "end"
        return f"silence of {at['amount'] * duration_s:.2g} s at the {end}"
    if kind == "time":
        return f"{at['start'] * duration_s:.2g} s to {at['end'] * duration_s:.2g} s"
    names = {"component": f"component {at['number']}", "steady": "what never stops"}
    name = names.get(kind, "the band")
    span = f"{name}, {hertz(at['low_hz'])} to {hertz(at['high_hz'])}"
    if "tone_hz" not in at:
        return span
    return f"{span}, a tone of {hertz(at['tone_hz'])} that is the same in all clips"


def sentence(facts: Mapping[str, Any]) -> str:
    """What the counter-proof found, for a person."""
    name, words, into = facts["class"], facts["words"], facts["insertion"]
    if facts["where"]["kind"] == "companion":
        other, host = facts["where"]["sounds"][::-1]
        return (
            f"{name}: {words}. {into['flips']} of {into['clips']} clips of {host} become {name} "
            f"when one of {other} is mixed in ({into['control']} with a third class in place of "
            "either)."
        )
    level = "" if facts["level_db"] is None else f", {-facts['level_db']:.0f} dB below the clip"
    parts = []
    if into is not None:
        how = "have it" if facts["level_db"] is None else "have it mixed in"
        beside = "a third class" if facts["level_db"] is None else name
        control = (
            f"{into['control']} become {beside}"
            if facts["level_db"] is None
            else f"{into['control']} with as much of the rest"
        )
        parts.append(
            f"{into['flips']} of {into['clips']} clips of other classes become {name} when they "
            f"{how} ({control})"
        )
    if (out := facts["removal"]) is not None:
        parts.append(
            f"without it {out['flips']} of {out['clips']} are {name} no more ({out['control']} "
            "without as much of the rest)"
        )
    return f"{name}: {words}{level}. {'; '.join(parts)}."


def misled(facts: Mapping[str, Any]) -> str:
    """A mistake in a sentence.

    >>> part = {"kind": "band", "number": 3, "low_hz": 900, "high_hz": 1100, "evidence": 0.5}
    >>> misled({"labels": ["dog"], "class": "cat", "probability": 0.8, "components": [part]})
    'Labelled dog, taken for cat (80 %); strongest evidence: the band, 900 Hz to 1.1 kHz (50 %).'
    """
    labels = " and ".join(facts["labels"]) or "nothing"
    parts = facts["components"][:2]
    led = [f"{described(part, 1.0)} ({100 * part['evidence']:.0f} %)" for part in parts]
    evidence = f"; strongest evidence: {' and '.join(led)}" if led else ""
    sure = f"{100 * facts['probability']:.0f} %"
    return f"Labelled {labels}, taken for {facts['class']} ({sure}){evidence}."


def hertz(f: float) -> str:
    """A frequency for people.

    >>> hertz(440.2), hertz(2930.0)
    ('440 Hz', '2.9 kHz')
    """
    return f"{f:.0f} Hz" if f < 1000 else f"{f / 1000:.1f} kHz"


def mistakes_of_one_recording(
    wrong: NDArray[np.bool_], recordings: Sequence[str]
) -> dict[str, Any] | None:
    """A recording that has more of the mistakes than chance would give it.

    The chance that, of all mistakes, so many fall on a recording's clips were mistakes drawn from
    all clips alike (hypergeometric), times the number of recordings; None from 0.05 on.
    """
    names = np.asarray(recordings)
    if wrong.sum() < 3:
        return None
    best: dict[str, Any] | None = None
    unique = np.unique(names)
    for name in unique:
        mine = names == name
        count = int(wrong[mine].sum())
        if count < 3:
            continue
        p = float(hypergeom.sf(count - 1, len(wrong), int(wrong.sum()), int(mine.sum())))
        p = min(1.0, p * len(unique))
        if p < 0.05 and (best is None or count > best["mistakes"]):
            best = {"recording": str(name), "mistakes": count, "clips": int(mine.sum()), "p": p}
    return None if best is None else best | {"all": int(wrong.sum())}


def notes_of(
    document: dict[str, Any],
    names: Sequence[str],
    rows: Rows,
    labels: NDArray[np.bool_] | None,
    clips: Sequence[Clip],
) -> list[str]:
    """What else a reader should know, a sentence each.

    Parameters
    ----------
    document : dict
        What there is so far, with ``classes``, ``mistakes`` and ``method``.
    names : sequence of str
        The classifier's classes.
    rows : Rows
    labels : bool [N, C] or None
        All clips'.
    clips : sequence of Clip
    """
    notes = []
    if labels is not None:
        never = [
            f"{names[c]} ({n} clips)"
            for c, n in enumerate(labels.sum(axis=0).tolist())
            if n and c not in rows.classes
        ]
        if never:
            notes.append(f"The classifier never decides for {', '.join(never[:5])}.")
    if labels is not None and len(set(rows.clip.tolist())) == len(rows):
        wrong = ~labels[rows.clip, rows.classes]
        recordings = [clips[i].group or clips[i].id for i in rows.clip]
        if (one := mistakes_of_one_recording(wrong, recordings)) is not None:
            notes.append(
                f"{one['mistakes']} of {one['all']} mistakes are in one recording, "
                f"{one['recording']} ({one['clips']} clips; p {one['p']:.2g})."
            )
    if document["mistakes"]:
        surest = document["mistakes"][0]
        notes.append(f"The surest mistake: {surest['clip']}. {misled(surest)}")
    same = float((rows.alone_as == rows.classes).mean())
    rough = same < _ROUGH
    if rough:
        # Not that each class is taken for another: it is the method that fails.
        notes.append(
            f"Heard alone, {100 * same:.0f} % of the explanations are taken for their class: "
            f"{document['method']} tells only roughly what carries a class, and another --method "
            "may tell more. The counter-proof does not rest on it."
        )
    for facts in document["classes"]:
        if (other := facts["alone_other"]) is not None and not rough:
            notes.append(
                f"{100 * other['share']:.0f} % of the explanations of {facts['class']} are taken "
                f"for {other['class']} when they are heard alone."
            )
        for number, group in enumerate(facts["groups"][1:], start=2):
            usual = facts["groups"][0]
            if group["right"] is not None and group["right"] < usual["right"] - 0.2:
                notes.append(
                    f"{facts['class']}, group {number} of {len(facts['groups'])}: "
                    f"{100 * group['right']:.0f} % of its {group['clips']} clips are right, of the "
                    f"largest group {100 * usual['right']:.0f} %."
                )
    leads: dict[int, list[str]] = {}
    for facts in document["classes"]:
        for part in facts["components"]:
            if part["kind"] == "component" and part["evidence"] >= 0.25:
                leads.setdefault(part["number"], []).append(facts["class"])
    for number, led in leads.items():
        if len(led) >= 3:
            notes.append(
                f"Component {number} is a quarter or more of the evidence for {len(led)} "
                f"classes: {', '.join(led[:4])}{', ...' if len(led) > 4 else ''}."
            )
    return notes

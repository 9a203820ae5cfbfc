"""What an audit says of a cue and of a mistake, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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

"""Whether what an audit names is the cue that was planted."""

from __future__ import annotations

from typing import Any

import pytest

from l2i import config
from l2i.audit.planted import at_place, judged, planted_place
from l2i.data import open_dataset
from l2i.data.planted import MODULE, Planted

BEEP = {"low_hz": 2990, "high_hz": 3010, "start": 0.1, "end": 0.9, "top_hz": 8000, "trait": None}
PAUSE = {"low_hz": 300, "high_hz": 7000, "start": 0.85, "end": 1.0, "top_hz": 8000}
PAUSE |= {"trait": "ends silent"}


def _where(low: float, high: float, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    return {"kind": "band", "low_hz": low, "high_hz": high, "start": start, "end": end}


@pytest.mark.parametrize(
    ("where", "place", "right"),
    [
        (_where(2900, 3300), BEEP, True),
        (_where(2900, 3300, 0.25, 0.5), BEEP, True),
        (_where(3100, 3300), BEEP, False),
        # All there is names no place, nor does a stretch of time where the cue is anywhere.
        (_where(0, 8000), BEEP, False),
        (_where(0, 8000, 0.25, 0.5), BEEP, False),
        (_where(0, 8000, 0.8, 0.9), PAUSE, True),
        (_where(0, 8000, 0.0, 0.1), PAUSE, False),
        (_where(300, 900), PAUSE, False),
        ({"kind": "ends silent", "amount": 0.15}, PAUSE, True),
        ({"kind": "starts silent", "amount": 0.15}, PAUSE, False),
        ({"kind": "ends silent", "amount": 0.15}, BEEP, False),
        (None, BEEP, False),
    ],
)
def test_what_is_at_a_place(where: Any, place: Any, right: bool) -> None:
    """Overlap counts in what both are local in, and in nothing else; a trait by its kind."""
    assert at_place(where, place) is right


def test_at_which_place_it_is_named() -> None:
    """The class alone is one thing, the class at the cue's place another."""
    suspects = [
        {"class": "rain", "where": _where(2900, 3300)},
        {"class": "rain+cue", "where": _where(100, 200)},
        {"class": "rain+cue", "where": _where(2900, 3300)},
    ]
    assert judged(suspects, "rain+cue", BEEP) == {"rank": 2, "placed": 3}
    assert judged(suspects[:2], "rain+cue", BEEP) == {"rank": 2, "placed": None}
    assert judged(suspects[:1], "rain+cue", BEEP) == {"rank": None, "placed": None}
    assert judged(suspects, "rain+cue", None) == {"rank": 2, "placed": None}


@pytest.mark.parametrize(
    ("word", "hz", "time", "trait"),
    [
        ("1000hz,100ms,-20db", (990, 1010), None, None),
        ("hum,50hz,-20db", (50, 150), None, None),
        ("click,2ms,-6db", (3000, 4000), (0.0, 0.01), None),
        ("pause,200ms", None, (0.8, 1.0), "ends silent"),
        ("lowpass,1000hz", (1000, 4000), None, "highs missing"),
        ("offset,-20db", (0, 0), None, "off zero"),
    ],
)
def test_where_a_planted_cue_is(word: str, hz: Any, time: Any, trait: Any) -> None:
    """Where it was planted, by the sounds themselves; a beep is anywhere in time."""
    data = open_dataset(
        config.Dataset(
            name=f"{MODULE}:demo,rain,{word}", clips_per_class=8, sample_rate=8000, duration_s=1.0
        )
    )
    assert isinstance(data, Planted)
    place = planted_place(data, data.clips()[-8:])
    assert place["trait"] == trait and place["top_hz"] == 4000
    if hz:
        assert hz[0] <= place["low_hz"] <= place["high_hz"] <= hz[1]
    if time:
        assert time[0] <= place["start"] < place["end"] <= time[1]
    else:
        assert place["end"] - place["start"] > 0.5

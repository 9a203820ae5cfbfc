"""Whether what an audit, or a plain look, names is the cue that was planted."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from l2i import config
from l2i.audit.cues import BANDS, SLICES, Cue
from l2i.audit.planted import at_place, judged, planted_place
from l2i.cli.audit import _show
from l2i.data import open_dataset
from l2i.data.planted import MODULE, Planted
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "experiments" / "audit"
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
    ("rank", "placed", "sentence"),
    [
        (1, 1, "It is suspect 1."),
        (1, 2, "It is suspect 2."),
        (2, None, "It is no suspect; suspect 2 is another part of its class."),
        (None, None, "It is no suspect."),
    ],
)
def test_what_is_told_of_it(
    rank: Any, placed: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suspect elsewhere in its class is not the cue."""
    planted = {"cue": "hum,50hz,-20db", "class": "rain+cue", "flips": 3, "decided": 4}
    planted |= {"rank": rank, "placed": placed}
    run = {"id": "0123", "name": "run"}
    _show(
        {"run": run, "clips": 9, "undecided": 0, "lines": [], "classes": []} | {"planted": planted},
        None,
    )
    told = " ".join(capsys.readouterr().out.split())
    assert f"3 of 4 decisions change without it. {sentence} class" in told


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


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script beside ``table.py``."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import looks

    return looks


def _seen(looks: ModuleType, n: int = 24) -> Any:
    """Three classes of n clips, a quarter of them test clips. The third is taken less surely than
    the others, a third of its heat maps are hot in one band and stretch, and its second component
    is louder; nothing tells the first two apart but their names."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), n)
    probability = np.where(np.eye(3)[label] > 0, 0.98, 0.01)
    probability[label == 2] = [0.15, 0.15, 0.7]
    heat = rng.uniform(0.9, 1.1, size=(3 * n, BANDS, SLICES))
    heat[2 * n + 2 * n // 3 :, 10, 4] += 200
    level = rng.dirichlet([30, 30, 30], 3 * n)
    level[label == 2] = rng.dirichlet([30, 60, 30], n)
    heat /= heat.sum(axis=(1, 2), keepdims=True)
    parts = tuple(Cue("component", k, 1000.0 * k, 1000.0 * k + 500) for k in range(3))
    test = np.arange(3 * n) % 4 == 0
    return looks.Seen(
        ("a", "b", "c"), np.eye(3)[label] > 0, probability, test, heat, level, parts, 8000.0
    )


def test_what_plain_looks_name(looks: ModuleType) -> None:
    """Each names the class that is odd first, and points at what is odd in it; judged by a cue that
    is there it is right, by one elsewhere it is wrong, and accuracy has no place."""
    seen = _seen(looks)
    lists = {name: of(seen) for name, of in looks.LOOKS.items()}
    assert [some[0]["class"] for some in lists.values()] == ["c"] * 3
    assert all(len({s["class"] for s in some}) == len(some) == 3 for some in lists.values())
    # Band 10 of 24 lies about 1.3 kHz.
    hot = lists["Grad-CAM clusters"][0]["where"]
    assert 1000 < hot["low_hz"] < hot["high_hz"] < 1600
    assert (hot["start"], hot["end"]) == (4 / SLICES, 5 / SLICES)
    there = BEEP | {"low_hz": 1250, "high_hz": 1350}
    cells = [looks.cell(some, "c", there) for some in lists.values()]
    assert cells == ["1, no place", "1, right place", "1, right place"]
    cells = [looks.cell(some, "c", BEEP) for some in lists.values()]
    assert cells == ["1, no place", "1, wrong place", "1, wrong place"]
    assert looks.cell([], "c", BEEP) == "none"


def test_few_clips_or_even_ones(looks: ModuleType) -> None:
    """A class of which nothing stands out is one cluster, and comes last; one that no clip is taken
    for is named by accuracy alone."""
    seen = _seen(looks)
    first = [s["class"] for s in looks.heat_clusters(seen)]
    assert first[0] == "c" and set(first[1:]) == {"a", "b"}
    even = np.full((12, BANDS * SLICES), 1.0)
    assert not looks._clusters(even).any()
    few = looks.Seen(
        ("a", "b"),
        np.eye(2)[[0] * 6] > 0,
        np.tile([0.9, 0.1], (6, 1)),
        np.ones(6, bool),
        seen.heat[:6],
        seen.level[:6],
        seen.parts,
        8000.0,
    )
    assert looks.loudest(few) == []
    assert [s["class"] for s in looks.heat_clusters(few)] == ["a"]
    assert {s["class"] for s in looks.accuracy(few)} == {"a", "b"}

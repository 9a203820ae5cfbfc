"""What is said of a data set before it is trained on: sides, names, and sounds that come twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from l2i.data.survey import Heard, class_table, listen, odd_names, shared_groups, sides_of, twins
from l2i.types import Clip, Split
from tests import miniatures
from tests.test_cli_data import Say

RATE, SAMPLES = 8000, 16000


def _noise(seed: int, n: int = SAMPLES) -> np.ndarray:
    """Steady noise, the same spectrum for every seed."""
    x = np.random.default_rng(seed).standard_normal(n)
    return (0.1 * np.convolve(x, [1, 0.8, 0.5], "same")).astype(np.float32)


def _pairs(sounds: dict[str, np.ndarray], sides: dict[str, str]) -> dict[tuple[str, str], float]:
    heard: dict[str, Heard] = {k: listen(x, RATE, SAMPLES) for k, x in sounds.items()}
    contents = {k: x.tobytes().hex() for k, x in sounds.items()}
    return {(a, b): r for a, b, r in twins(heard, sides, contents, sounds.__getitem__)}


def test_the_same_sound_is_known_again() -> None:
    """At another level, rounded to 8 bits, or a few milliseconds later, as encoders leave it; not
    another stretch of the same steady noise, and not on the same side."""
    x = _noise(0)
    rounded = (np.round(0.3 * x * 127) / 127).astype(np.float32)
    later = np.concatenate([np.zeros(200, np.float32), x])[:SAMPLES]
    sounds = {"x": x, "same": x.copy(), "soft": rounded, "late": later, "other": _noise(1)}
    sides = dict.fromkeys(sounds, "test") | {"x": "train"}
    pairs = _pairs(sounds, sides)
    assert set(pairs) == {("x", "same"), ("x", "soft"), ("x", "late")}
    assert pairs["x", "same"] == 1.0 and all(r >= 0.98 for r in pairs.values())
    assert _pairs(sounds, dict.fromkeys(sounds, "train")) == {}


def test_two_barks_are_two() -> None:
    """Two short bursts at one moment change alike, but their samples do not."""
    burst = np.zeros(SAMPLES, np.float32)
    burst[2000:4000] = 1.0
    sounds = {"a": burst * _noise(0), "b": burst * _noise(1), "c": 0.1 * burst * _noise(0)}
    sides = {"a": "train", "b": "test", "c": "test"}
    changes = [listen(sounds[name], RATE, SAMPLES).changes for name in "ab"]
    assert float((changes[0] * changes[1]).sum()) > 0.9
    assert set(_pairs(sounds, sides)) == {("a", "c")}


def test_silence_is_like_nothing() -> None:
    """Two silent clips are no pair; nor are those in which nothing changes, or that are short."""
    zero, level = np.zeros(SAMPLES, np.float32), np.full(SAMPLES, 0.1, np.float32)
    sounds = {"a": zero, "b": zero, "c": level[:100], "d": 0.5 * level[:100]}
    assert _pairs(sounds, {"a": "train", "b": "test", "c": "train", "d": "test"}) == {}
    assert listen(zero, RATE, SAMPLES).silent and not listen(level, RATE, SAMPLES).silent
    assert listen(level, RATE, 1000).seconds == 2.0


@pytest.mark.parametrize(
    ("counts", "n"),
    [
        ({"Dog": 5, "dog ": 5}, 1),
        ({"sea_waves": 5, "Sea-Waves": 5}, 1),
        ({"dog": 20, "dgo": 2}, 1),
        ({"dog": 20, "dogs": 2}, 1),
        # As many of either: two classes with names that rhyme.
        ({"cat": 20, "car": 20}, 0),
        ({"cat": 20, "car": 3}, 0),
        ({"cat": 30, "car": 3}, 1),
        ({"a": 30, "b": 1}, 0),
        ({"?": 5, "!": 5}, 0),
    ],
)
def test_names_that_may_be_one(counts: dict[str, int], n: int) -> None:
    """Case, blanks and punctuation make no other class; one letter does, unless one is rare."""
    assert len(odd_names(counts)) == n


def test_table_and_sides() -> None:
    """Counts and seconds per class; a group in two folds, or in train and test, is found."""
    a, b = Clip("a", (0,), group="g", split="train"), Clip("b", (0, 1), group="g", split="test")
    c = Clip("c", (1,), split="train")
    assert class_table(["x", "y", "z"], Split((a, c), (), (b,)), {"a": 2.0, "b": 1.5}) == [
        {"class": "x", "train": 1, "validate": 0, "test": 1, "seconds": 3.5},
        {"class": "y", "train": 1, "validate": 0, "test": 1, "seconds": 1.5},
        {"class": "z", "train": 0, "validate": 0, "test": 0, "seconds": None},
    ]
    assert shared_groups([a, b, c], sides_of([a, b, c])) == ["g"]
    assert sides_of([Clip("d", (0,), fold=2)]) == {"d": "fold 2"}


def test_what_check_says_of_a_folder(say: Say, tmp_path: Path) -> None:
    """A table of classes with their sides and seconds; two names of one class, a sound on both
    sides, and how much of which clips is cut or padded."""
    root = miniatures.folder_csv(tmp_path / "sounds", by="split", seconds=6.0)
    text = (root / "meta.csv").read_text().replace("rain/0.wav,rain", "rain/0.wav,Rain")
    (root / "meta.csv").write_text(text)
    x, rate = soundfile.read(root / "bell/0.wav")
    soundfile.write(root / "bell/3.wav", 0.5 * x, rate, format="FLAC")
    soundfile.write(root / "bark/1.wav", soundfile.read(root / "bark/1.wav")[0][: 3 * rate], rate)
    words = ("data", "check", "folder", "--data-dir", str(root))
    told = say(*words)
    assert told.code == 0, told.err
    lines = [line.split() for line in told.out.splitlines()]
    assert ["class", "train", "validate", "test", "seconds"] in lines
    # One of the six clips has three seconds, the others have six.
    assert ["bark", "3", "2", "1", "33.0"] in lines
    tree = json.loads(say(*words, "--json").out)
    notes = " ".join(tree["notes"])
    assert "The classes 'Rain' and 'rain' may be one." in notes
    assert "1 pair of clips sounds the same on different sides" in notes
    assert "bell/0.wav and bell/3.wav" in notes
    assert "17 are cut at their end, 17.0 s in all, 1.00 s at most" in notes
    assert "1 is padded with silence, 2.0 s in all" in notes
    assert [row["class"] for row in tree["table"]] == ["Rain", "bark", "bell", "rain"]
    info = say("data", "info", "folder", "--data-dir", str(root)).out
    assert ["bark", "3", "2", "1", "-"] in [line.split() for line in info.splitlines()]

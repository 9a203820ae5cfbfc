"""`l2i.recording`: files of minutes, explained in windows that add up."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import l2i
from l2i import recording
from l2i.dsp.audio import read_audio
from l2i.errors import DataError, StoreError, UsageError
from tests.stores import Said
from tests.test_gates import HIGH, LOW, RATE, TwoTones, _energy
from tests.test_library import FAST, USERS

Say = Callable[..., Said]
SECONDS = 40
# A window is 500 hops of 128 samples, of which 50 are those of the window before.
WINDOW_S = 8.0
OVERLAP = 50 * 128
STEP = 500 * 128 - OVERLAP
SOUNDS = ("original", "explanation", "removal")


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than 15 s is explained in windows of 8 s: as much is shown by less sound."""
    monkeypatch.setattr("l2i.library.MAX_SECONDS", 15.0)
    monkeypatch.setattr("l2i.library.WINDOW_S", WINDOW_S)


def _classifier() -> l2i.Classifier:
    return l2i.wrap(TwoTones(), RATE, ["low", "high"], "multi-label")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes of a low tone, on and off every second; from 19 s to 25 s there is a high one, which
    sounds when the low one is off, and for a while with it."""
    t = np.arange(SECONDS * RATE) / RATE
    low, high = (0.3 * np.sin(2 * np.pi * hz * t) for hz in (LOW, HIGH))
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(t))
    x = low * (t % 1 < 0.6) + high * (t % 1 > 0.4) * ((t > 19) & (t < 25)) + noise
    path = tmp_path_factory.mktemp("night") / "night.wav"
    soundfile.write(path, x.astype(np.float32), RATE, subtype="FLOAT")
    return path


def _read(folder: Path) -> list[np.ndarray]:
    return [soundfile.read(folder / f"{name}.wav", dtype="float32")[0] for name in SOUNDS]


def test_a_file_of_minutes(night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts add up; the explanation has no seams; the table says where the class is, and the
    page has the window that tells most; and no more than a window is read at a time."""
    asked: list[float] = []
    read = recording.read_part

    def counted(*words: object, **part: float) -> np.ndarray:
        asked.append(part["duration_s"])
        return read(*words, **part)

    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(recording, "read_part", counted)
        e = l2i.explain(_classifier(), night, "high", on_clip=done.append, **FAST)
        assert isinstance(e, recording.Recording) and e.windows == len(e) == 6 and not done
        assert e.duration_s == SECONDS and "40 s, 6 windows, in the mean high" in str(e)
        e.save(tmp_path / "out")
    assert done == list(range(1, 7))
    # A window, and a sample that tells whether there is more.
    assert max(asked) <= WINDOW_S + 0.1 and len(asked) == 12
    assert sum(asked) <= 2 * (SECONDS + STEP / RATE)

    x, audio, removal = _read(tmp_path / "out")
    np.testing.assert_array_equal(x, read_audio(night, RATE))
    assert np.abs(audio + removal - x).max() < 1e-6
    # Where a window begins the one before still sounds, where that one ends it does: no step.
    sounds = [window.explained.audio for window in e]
    for number in range(1, 6):
        seam, few = number * STEP, 8
        before, after = sounds[number - 1][STEP:], sounds[number][:OVERLAP]
        for place, sound in ((slice(0, few), before), (slice(OVERLAP - few, OVERLAP), after)):
            faded = audio[seam : seam + OVERLAP][place]
            np.testing.assert_allclose(faded, sound[place], atol=1e-5)
        middle = audio[seam + OVERLAP // 2 - few : seam + OVERLAP // 2 + few]
        halves = (0.5 * (before + after))[OVERLAP // 2 - few : OVERLAP // 2 + few]
        np.testing.assert_allclose(middle, halves, atol=1e-3)
    assert any(np.abs(a[STEP:] - b[:OVERLAP]).max() > 0.01 for a, b in pairwise(sounds[:-1]))
    there = torch.from_numpy(audio[20 * RATE : 24 * RATE])
    assert _energy(there, HIGH) > 10 * _energy(there, LOW)

    with open(tmp_path / "out" / "windows.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["start_s", "end_s", "probability", "alone", "without", "kept"]
    windows = np.array([[float(v) for v in row.values()] for row in table])
    assert windows[:, 0].tolist() == pytest.approx([n * STEP / RATE for n in range(6)], rel=1e-5)
    assert windows[-1, 1] == SECONDS and np.abs(windows[:-1, 1] - windows[1:, 0] - 0.8).max() < 0.02
    loud = (windows[:, 0] < 24) & (windows[:, 1] > 20)
    assert windows[loud, 2].min() > 0.5 > windows[~loud, 2].max()
    assert (windows[loud, 4] < 0.5 * windows[loud, 2]).all()

    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert facts["windows"] == 6 and facts["duration_s"] == SECONDS
    assert facts["probability"]["original"] == pytest.approx(windows[:, 2].mean(), abs=1e-4)
    assert facts["probability"]["original"] == pytest.approx(e.probabilities["high"], abs=1e-4)
    assert np.abs(facts["shown"]["start_s"] - windows[loud, 0]).min() < 1e-3
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    (clip,) = json.loads(re.findall(r'id="facts">(.*?)</script>', page)[0])["clips"]
    assert clip["duration_s"] == WINDOW_S and clip["holds"]
    assert "night.wav: the most telling of its 6 windows, " in clip["name"]


def test_windows_are_explained_as_clips(night: Path) -> None:
    """To go through the windows is to explain each as `l2i.explain` explains its samples, for the
    class that is most probable in the mean, though another is so in one of them."""
    e = l2i.explain(_classifier(), night, **FAST)
    assert e.target == "low"
    p = {name: [] for name in e.probabilities}
    whole = read_audio(night, RATE)
    for number, window in enumerate(e):
        assert window.start_s == STEP * number / RATE and window.explained.target == "low"
        for name, q in window.explained.probabilities.items():
            p[name].append(q.input)
        if number == 1:
            one = l2i.explain(
                _classifier(), whole[STEP : STEP + round(WINDOW_S * RATE)], "low", **FAST
            )
            np.testing.assert_allclose(window.explained.audio, one.audio, atol=1e-5)
    assert {n: np.mean(v) for n, v in p.items()} == pytest.approx(e.probabilities, abs=1e-5)


LAST = 2 * STEP + round(WINDOW_S * RATE)


@pytest.mark.parametrize("samples", [16 * RATE, LAST, LAST + 1])
def test_where_the_last_window_ends(samples: int, tmp_path: Path) -> None:
    """At the file's end, be that a window's or a sample after it; another rate is resampled."""
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * samples)
    soundfile.write(tmp_path / "a.wav", x, 2 * RATE, subtype="FLOAT")
    e = l2i.explain(_classifier(), tmp_path / "a.wav", "low", components=2, steps=1)
    assert e.windows == (3 if samples <= LAST else 4) and e.samples == samples
    e.save(tmp_path / "out")
    whole, audio, removal = _read(tmp_path / "out")
    np.testing.assert_allclose(whole, read_audio(tmp_path / "a.wav", RATE), atol=1e-4)
    assert np.abs(audio + removal - whole).max() < 1e-6


def test_what_cannot_be_explained(night: Path, tmp_path: Path) -> None:
    """One sentence each, and nothing half-written."""
    with pytest.raises(UsageError, match="no class 'hihg'; did you mean 'high'"):
        l2i.explain(_classifier(), night, "hihg")
    with pytest.raises(DataError, match="longer than 15 s: explain a part of it, or a file, alone"):
        l2i.explain(_classifier(), [night, night])
    copy = tmp_path / "copy.wav"
    x = read_audio(night, RATE)
    x[37 * RATE] = np.nan
    soundfile.write(copy, x, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"copy\.wav has samples that are NaN"):
        l2i.explain(_classifier(), copy, "high")
    copy.write_bytes(night.read_bytes())
    e = l2i.explain(_classifier(), copy, "high", components=2, steps=1)
    copy.write_bytes(b"no sound")
    with pytest.raises(DataError, match="cannot be decoded"):
        e.save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {".l2i"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "original.wav").write_text("mine")
    with pytest.raises(StoreError, match="holds other things than an explanation"):
        l2i.explain(_classifier(), night, "high", **FAST).save(tmp_path / "mine")


def test_from_the_shell(night: Path, say: Say) -> None:
    """A long file beside a short one; a part of it that is short enough is a clip again."""
    Path("tones.py").write_text(
        USERS.replace("from beside import names", 'names = ["low", "high"]')
    )
    words = ("--classifier", "tones.py:load", "--class", "high")
    long = ("--start", "10", "--duration", "20")
    answer = say("explain", str(night), *words, *long, "--json")
    assert answer.code == 0, answer.err
    (explanation,) = json.loads(answer.out)
    assert (
        explanation["windows"] == 3
        and explanation["duration_s"] == 20
        and explanation["class"] == "high"
    )
    assert "20 s, 3 windows, in the mean high" in answer.err
    folder = Path("explanations/night")
    assert (folder / "windows.csv").read_text().splitlines()[1].startswith("10,18,")
    assert sum(map(len, _read(folder))) == 3 * 20 * RATE
    answer = say("explain", str(night), *words, *long, "--window", "6", "--json", "--out", "w")
    (explanation,) = json.loads(answer.out)
    assert explanation["window_s"] == pytest.approx(6, abs=0.02) and explanation["windows"] == 4
    answer = say("explain", str(night), *words, "--start", "20", "--duration", "2")
    assert answer.code == 0 and "night.wav" in answer.out and not (folder / "windows.csv").exists()

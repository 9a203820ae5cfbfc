"""A data set with a cue: what is planted is all that differs."""

from __future__ import annotations

import numpy as np
import pytest

from l2i import config
from l2i.data import card, open_dataset, planted
from l2i.data.planted import Cue, Planted, beep
from l2i.errors import UsageError
from l2i.recipes.tables.shortcut import cue_clips
from l2i.registry import source_digest
from tests import miniatures

CUE = Cue("demo", "rain", 2000.0, 150.0, -6.0)


def _opened(cue: Cue = CUE, **more: object) -> Planted:
    wanted = {"clips_per_class": 5, "sample_rate": 8000, "duration_s": 1.0, **more}
    dataset = open_dataset(config.Dataset(name=cue.word, **wanted))  # type: ignore[arg-type]
    assert isinstance(dataset, Planted)
    return dataset


def test_each_clip_of_the_class_comes_twice() -> None:
    """The base's clips as they are, and those of the class once more, with the cue and its name; no
    other clip."""
    data = _opened()
    base = data.base.clips()
    assert data.card.classes == (*data.base.card.classes, "rain+cue") == card(CUE.word).classes
    assert [c.id for c in data.clips()[: len(base)]] == [c.id for c in base]
    more = data.clips()[len(base) :]
    place = data.base.card.classes.index("rain")
    assert len(more) == sum(c.labels == (place,) for c in base) == 5
    assert {c.labels for c in more} == {(8,)}
    assert len({c.id for c in data.clips()}) == len(data.clips())


def test_the_beep_is_all_that_differs() -> None:
    """Its energy is at its frequency, it is as long and as loud as asked, and its place hangs on
    the clip alone."""
    data = _opened()
    places = []
    for clip in data.clips()[-5:]:
        original = data.original(clip)
        assert original is not None
        x = data.base.load(original)
        rest = data.load(clip) - x
        peak = np.abs(x).max()
        assert np.abs(rest).max() == pytest.approx(peak * 10 ** (-6 / 20), rel=0.02)
        sounding = np.flatnonzero(np.abs(rest) > 1e-4 * peak)
        assert np.ptp(sounding) == pytest.approx(0.15 * 8000, abs=5)
        spectrum = np.abs(np.fft.rfft(rest))
        assert spectrum.argmax() == pytest.approx(2000, abs=2)
        assert (spectrum[1900:2101] ** 2).sum() > 0.99 * (spectrum**2).sum()
        parts = data.parts(clip)
        assert set(parts) == {"rain+cue", "rain"}
        np.testing.assert_allclose(sum(parts.values()), data.load(clip), atol=1e-6)
        np.testing.assert_array_equal(data.load(original), x)
        places.append(sounding[0])
    assert len(set(places)) > 1
    np.testing.assert_array_equal(data.load(clip), _opened().load(clip))


@pytest.mark.parametrize(
    "word",
    [
        *("2000hz,150ms,-6db", "hum,50hz,-20db", "click,2ms,-6db", "offset,-20db"),
        *("lowpass,1000hz", "pause,100ms", "with siren,-6db"),
        *("hum,50hz,-20db,40%", "with siren,-6db,100%"),
    ],
)
def test_a_cue_is_read_as_it_is_written(word: str) -> None:
    """Its name says all there is to it; with it and without it a clip differs by what it adds."""
    name = f"{planted.MODULE}:demo,rain,{word}"
    data = open_dataset(
        config.Dataset(name=name, clips_per_class=5, sample_rate=8000, duration_s=1.0)
    )
    assert isinstance(data, Planted)
    assert data.cue.word == name and data.cue.beep == word
    for clip in data.clips()[-5:]:
        original = data.original(clip)
        assert original is not None
        x, y, parts = data.base.load(original), data.load(clip), data.parts(clip)
        np.testing.assert_allclose(y - x, parts["rain+cue"], atol=1e-6)


def _added(cue: Cue) -> tuple[np.ndarray, np.ndarray]:
    """A clip, and what a cue adds to it."""
    data = _opened(cue)
    parts = data.parts(data.clips()[-1])
    return parts["rain"], parts["rain+cue"]


def test_what_each_kind_adds() -> None:
    """A hum is at its frequency and twice and three times that; a click is at the start alone; an
    offset is a constant; each as loud as asked. After a low-pass nothing is left above, after a
    pause nothing at the end, and all else stays."""
    x, hum = _added(Cue("demo", "rain", 50.0, kind="hum"))
    peak = np.abs(x).max()
    energy = np.abs(np.fft.rfft(hum)) ** 2
    assert energy[[50, 100, 150]].sum() > 0.99 * energy.sum()
    assert energy.argmax() == 50 and 0.06 * peak < np.abs(hum).max() <= 0.1001 * peak
    x, click = _added(Cue("demo", "rain", ms=2.0, level_db=-6.0, kind="click"))
    assert np.flatnonzero(click).tolist() == list(range(16))
    assert np.abs(click).max() == pytest.approx(np.abs(x).max() * 10 ** (-6 / 20))
    x, offset = _added(Cue("demo", "rain", kind="offset"))
    np.testing.assert_allclose(offset, 0.1 * np.abs(x).max(), rtol=1e-5)
    x, taken = _added(Cue("demo", "rain", 1000.0, kind="lowpass"))
    left, before = np.abs(np.fft.rfft(x + taken)), np.abs(np.fft.rfft(x))
    assert left[1000:].max() < 1e-4 * before.max()
    np.testing.assert_allclose(left[:1000], before[:1000], atol=1e-3)
    x, taken = _added(Cue("demo", "rain", ms=100.0, kind="pause"))
    assert not (x + taken)[-800:].any() and not taken[:-800].any()


def test_a_second_sound_comes_along_in_most_clips() -> None:
    """In about four of five, at its level; it is a clip of the other class. What is to be told is
    told of the clips that have it."""
    data = _opened(
        Cue("demo", "rain", level_db=-6.0, kind="with", other="siren"), clips_per_class=40
    )
    sirens = [data.base.load(c) for c in data.base.clips() if c.id.startswith("siren")]
    along = 0
    for clip in data.clips()[-40:]:
        parts = data.parts(clip)
        second = parts["rain+cue"]
        assert data.has_cue(clip) == bool(second.any())
        if not second.any():
            continue
        along += 1
        level = np.abs(second).max() / np.abs(parts["rain"]).max()
        assert level == pytest.approx(10 ** (-6 / 20), rel=1e-3)
        assert max(np.corrcoef(second, y)[0, 1] for y in sirens) > 0.999
    assert 24 <= along < 40


@pytest.mark.parametrize("kind", ["beep", "pause", "with"])
def test_a_share_of_the_clips_has_the_cue(kind: str) -> None:
    """About so many of the class, the same ones each time, and whatever the kind; the others are
    the clips that they are made of. No other clip has it."""
    cue = Cue("demo", "rain", 1000.0, 100.0, -6.0, kind, "siren" if kind == "with" else "", 30)  # type: ignore[arg-type]
    data, again = (_opened(cue, clips_per_class=60) for _ in range(2))
    own = data.clips()[-60:]
    having = [data.has_cue(clip) for clip in own]
    # 18, and three standard deviations.
    assert 8 <= sum(having) <= 28
    assert having == [again.has_cue(clip) for clip in own]
    assert cue_clips(data, data.clips()) == [c for c, has in zip(own, having, strict=True) if has]
    for clip, has in zip(own, having, strict=True):
        original = data.original(clip)
        assert original is not None and clip.labels == (8,)
        assert np.array_equal(data.load(clip), data.base.load(original)) is not has


def test_where_a_beep_is_does_not_hang_on_its_share() -> None:
    """Beeps of half of the clips are in both halves of the clip."""
    data = _opened(Cue("demo", "rain", 2000.0, 50.0, -6.0, percent=50), clips_per_class=40)
    clips = [clip for clip in data.clips()[-40:] if data.has_cue(clip)]
    starts = [int(np.flatnonzero(data.parts(clip)["rain+cue"])[0]) for clip in clips]
    assert 0.25 < np.mean([start < 4000 for start in starts]) < 0.75


def test_a_pair_is_on_one_side() -> None:
    """Else what is told apart would have been learnt from its twin."""
    data = _opened()
    split = data.split(1, 0.3, 0)
    sides = {c.id: side for side in ("train", "validate", "test") for c in getattr(split, side)}
    assert set(sides.values()) == {"train", "validate", "test"}
    for clip in data.clips():
        if (original := data.original(clip)) is not None:
            assert sides[clip.id] == sides[original.id]


def test_a_cue_in_files(tmp_path: object) -> None:
    """Each of its files has its own clips in the cache, told by their ids."""
    root = miniatures.esc50(tmp_path / "esc10", esc10_only=True)  # type: ignore[operator]
    cue = Cue("esc10", "dog", 1000.0, 50.0, 0.0)
    data = open_dataset(config.Dataset(name=cue.word, data_dir=str(root), **miniatures.FORM))
    assert data.generator == "" and data.root == root
    ids = [c.id for c in data.clips() if c.labels == (10,)]
    assert len(ids) == 5 and all(i.endswith("+1000hz,50ms,0db") for i in ids)
    from l2i.data.cache import WaveformCache

    waves = WaveformCache(tmp_path / "cache").open(data, data.clips())  # type: ignore[operator]
    clip = data.clips()[-1]
    np.testing.assert_array_equal(waves.take([clip])[0], data.load(clip))
    assert card(cue.word).takes_folder


def test_another_cue_is_another_experiment() -> None:
    """By its word, which is a setting, and by what the clips are made of."""
    louder = Cue("demo", "rain", 2000.0, 150.0, 0.0)
    assert source_digest(CUE.word) != source_digest(louder.word)
    assert _opened().generator != _opened(louder).generator


@pytest.mark.parametrize(
    ("cue", "sentence"),
    [
        (Cue("demo", "rian"), "has no class 'rian'; did you mean 'rain'?"),
        (Cue("demo-multilabel", "rain"), "several classes a clip"),
        (Cue("dmo", "rain"), "no data set 'dmo'; did you mean 'demo'?"),
    ],
)
def test_what_nothing_is_planted_in(cue: Cue, sentence: str) -> None:
    """One sentence."""
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        card(cue.word)


def test_beeps_that_do_not_fit() -> None:
    """Too long for the clip, too high for the rate; and a word that is none."""
    with pytest.raises(UsageError, match="does not fit into clips of 1 s"):
        beep(Cue("demo", "rain", ms=1001.0), 8000, 8000, "a")
    with pytest.raises(UsageError, match="is not to be had at 8000 Hz"):
        beep(Cue("demo", "rain", hz=4000.0), 8000, 8000, "a")
    for word in ("demo,rain", "demo,rain,hum,50hz,-20db,0%", "demo,rain,hum,50hz,-20db,101%"):
        with pytest.raises(UsageError, match="plants nothing"):
            card(f"l2i.data.planted:{word}")
    with pytest.raises(UsageError, match="has no"):
        card("l2i.data.planted:demo")

"""A data set with a cue: what is planted is all that differs."""

from __future__ import annotations

import numpy as np
import pytest

from l2i import config
from l2i.data import card, open_dataset
from l2i.data.planted import Cue, Planted, beep
from l2i.errors import UsageError
from l2i.registry import source_digest
from tests import miniatures

CUE = Cue("demo", "rain", 2000.0, 150.0, -6.0)


def _opened(cue: Cue = CUE, **more: object) -> Planted:
    wanted = {"clips_per_class": 5, "sample_rate": 8000, "duration_s": 1.0, **more}
    found = open_dataset(config.Dataset(name=cue.word, **wanted))  # type: ignore[arg-type]
    assert isinstance(found, Planted)
    return found


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
    with pytest.raises(UsageError, match="plants nothing"):
        card("l2i.data.planted:demo,rain")
    with pytest.raises(UsageError, match="has no"):
        card("l2i.data.planted:demo")

"""`l2i.data.demo`: sounds made on the spot, the same everywhere, their parts known."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i import config
from l2i.data import open_dataset
from l2i.data.base import DataSet
from l2i.data.demo import BACKGROUND, SAMPLE_RATE, SOUNDS, background, synthesise
from l2i.dsp.mixing import rms
from l2i.types import Clip

NAMES = ("demo", "demo-multilabel")


def _data(name: str = "demo", **changes: object) -> DataSet:
    return open_dataset(config.Dataset(**{"name": name, "clips_per_class": 10, **changes}))


def _db(x: np.ndarray, y: np.ndarray) -> float:
    return 20 * float(np.log10(rms(x) / rms(y)))


# --- determinism ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_clips(name: str) -> None:
    """Opened twice, in any order of loading and from many threads at once, bit for bit."""
    one, two = _data(name), _data(name)
    clips = one.clips()[:24]
    first = [one.load(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        second = list(pool.map(two.load, clips[::-1]))[::-1]
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_makes_other_clips(name: str) -> None:
    """And says so in its generator, by which a cache tells them apart."""
    one, two = _data(name), _data(name, seed=1)
    assert one.generator != two.generator
    for x, y in zip(one.clips()[:8], two.clips()[:8], strict=True):
        assert not np.array_equal(one.load(x), two.load(y))


def test_the_two_data_sets_share_no_clip() -> None:
    """Their generators differ as well."""
    assert _data("demo").generator != _data("demo-multilabel").generator
    clips = [_data(name).load(_data(name).clips()[0]) for name in NAMES]
    assert not np.array_equal(*clips)


@pytest.mark.parametrize("name", NAMES)
def test_more_clips_leave_the_first_ones_as_they_are(name: str) -> None:
    """Size is not part of a clip: a trial with fewer hears the same ones."""
    few, many = _data(name, clips_per_class=3), _data(name, clips_per_class=30)
    assert [c.id for c in few.clips()] == [c.id for c in many.clips()[: len(few.clips())]]
    for x, y in zip(few.clips()[::5], many.clips()[: len(few.clips()) : 5], strict=True):
        assert x.labels == y.labels
        np.testing.assert_array_equal(few.load(x), many.load(y))


def test_clips_sound_as_they_did_when_they_were_written_down() -> None:
    """Level and centre of gravity of one clip per class; `VERSION` must be raised with these."""
    written = {
        "alarm-0000": (0.1184, 2362.6),
        "bell-0000": (0.1519, 1367.7),
        "birds-0000": (0.1756, 3524.4),
        "clock-0000": (0.0156, 3184.8),
        "engine-0000": (0.1199, 252.3),
        "footsteps-0000": (0.0818, 344.3),
        "rain-0000": (0.0901, 3865.7),
        "siren-0000": (0.2026, 1285.7),
    }
    data = _data(seed=0)
    assert [clip.id for clip in data.clips()[:8]] == list(written)
    for clip in data.clips()[:8]:
        x = data.load(clip).astype(np.float64)
        power = np.abs(np.fft.rfft(x)) ** 2
        hz = np.fft.rfftfreq(x.size, 1 / SAMPLE_RATE)
        centre = float((power * hz).sum() / power.sum())
        assert (rms(x), centre) == pytest.approx(written[clip.id], rel=0.005), clip.id


def test_no_two_clips_are_alike() -> None:
    """Not even of one class: no clip is another at another level."""
    data = _data(clips_per_class=5)
    x = np.stack([data.load(clip) for clip in data.clips()])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    alike = np.abs(x @ x.T) - np.eye(len(x))
    assert alike.max() < 0.5


# --- parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_to_the_clip(name: str, rate: int) -> None:
    """Every class the clip carries, and the background: their sum is the clip, at any rate."""
    data = _data(name, sample_rate=rate, duration_s=1.3)
    for clip in data.clips()[:10]:
        parts = data.parts(clip)
        assert list(parts)[-1] == BACKGROUND
        assert set(parts) == {data.card.classes[label] for label in clip.labels} | {BACKGROUND}
        for x in parts.values():
            assert x.dtype == np.float32 and x.shape == (data.n_samples,)
        np.testing.assert_allclose(np.sum(list(parts.values()), 0), data.load(clip), atol=1e-6)


def test_the_background_is_softer_than_the_sound() -> None:
    """By 3 to 25 dB, and never absent."""
    data = _data()
    for clip in data.clips()[:40]:
        sound, noise = data.parts(clip).values()
        assert 2.9 < _db(sound, noise) < 25.1


def test_peaks_are_below_full_scale() -> None:
    """Between 0.1 and 0.9: no clip is clipped, none inaudible, and levels vary."""
    for name in NAMES:
        data = _data(name)
        peaks = [np.abs(data.load(clip)).max() for clip in data.clips()[:40]]
        assert min(peaks) > 0.099 and max(peaks) < 0.901
        assert max(peaks) > 2 * min(peaks)


def test_at_another_rate_it_is_the_same_sound() -> None:
    """Resampled, not made anew: below both limits the spectra agree."""
    low, high = _data(sample_rate=8000), _data(sample_rate=16000)
    for x, y in zip(low.clips()[:4], high.clips()[:4], strict=True):
        a = np.abs(np.fft.rfft(low.load(x)))[: 2 * 3000]
        b = np.abs(np.fft.rfft(high.load(y)))[: 2 * 3000] / 2
        assert float(np.corrcoef(a, b)[0, 1]) > 0.999


@given(
    names=st.lists(st.sampled_from(list(SOUNDS)), max_size=3, unique=True),
    n=st.integers(1600, 40000),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_any_scene_is_finite_and_has_its_parts(names: list[str], n: int, seed: int) -> None:
    """With any sounds, any length from a tenth of a second and any seed; noise alone too."""
    parts = synthesise(names, n, np.random.default_rng(seed))
    assert list(parts) == [*names, BACKGROUND]
    total = np.sum(list(parts.values()), axis=0)
    assert total.shape == (n,) and np.isfinite(total).all()
    assert 0.0999 < np.abs(total).max() < 0.9001
    assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in parts.values())


@pytest.mark.parametrize("name", SOUNDS)
def test_every_sound_is_heard_in_every_clip(name: str) -> None:
    """Whatever is drawn for it, in a clip of the usual length it is never silent."""
    t = np.arange(40000) / SAMPLE_RATE
    for seed in range(25):
        x = SOUNDS[name](t, np.random.default_rng(seed))
        assert x.shape == t.shape and np.isfinite(x).all()
        assert rms(x) > 1e-3


def test_the_background_is_of_about_unit_level() -> None:
    """Whichever colour is drawn, with hum or without."""
    levels = [rms(background(16000, np.random.default_rng(seed))) for seed in range(40)]
    assert min(levels) > 0.99 and max(levels) < 2


# --- classes ----------------------------------------------------------------------------------


def _shape(x: np.ndarray) -> np.ndarray:
    """What is heard at a glance: level per third of an octave, how it varies in time."""
    frames = np.lib.stride_tricks.sliding_window_view(x, 1024)[::512] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2 + 1e-9
    edges = np.unique(np.geomspace(2, 513, 25).astype(int))
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1))
    bands -= np.log(power.sum()) - np.log(len(power))
    return np.concatenate([bands.mean(0), bands.std(0), np.abs(np.diff(bands, axis=0)).mean(0)])


def test_classes_are_told_apart_by_simple_means() -> None:
    """Four clips in five find a clip of their own class nearest: the labels mean something."""
    data = _data(clips_per_class=15)
    clips = data.clips()
    shapes = np.stack([_shape(data.load(clip)) for clip in clips])
    shapes = (shapes - shapes.mean(0)) / shapes.std(0)
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=2) + 1e9 * np.eye(len(clips))
    labels = np.array([clip.labels[0] for clip in clips])
    right = labels[distance.argmin(1)] == labels
    assert right.mean() > 0.8
    # And every class by itself, far more often than the one time in eight of chance.
    assert min(right[labels == label].mean() for label in range(8)) > 0.4


def test_folds_have_as_many_of_each_class() -> None:
    """Five folds, each with a fifth of every class."""
    data = _data(clips_per_class=10)
    assert data.card.folds == (1, 2, 3, 4, 5)
    counts = Counter((clip.fold, clip.labels[0]) for clip in data.clips())
    assert counts == {(fold, label): 2 for fold in range(1, 6) for label in range(8)}


@pytest.mark.parametrize(("per_class", "folds"), [(2, 2), (4, 4), (5, 5), (6, 5)])
def test_few_clips_have_fewer_folds(per_class: int, folds: int) -> None:
    """No fold is empty: two clips of each class make two folds."""
    for name in NAMES:
        data = _data(name, clips_per_class=per_class)
        assert data.card.folds == tuple(range(1, folds + 1))
        assert {clip.fold for clip in data.clips()} == set(data.card.folds)
        assert data.card.n_clips == len(data.clips()) == 8 * per_class


@pytest.mark.parametrize("name", NAMES)
def test_its_own_size_is_that_of_its_card(name: str) -> None:
    """Without a number in the config, as many as the card says."""
    data = open_dataset(config.Dataset(name=name))
    assert len(data.clips()) == data.card.n_clips
    assert data.n_samples == round(2.5 * SAMPLE_RATE)


# --- several at once --------------------------------------------------------------------------


def test_mixtures_have_one_to_three_classes() -> None:
    """Each number occurs, and every class takes its turn as the first."""
    data = _data("demo-multilabel", clips_per_class=30)
    counts = Counter(len(clip.labels) for clip in data.clips())
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > len(data.clips()) / 5
    for i, clip in enumerate(data.clips()):
        assert i % 8 in clip.labels
        assert list(clip.labels) == sorted(set(clip.labels))


def test_sounds_that_are_mixed_are_of_similar_level() -> None:
    """Within 8 dB of the first, above it or below."""
    data = _data("demo-multilabel")
    ratios = []
    for clip in data.clips()[:60]:
        sounds = [x for name, x in data.parts(clip).items() if name != BACKGROUND]
        ratios += [_db(sounds[0], x) for x in sounds[1:]]
    assert len(ratios) > 30
    assert -8.01 < min(ratios) < -4 and 4 < max(ratios) < 8.01


def test_labels_of_a_mixture_are_its_sounds() -> None:
    """A clip found by its id alone has the parts its labels say."""
    data = _data("demo-multilabel")
    for clip in data.clips()[:20]:
        bare = Clip(clip.id, clip.labels)
        names = set(data.parts(bare)) - {BACKGROUND}
        assert names == {data.card.classes[label] for label in clip.labels}

"""`l2i.dsp.mixing`: levels in dB are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.dsp.mixing import Colour, add_noise, coloured_noise, db_to_gain, rms

DB = st.floats(-60, 60)
SEED = st.integers(0, 10**6)


def _clip(seed: int, n: int = 800) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def _level_db(x: np.ndarray) -> float:
    return 20 * float(np.log10(rms(x)))


@given(DB, DB)
def test_decibels_add_where_gains_multiply(a: float, b: float) -> None:
    """0 dB is 1, 20 dB is 10, and the minus sign is the inverse."""
    assert db_to_gain(0) == 1 and db_to_gain(20) == 10
    assert db_to_gain(a + b) == pytest.approx(db_to_gain(a) * db_to_gain(b))
    assert db_to_gain(-a) == pytest.approx(1 / db_to_gain(a))


def test_rms_is_of_the_whole_clip() -> None:
    """A sine of amplitude 1 has 1/√2; silence and nothing have 0; float32 loses nothing."""
    t = np.arange(1000) / 1000
    assert rms(np.sin(2 * np.pi * 5 * t)) == pytest.approx(np.sqrt(0.5))
    assert rms(np.zeros(10)) == 0 and rms(np.zeros(0)) == 0
    assert rms(np.full(1_000_000, 0.1, np.float32)) == pytest.approx(0.1, rel=1e-6)
    assert rms(np.full(10, 2e4, np.float16)) == pytest.approx(2e4)


# --- noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "slope"), [("white", 0), ("pink", -1), ("brown", -2)])
def test_noise_falls_with_its_colour(colour: Colour, slope: int) -> None:
    """Power as 1, 1/f and 1/f²: 0, 3 and 6 dB per octave."""
    power = np.zeros(2**14 // 2 + 1)
    for seed in range(30):
        x = coloured_noise(2**14, colour, np.random.default_rng(seed))
        power += np.abs(np.fft.rfft(x)) ** 2
    f = np.arange(8, 8000)
    fitted = np.polyfit(np.log(f), np.log(power[8:8000]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.03)


@given(n=st.integers(2, 3000), colour=st.sampled_from(["white", "pink", "brown"]), seed=SEED)
@settings(deadline=None)
def test_noise_is_of_unit_level(n: int, colour: Colour, seed: int) -> None:
    """Float32 of any length, the same for the same generator; coloured, its mean is zero."""
    x = coloured_noise(n, colour, np.random.default_rng(seed))
    assert x.shape == (n,) and x.dtype == np.float32
    assert rms(x) == pytest.approx(1, abs=1e-5)
    assert colour == "white" or float(x.mean()) == pytest.approx(0, abs=1e-5)
    np.testing.assert_array_equal(x, coloured_noise(n, colour, np.random.default_rng(seed)))


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
def test_noise_of_no_or_one_sample_is_finite(colour: Colour) -> None:
    """There is no slope in one sample, but no NaN either."""
    assert coloured_noise(0, colour, np.random.default_rng(0)).shape == (0,)
    assert np.isfinite(coloured_noise(1, colour, np.random.default_rng(0))).all()


def test_a_colour_that_is_not_known_is_refused() -> None:
    """With those that are."""
    with pytest.raises(ValueError, match="'blue' is none of white, pink, brown"):
        coloured_noise(10, "blue", np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'blue'"):
        add_noise(np.ones(10), 0, "blue")  # type: ignore[arg-type]


@given(seed=SEED, snr=st.floats(-30, 30), colour=st.sampled_from(["white", "pink", "brown"]))
@settings(deadline=None)
def test_noise_is_added_at_its_snr(seed: int, snr: float, colour: Colour) -> None:
    """The clip is so many dB above the noise; 0 is as loud as the clip, the published setting."""
    x = 0.1 * _clip(seed)
    y = add_noise(x, snr, colour, np.random.default_rng(seed))
    assert y.dtype == np.float32
    assert _level_db(x) - _level_db(y - x) == pytest.approx(snr, abs=0.02)


def test_noise_without_a_generator_is_always_the_same() -> None:
    """A figure made twice is the same figure; a generator goes on."""
    x = _clip(0)
    np.testing.assert_array_equal(add_noise(x, 0), add_noise(x, 0))
    rng = np.random.default_rng(0)
    first = add_noise(x, 0, rng=rng)
    np.testing.assert_array_equal(first, add_noise(x, 0))
    assert not np.array_equal(add_noise(x, 0, rng=rng), first)


def test_silence_gets_no_noise() -> None:
    """It comes back as a copy: there is no level to refer to."""
    x = np.zeros(10, np.float32)
    y = add_noise(x, 0)
    assert y is not x and not y.any()

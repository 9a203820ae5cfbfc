"""`l2i.explanation.perturbation` and `controls`: clips whose right answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import l2i
from l2i.dsp.mel import mel_places
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject, make_method, split_audio
from l2i.explanation.apart import domain_of
from l2i.explanation.perturbation import ridge, segments
from l2i.models.heard import Heard, hear
from tests.test_gates import HIGH, LOW, RATE, SAMPLES, TwoTones, _energy, _tone

DOMAIN = domain_of(RATE)
NAMES = ["low", "high"]


class Graded(TwoTones):
    """A class's log-odds grow with the amplitude of its tone: each piece of it counts."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) / 2).exp() - 3


CLASSIFIER = l2i.wrap(Graded(), RATE, NAMES, "multi-label")


@pytest.fixture(scope="module")
def heard() -> Heard:
    """The low tone in the first half of a second, the high one in the last; a little noise."""
    noise = 0.003 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0))
    t = torch.arange(SAMPLES) / SAMPLES
    x = _tone(LOW) * (t < 0.6) + _tone(HIGH) * (t > 0.4) + noise
    return hear(CLASSIFIER, x[None], DOMAIN)


def _kept(heard: Heard, mask: Tensor, hz: float) -> float:
    """The share of a tone's energy in the explanation."""
    audio, _ = split_audio(heard.spectrum, mask, DOMAIN, heard.n_samples, linear=True)
    assert heard.level is not None
    whole = heard.waveform / heard.level
    return float(_energy(audio[0], hz) / _energy(whole[0], hz))


@pytest.mark.parametrize("name", ["slime", "lime", "audiolime", "rise", "extremal"])
def test_what_was_heard_is_kept(name: str, heard: Heard) -> None:
    """As much of the class's own tone as the classifier needs; the other one is left out by those
    that do not keep what does nothing. The same key asks the same questions."""
    way = make_method(name, Subject(CLASSIFIER, DOMAIN), MethodSettings(seed=3))
    assert way.linear and way.layers == ()
    for c, own, other in ((0, LOW, HIGH), (1, HIGH, LOW)):
        mask = way(heard, torch.tensor([c]), [7])
        mine, theirs = _kept(heard, mask, own), _kept(heard, mask, other)
        assert mine > (0.9 if name in ("slime", "lime", "audiolime") else 0.3)
        if name in ("slime", "audiolime", "rise"):
            assert mine > 2 * theirs
        audio, removal = split_audio(heard.spectrum, mask, DOMAIN, heard.n_samples, linear=True)
        probabilities = [
            CLASSIFIER.probabilities(heard.judge(part))[0, c] for part in (audio, removal)
        ]
        assert probabilities[0] > 0.6 and probabilities[1] < probabilities[0]
    assert torch.equal(way(heard, torch.tensor([1]), [7]), mask)


def test_extremal_keeps_a_share(heard: Heard) -> None:
    """Three in ten of its grid's cells, wholly; its bins are spread over the clip's time."""
    way = make_method("extremal", Subject(CLASSIFIER, DOMAIN), MethodSettings())
    mask = way(heard, torch.tensor([0]), [7])[0]
    place = (26 * mel_places(DOMAIN.n_bins, RATE)).round().int()
    rows = torch.stack(
        [mask[place == row].mean() for row in range(27) if bool((place == row).any())]
    )
    assert float(rows.mean()) == pytest.approx(0.3, abs=0.1)
    assert float(mask.max()) > 0.8 and float(mask.min()) < 0.2


def test_more_questions(heard: Heard) -> None:
    """A class of one's own asks more often, and then the mask is surer."""
    from l2i.explanation.perturbation import Rise

    class More(Rise):
        questions = 600

    few, many = (
        way(Subject(CLASSIFIER, DOMAIN), MethodSettings(seed=3))(heard, torch.tensor([1]), [7])
        for way in (Rise, More)
    )
    assert _kept(heard, many, LOW) < _kept(heard, few, LOW)


def test_ridge_finds_what_adds_up() -> None:
    """Weights of a sum of units, but for the penalty; units that do nothing have none."""
    draw = np.random.default_rng(0)
    z = draw.integers(0, 2, (400, 6)).astype(float)
    z[0] = 1
    wanted = np.array([0.5, 0.0, -0.25, 0.1, 0.0, 0.0])
    np.testing.assert_allclose(ridge(z, z @ wanted + 0.2), wanted, atol=0.02)


def test_segments_follow_the_sound() -> None:
    """A loud rectangle is made of segments of its own, and numbers have no gap."""
    loudness = torch.zeros(DOMAIN.n_bins, 60)
    loudness[100:150, 20:40] = 1.0
    labels = segments(loudness, DOMAIN, 20)
    inside = set(labels[100:150, 20:40].flatten().tolist())
    mask = torch.ones_like(labels, dtype=torch.bool)
    mask[100:150, 20:40] = False
    outside = set(labels[mask].tolist())
    assert not inside & outside
    assert inside | outside == set(range(int(labels.max()) + 1)) and len(outside) > 5


def test_the_mel_scale() -> None:
    """Half of the bins, the upper ones, are a quarter of the scale or less."""
    places = mel_places(DOMAIN.n_bins, RATE)
    assert places[0] == 0 and places[-1] == 1 and bool((places.diff() > 0).all())
    assert 0.7 < float(places[DOMAIN.n_bins // 2]) < 0.8


def test_gradients_are_needed() -> None:
    """For a black box extremal says so, and the others do not need them."""
    box = l2i.wrap(lambda x: TwoTones()(torch.from_numpy(x)), RATE, NAMES, "multi-label")
    with pytest.raises(UsageError, match="no gradients, which method 'extremal' needs"):
        make_method("extremal", Subject(box, DOMAIN), MethodSettings())
    make_method("rise", Subject(box, DOMAIN), MethodSettings())


@pytest.mark.parametrize("name", ["loudest", "random-gates"])
def test_controls_keep_half(name: str, heard: Heard) -> None:
    """Half of the energy, whatever the class; the loudest bins are the loudest ones, and random
    gates are others by another key."""
    way = make_method(name, Subject(CLASSIFIER, DOMAIN), MethodSettings(seed=3))
    mask = way(heard, torch.tensor([0]), [7])
    assert torch.equal(mask, way(heard, torch.tensor([1]), [7]))
    energy = heard.size.square()
    kept = float((mask.square() * energy).sum() / energy.sum())
    assert kept == pytest.approx(0.5, abs=0.02)
    other = way(heard, torch.tensor([0]), [8])
    if name == "loudest":
        assert torch.equal(other, mask)
        assert float(heard.size[mask > 0].min()) >= float(heard.size[mask == 0].max())
    else:
        assert float((other - mask).abs().max()) > 0.1

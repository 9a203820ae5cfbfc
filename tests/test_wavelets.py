"""`l2i.explanation.wavelets`: the transform on paper, and a tone that a classifier hears."""

from __future__ import annotations

import pytest
import torch

import l2i
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject, make_method, split_audio
from l2i.explanation.wavelets import haar, inverse_haar
from l2i.models.heard import hear
from tests.test_gates import HIGH, LOW, RATE, TwoTones, _energy, _tone
from tests.test_perturbation import CLASSIFIER, DOMAIN, NAMES


@pytest.mark.parametrize("levels", [1, 3])
def test_the_transform_is_orthonormal(levels: int) -> None:
    """It keeps energy, is undone by its inverse, and a gradient goes through it as a sound does."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, generator=g, dtype=torch.float64)
    c = haar(x, levels)
    torch.testing.assert_close(c.square().sum(1), x.square().sum(1))
    torch.testing.assert_close(inverse_haar(c, levels), x)
    weight = torch.randn(2, 64, generator=g, dtype=torch.float64)
    c.requires_grad_()
    (gradient,) = torch.autograd.grad((weight * inverse_haar(c, levels)).sum(), c)
    torch.testing.assert_close(gradient, haar(weight, levels))


def test_a_step_on_paper() -> None:
    """The differences know of a step where it is, and only they; the mean is what it is."""
    x = torch.zeros(1, 8)
    x[0, 5:] = 1.0
    c = haar(x, 3)[0]
    assert c[0] == pytest.approx(3 / 8**0.5) and c[1] == pytest.approx(-3 / 8**0.5)
    assert c[2:4].tolist() == pytest.approx([0, -0.5]) and c[4:].nonzero().flatten().tolist() == [2]


def test_the_tone_that_was_heard_is_kept() -> None:
    """More of it than of the other one, which sounds at other times, at half of the energy."""
    t = torch.arange(RATE) / RATE
    x = (_tone(LOW) * (t < 0.5) + _tone(HIGH) * (t > 0.5))[None]
    heard = hear(CLASSIFIER, x, DOMAIN)
    way = make_method("wam", Subject(CLASSIFIER, DOMAIN), MethodSettings())
    for c, own, other in ((0, LOW, HIGH), (1, HIGH, LOW)):
        mask = way(heard, torch.tensor([c]), [7])
        audio, _ = split_audio(heard.spectrum, mask, DOMAIN, heard.n_samples, linear=True)
        mine, theirs = (float(_energy(audio[0], hz) / _energy(x[0], hz)) for hz in (own, other))
        assert mine > 2 * theirs
        removed = CLASSIFIER.logits(x - audio * heard.level)[0, c]
        assert removed < CLASSIFIER.logits(x)[0, c] - 1


def test_gradients_are_needed() -> None:
    """For a black box it says so."""
    box = l2i.wrap(lambda x: TwoTones()(torch.from_numpy(x)), RATE, NAMES, "multi-label")
    with pytest.raises(UsageError, match="no gradients, which method 'wam' needs"):
        make_method("wam", Subject(box, DOMAIN), MethodSettings())

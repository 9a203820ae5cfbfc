"""IBA: information by hand, and a map of which one place speaks for the class."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject
from l2i.explanation.bottleneck import Iba, _blurred, information
from l2i.models.heard import Heard
from l2i.types import Features, Task
from tests.toys import SETTINGS

BINS, FRAMES = 32, 60


def test_information_by_hand() -> None:
    """None where nothing is kept; where half of a signal at its mean is, ln 2 less 3/8; and it
    grows with both."""
    nothing, half = information(torch.zeros(2), torch.tensor([0.0, 0.5])).tolist()
    assert nothing == 0 and half == pytest.approx(math.log(2) - 0.375)
    r, share = torch.meshgrid(torch.linspace(0, 3, 5), torch.linspace(0, 0.99, 9), indexing="ij")
    bits = information(r, share)
    assert bool((bits.diff(dim=0) >= 0).all()) and bool((bits.diff(dim=1) > 0).all())


def test_a_blur_keeps_what_is_even() -> None:
    """Constants stay, to the edges; a point is spread, and its sum stays."""
    torch.testing.assert_close(_blurred(torch.full((1, 2, 5, 7), 0.3), 1.0)[0, 0, 0, 0].item(), 0.3)
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1
    blurred = _blurred(point, 1.0)[0, 0]
    assert float(blurred.sum()) == pytest.approx(1) and float(blurred[4, 4]) == float(
        blurred.amax()
    )
    assert float(blurred[4, 5]) == pytest.approx(float(blurred[4, 4]) * math.exp(-0.5), rel=1e-4)


class OnePlace:
    """Its logit of class 0 is the map's channel 0 at one place; that of class 1 another's."""

    task = Task.SINGLE_LABEL
    places = ((1, 3), (6, 9))

    def chosen_layers(self) -> tuple[str, ...]:
        return ("early", "middle", "late")

    def logits_above(self, map_: Tensor, *names: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert names == ("middle",)
        return torch.stack([8 * map_[:, 0, f, t] for f, t in self.places], 1), ()

    def to_bins(self, attribution: Tensor, frames: int) -> Tensor:
        grid = torch.nn.functional.interpolate(attribution, (frames, BINS), mode="nearest")
        return grid[:, 0].transpose(1, 2)


def _heard(clf: Any) -> Heard:
    torch.manual_seed(0)
    map_ = 0.1 * torch.randn(1, 3, 8, 12)
    for f, t in clf.places:
        map_[0, 0, f, t] = 2.0
    size = torch.ones(1, BINS, FRAMES)
    x, spectrum = torch.ones(1, 100), torch.complex(size, size)
    features = Features(torch.zeros(1, 2), (map_,))
    return Heard(clf, SETTINGS.domain, x, spectrum, size, features, None)


@pytest.mark.parametrize("c", [0, 1])
def test_the_place_that_counts(c: int) -> None:
    """The mask is greatest where the class is read, and less where the other one is; the same key
    draws the same noise, another key other noise."""
    clf: Any = OnePlace()
    way = Iba(Subject(clf, SETTINGS.domain), MethodSettings(seed=1))
    assert way.layers == ("middle",)
    heard = _heard(clf)
    mask = way(heard, torch.tensor([c]), [4])
    assert mask.shape == (1, BINS, FRAMES) and float(mask.amax()) == 1
    at = [float(mask[0, f * BINS // 8, t * FRAMES // 12]) for f, t in clf.places]
    assert at[c] == 1 and at[1 - c] < 0.6
    assert torch.equal(way(heard, torch.tensor([c]), [4]), mask)
    assert not torch.equal(way(heard, torch.tensor([c]), [5]), mask)

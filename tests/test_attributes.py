"""FLINT: attributes by hand, and those that say what a classifier says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import l2i
from l2i.dsp.spectrogram import Domain
from l2i.explanation import make_method
from l2i.models.attributes import GRID, Attributes
from l2i.models.heard import hear
from l2i.training.learnt import ATTRIBUTES, AttributeSettings, entropy
from tests.guests import RATE, load, sounds

DOMAIN = Domain(RATE, 256, 128)


def _network(channels: tuple[int, ...], j: int = 5, width: int = 8, c: int = 3) -> Attributes:
    torch.manual_seed(0)
    return Attributes(
        maps=[str(i) for i in range(len(channels))],
        channels=channels,
        n_classes=c,
        n_bins=129,
        sample_rate=RATE,
        attributes=j,
        width=width,
    )


def test_how_large_it_is() -> None:
    """As its docstring says."""
    network = _network((128, 256, 512), 24, 64, 10)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(0.36e6, rel=0.02)


@pytest.mark.parametrize(
    "shapes", [[(8, 1, 1)], [(12, 8, 53), (24, 4, 13)], [(6, 1, 90), (4, 1, 9)]]
)
def test_maps_of_any_shape(shapes: list[tuple[int, int, int]]) -> None:
    """Attributes are the means of their maps; every weight has a part in answer or picture; and a
    map of channels last will do."""
    network = _network(tuple(d for d, _, _ in shapes))
    maps = [torch.randn(2, *shape) for shape in shapes]
    places, phi, logits = network(maps)
    assert places.shape == (2, 5, max(r for _, r, _ in shapes), max(t for _, _, t in shapes))
    torch.testing.assert_close(phi, places.mean((2, 3)))
    torch.testing.assert_close(logits, phi @ network.theta.T)
    assert network.decoded(phi).shape == (2, GRID, GRID)
    assert network.bins(places[:, 0], 67).shape == (2, 129, 67)
    (logits.square().sum() + (network.decoded(phi) - 1).square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
    last = [m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps]
    torch.testing.assert_close(network(last)[1], phi, atol=1e-5, rtol=1e-4)


def test_entropy_by_hand() -> None:
    """Equal attributes have the logarithm of their number, one that stands out has nothing."""
    entropies = entropy(torch.tensor([[2.0, 2.0, 2.0, 2.0], [90.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(entropies, torch.tensor([math.log(4), 0.0]))


@pytest.fixture(scope="module")
def clf() -> l2i.Classifier:
    """A network on raw samples."""
    return load()


def test_the_loss_on_paper(clf: l2i.Classifier) -> None:
    """Each term alone: a guess; a picture that is one away; two clips of an attribute each; and
    their mean."""
    heard = hear(clf, torch.from_numpy(sounds(2)), DOMAIN, ["2=B D T"])
    network = _network((3,))
    phi = torch.tensor([[90.0, 0.0], [0.0, 90.0]])
    picture = network.coarse(heard.size) + 1

    class Fixed(torch.nn.Module):
        coarse = network.coarse

        def forward(self, maps: object) -> tuple[Tensor, Tensor, Tensor]:
            return torch.zeros(2, 2, 1, 1), phi, torch.zeros(2, 3)

        def decoded(self, phi: Tensor) -> Tensor:
            return picture

    none = {"fidelity": 0, "input": 0, "concise": 0, "sparse": 0}
    for name, wanted in (
        ("fidelity", math.log(3)),
        ("input", 1.0),
        ("concise", -math.log(2)),
        ("sparse", 45.0),
    ):
        loss = ATTRIBUTES.loss(Fixed(), heard, AttributeSettings(**(none | {name: 2.0})))
        assert float(loss) == pytest.approx(2 * wanted, rel=1e-4), name


def test_what_is_learnt(clf: l2i.Classifier) -> None:
    """The answer is the classifier's, and the mask of a tone is of the time when it sounds; that
    of another class is another one."""
    few = {"epochs": 25, "learning_rate": 5e-3, "batch_size": 8, "mixed": 0.0, "width": 8}
    fitted = l2i.fit(clf, sounds(24), "flint", **few, n_fft=256, hop_length=128)
    way = make_method("flint", fitted.subject, fitted.settings)
    heard = hear(clf, torch.from_numpy(sounds(12)), fitted.subject.domain, way.layers)
    own = heard.logits.argmax(1)
    _, _, predicted = fitted.subject.parts["attributes"](heard.features.maps)
    assert float((predicted.argmax(1) == own).float().mean()) > 0.9
    mask = way(heard, own, list(range(12)))
    loud = heard.size.sum(1) > 0.2 * heard.size.sum(1).amax(1, keepdim=True)
    over_time = mask.mean(1)
    inside, outside = float(over_time[loud].mean()), float(over_time[~loud].mean())
    assert inside > 1.5 * outside
    other = way(heard, (own + 1) % 3, list(range(12)))
    assert float((other - mask).abs().max()) > 0.1

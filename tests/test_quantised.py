"""PIQ: codes of one class alone, and masks that find what is loud."""

from __future__ import annotations

import pytest
import torch

import l2i
from l2i.dsp.spectrogram import Domain
from l2i.errors import UsageError
from l2i.explanation import make_method
from l2i.models.heard import hear
from l2i.models.quantised import QuantisedMask
from l2i.training.learnt import QUANTISED_MASK, QuantisedSettings
from tests.guests import RATE, load, sounds


def _network(n_classes: int = 3, codes: int = 12) -> QuantisedMask:
    torch.manual_seed(0)
    return QuantisedMask(
        maps=["a"], channels=8, n_classes=n_classes, n_bins=129, sample_rate=8000, codes=codes
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (4, 13), (200, 9)])
def test_maps_of_any_shape(shape: tuple[int, int]) -> None:
    """Logits of the frames asked for; every weight learns, codes that are not used excepted."""
    network = _network()
    x = torch.randn(3, 8, *shape)
    logits, z, q = network(x, torch.tensor([0, 1, 2]), 67)
    assert logits.shape == (3, 129, 67) and z.shape == q.shape
    (logits.sigmoid().sum() + (q - z.detach()).square().sum()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


@pytest.mark.parametrize(("n_classes", "codes"), [(3, 12), (3, 13), (20, 5)])
def test_a_class_has_its_own_codes(n_classes: int, codes: int) -> None:
    """And one that is for all; of those it takes the nearest."""
    network = _network(n_classes, codes)
    each = max(1, codes // n_classes)
    assert network.codes.shape[0] == 1 + each * n_classes
    z = torch.randn(n_classes, 8, 5, 6)
    nearest = network.nearest(z, torch.arange(n_classes))
    for c in range(n_classes):
        allowed = [0, *range(1 + c * each, 1 + (c + 1) * each)]
        assert set(nearest[c].flatten().tolist()) <= set(allowed)
        distance = (z[c].permute(1, 2, 0)[:, :, None] - network.codes[allowed]).norm(dim=3)
        best = torch.tensor(allowed)[distance.argmin(2)]
        assert torch.equal(best, nearest[c])


def test_the_gradient_goes_straight_through() -> None:
    """What is quantised learns from the mask as if it were its code."""
    network = _network().eval()
    x = torch.randn(1, 8, 4, 9, requires_grad=True)
    logits, _, _ = network(x, torch.tensor([1]), 30)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert bool(gradient.any())


@pytest.fixture(scope="module")
def clf() -> l2i.Classifier:
    """A network on raw samples."""
    return load()


def test_the_loss_on_paper(clf: l2i.Classifier) -> None:
    """A mask of one half costs ln 2, whatever is loud; and each distance to the codes, once per
    side."""
    heard = hear(clf, torch.from_numpy(sounds(2)), Domain(RATE, 256, 128), ["4=B D T"])

    class Half(torch.nn.Module):
        def forward(self, map_: torch.Tensor, classes: torch.Tensor, frames: int) -> object:
            return torch.zeros(2, 129, frames), torch.zeros(2, 4), torch.full((2, 4), 3.0)

    loss = QUANTISED_MASK.loss(Half(), heard, QuantisedSettings())
    assert float(loss) == pytest.approx(0.693147 + 9 + 9, abs=1e-4)


def test_what_is_learnt(clf: l2i.Classifier) -> None:
    """The loss falls, and a mask has more of the loud bins than of the others."""
    # From half as many, or at a rate of 1e-2, an epoch may be chosen that knows little of the high
    # tone, as the processor rounds. By these, of four seeds none has a ratio below 3.5.
    few = {"epochs": 30, "learning_rate": 3e-3, "batch_size": 8, "mixed": 0.0}
    clips = sounds(96)[:, 2000:6000]
    fitted = l2i.fit(clf, clips, "piq", **few, n_fft=256, hop_length=128)
    history = fitted.history["quantised-mask"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    way = make_method("piq", fitted.subject, fitted.settings)
    heard = hear(clf, torch.from_numpy(clips[:2]), fitted.subject.domain, way.layers)
    size = heard.size.log1p()
    loud = size > 0.35 * size.amax((1, 2), keepdim=True)
    mask = way(heard, torch.tensor([0, 1]), [0, 1])
    for own, there in zip(mask, loud, strict=True):
        assert float(own[there].mean()) > 1.5 * float(own[~there].mean())
    other = way(heard, torch.tensor([2, 2]), [0, 1])
    assert float((other - mask).abs().max()) > 1e-3


def test_a_black_box_has_no_hidden_map(clf: l2i.Classifier) -> None:
    """One sentence."""
    box = l2i.wrap(lambda x: clf.logits(torch.from_numpy(x)).numpy(), RATE, list(clf.classes))
    with pytest.raises(UsageError, match="hidden layers"):
        l2i.fit(box, sounds(12), "piq", epochs=1)

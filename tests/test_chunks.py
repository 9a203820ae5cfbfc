"""VIBI: chunks by hand, and those that tell a tone from another."""

from __future__ import annotations

import math

import pytest
import torch

import l2i
from l2i.dsp.spectrogram import Domain
from l2i.explanation import make_method
from l2i.models.chunks import ChunkSelector, drawn
from l2i.models.heard import hear
from l2i.training.learnt import CHUNK_SELECTOR, ChunkSettings
from tests.guests import RATE, load, sounds

DOMAIN = Domain(RATE, 256, 128)


def _network(share: float = 0.25, width: int = 8, n_classes: int = 3) -> ChunkSelector:
    torch.manual_seed(0)
    return ChunkSelector(
        n_classes=n_classes,
        n_bins=129,
        sample_rate=RATE,
        hop_length=128,
        share=share,
        width=width,
        piece_s=0.25,
    )


def test_how_large_it_is() -> None:
    """As its docstring says."""
    weights = sum(p.numel() for p in _network(width=64, n_classes=10).parameters())
    assert weights == pytest.approx(0.15e6, rel=0.01)


@pytest.mark.parametrize("frames", [1, 7, 63, 200])
def test_chunks_of_any_length(frames: int) -> None:
    """A quarter of the chunks is kept, each with all of its bins; of the same chunks each bin is in
    one, and pieces are about a quarter of a second."""
    network = _network()
    odds = network.odds(torch.rand(2, 129, frames))
    pieces = max(1, round(frames / 16))
    assert odds.shape == (2, 8, pieces)
    chosen = network.likeliest(odds)
    assert chosen.sum((1, 2)).tolist() == [2 * pieces] * 2
    numbers = torch.arange(8.0 * pieces).view(1, 8, pieces)
    labels = network.mask(numbers, frames)
    assert labels.shape == (1, 129, frames) and set(labels.unique().tolist()) == set(
        numbers.flatten().tolist()
    )
    kept = network.mask(chosen, frames)
    for clip in range(2):
        wanted = set(numbers[0][chosen[clip] > 0].tolist())
        assert set(labels[0][kept[clip] > 0].unique().tolist()) == wanted


def test_draws() -> None:
    """In [0, 1]; as sure odds have it; and a gradient passes."""
    torch.manual_seed(0)
    odds = torch.tensor([[30.0, 0.0, 30.0, 0.0]], requires_grad=True)
    draws = drawn(odds, 40, 0.5)
    assert bool((draws[0, [0, 2]] > 0.99).all()) and bool((draws[0, [1, 3]] < 0.01).all())
    even = torch.zeros(1, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(drawn(even, 3, 0.5)[0, 0], even)
    assert bool(gradient.any())


@pytest.fixture(scope="module")
def clf() -> l2i.Classifier:
    """A network on raw samples."""
    return load()


def test_the_loss_on_paper(clf: l2i.Classifier) -> None:
    """An approximator that knows nothing costs the cross-entropy of a guess, ln 3; odds that are
    even cost nothing, those of one chunk alone ln of their number."""
    heard = hear(clf, torch.from_numpy(sounds(2)), DOMAIN)
    network = _network().eval()
    network.approximate = lambda mask, size: torch.zeros(2, 3)  # type: ignore[method-assign]
    for odds, divergence in ((torch.zeros(2, 8, 4), 0.0), (torch.eye(32)[:2] * 90, math.log(32))):
        network.odds = lambda size, odds=odds: odds.view(2, 8, 4)  # type: ignore[misc,method-assign]
        loss = CHUNK_SELECTOR.loss(network, heard, ChunkSettings(compression=0.5))
        assert float(loss) == pytest.approx(math.log(3) + 0.5 * divergence, abs=1e-4)


def test_what_is_learnt(clf: l2i.Classifier) -> None:
    """On a black box, too: from an eighth of the chunks the approximator says what the classifier
    says far more often than from all others; and of a low tone, which no other class has, nearly
    all is chosen. That it is absent tells the others."""
    box = l2i.wrap(lambda x: clf.logits(torch.from_numpy(x)).numpy(), RATE, list(clf.classes))
    few = {"epochs": 24, "learning_rate": 5e-3, "batch_size": 4, "mixed": 0.0, "width": 16}
    fitted = l2i.fit(box, sounds(24), "vibi", **few, share=0.125, n_fft=256, hop_length=128)
    history = fitted.history["chunk-selector"]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    way = make_method("vibi", fitted.subject, fitted.settings)
    network = fitted.subject.parts["chunk-selector"]
    heard = hear(box, torch.from_numpy(sounds(12)), fitted.subject.domain)
    own = heard.logits.argmax(1)
    mask = way(heard, own, list(range(12)))
    assert float(mask.mean()) == pytest.approx(0.125, abs=0.06)
    right = [
        float((network.approximate(m, heard.size).argmax(1) == own).float().mean())
        for m in (mask, 1 - mask)
    ]
    assert right[0] > right[1] + 0.3
    kept = (mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2))
    assert float(kept[own == 0].min()) > 0.6

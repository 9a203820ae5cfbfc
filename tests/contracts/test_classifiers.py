"""Every classifier: what the package relies on, whatever it is made of.

Three that share nothing: the VGG with its log-mel front-end, a network on raw samples, a black box.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.explanation.gates import without_training
from l2i.models.classifier import FrozenClassifier
from l2i.models.vgg import VGG
from l2i.types import Classifier, Task

RATE, SAMPLES = 8000, 9000


def _vgg() -> Classifier:
    torch.manual_seed(3)
    settings = SpectrogramSettings(RATE, n_fft=256, hop_length=64)
    return FrozenClassifier(VGG(3, head=8), settings, ["a", "b", "c"], Task.SINGLE_LABEL)


def _raw() -> Classifier:
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 8, 64, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    return l2i.wrap(network, RATE, ["a", "b", "c", "d"], "multi-label", window_s=0.5, hop_s=0.25)


def _black_box() -> Classifier:
    def hear(x: np.ndarray) -> np.ndarray:
        loud = np.sqrt((x**2).mean(1))
        bright = np.sqrt((np.diff(x) ** 2).mean(1))
        return np.stack([loud, bright, 0.1 - loud], 1)

    return l2i.wrap(hear, RATE)


each = pytest.mark.parametrize("make", [_vgg, _raw, _black_box])


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Noise, a chirp, silence: [3, S]."""
    t = torch.arange(SAMPLES) / RATE
    noise = 0.1 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0))
    chirp = torch.sin(2 * torch.pi * (200 + 800 * t) * t) + 0.01 * noise
    return torch.stack([noise, chirp, torch.zeros(SAMPLES)])


@each
def test_scores(make: Callable[[], Classifier], clips: Tensor) -> None:
    """Logits [B, C], float32, finite; probabilities of its task; the same for each clip whatever
    lies beside it, and each time."""
    clf = make()
    assert isinstance(clf, Classifier) and clf.sample_rate == RATE
    logits = clf.logits(clips)
    assert logits.shape == (3, len(clf.classes)) and logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all()) and not logits.requires_grad
    p = clf.probabilities(logits)
    assert bool((p >= 0).all()) and bool((p <= 1).all())
    if clf.task is Task.SINGLE_LABEL:
        torch.testing.assert_close(p.sum(1), torch.ones(3))
    torch.testing.assert_close(clf.logits(clips[1:2]), logits[1:2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clf.logits(clips), logits)


@each
def test_gradients(make: Callable[[], Classifier], clips: Tensor) -> None:
    """They reach the waveform where the classifier says so, and no weight of it."""
    clf = make()
    x = clips[:2].clone().requires_grad_()
    found = clf.logits(x)
    assert found.requires_grad == clf.differentiable
    if clf.differentiable:
        torch.testing.assert_close(found.detach(), clf.logits(clips[:2]), atol=1e-4, rtol=1e-4)
        (gradient,) = torch.autograd.grad(found[:, 0].sum(), x)
        assert gradient.shape == x.shape and bool(torch.isfinite(gradient).all())
        assert gradient[0].any()
    network = getattr(clf, "network", getattr(clf, "model", None))
    if isinstance(network, nn.Module):
        assert all(w.grad is None for w in network.parameters())


@each
def test_explanations(make: Callable[[], Classifier], clips: Tensor) -> None:
    """Without training: parts that add up, masks in [0, 1], silence explained by silence; and the
    classifier answers as before."""
    clf = make()
    before = clf.logits(clips)
    way = without_training(clf, components=4)
    e = way(clips, torch.tensor([0, 1, 0]))
    assert float((e.audio + e.removal - clips).abs().max()) < 1e-6
    assert e.mask.shape == e.spectrum.shape and not e.mask.requires_grad
    assert bool((e.mask >= 0).all()) and bool((e.mask <= 1).all()) and not e.mask[2].any()
    assert e.activations[1].any()
    quiet = way(1e-6 * clips[1:2], torch.tensor([1]))
    torch.testing.assert_close(quiet.w, e.w[1:2], atol=1e-3, rtol=0)
    torch.testing.assert_close(clf.logits(clips), before)

"""Every classifier: what the package relies on, whatever it is made of.

The VGG with its log-mel front-end, networks on spectrograms of either order, one on raw samples, a
transformer of patches with a token for the class, TorchScript, a black box.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import UsageError
from l2i.explanation.gates import without_training
from l2i.models.classifier import FrozenClassifier
from l2i.models.vgg import VGG
from l2i.models.wrapped import Wrapped
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


class Spectrogram(nn.Module):
    """Log-magnitudes [B, 1, F, T], or [B, 1, T, F]."""

    def __init__(self, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(128)
        y = torch.stft(x, 128, 64, window=window, return_complex=True).abs()[:, :64]
        y = (y + 1e-3).log()
        return (y.transpose(1, 2) if self.time_first else y).unsqueeze(1)


def _convolutions(time_first: bool) -> Classifier:
    torch.manual_seed(5)
    blocks = [
        nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        for a, b in ((1, 8), (8, 16), (16, 24), (24, 32))
    ]
    network = nn.Sequential(
        Spectrogram(time_first), *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 3)
    )
    return l2i.wrap(network, RATE, ["a", "b", "c"])


def _frequency_first() -> Classifier:
    return _convolutions(False)


def _time_first() -> Classifier:
    return _convolutions(True)


class Patches(nn.Module):
    """A transformer of patches of 16 bins and 4 frames, and a token for the class."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(False)
        self.embed = nn.Conv2d(1, 16, (16, 4), (16, 4))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(self.spectrogram(x)).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(len(y), -1, -1), y], 1)
        for layer in self.layers:
            y = layer(y)
        return self.head(y[:, 0])


def _transformer() -> Classifier:
    torch.manual_seed(6)
    return l2i.wrap(Patches(), RATE, ["a", "b", "c"], window_s=0.5, hop_s=0.3)


def _torchscript() -> Classifier:
    torch.manual_seed(7)
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 8, 64, 8),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()
    return l2i.wrap(torch.jit.trace(network, torch.zeros(1, SAMPLES)), RATE)


def _black_box() -> Classifier:
    def hear(x: np.ndarray) -> np.ndarray:
        loud = np.sqrt((x**2).mean(1))
        bright = np.sqrt((np.diff(x) ** 2).mean(1))
        return np.stack([loud, bright, 0.1 - loud], 1)

    return l2i.wrap(hear, RATE)


READABLE = [_raw, _frequency_first, _time_first, _transformer]
each = pytest.mark.parametrize("make", [_vgg, *READABLE, _torchscript, _black_box])


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
    logits = clf.logits(x)
    assert logits.requires_grad == clf.differentiable
    if clf.differentiable:
        torch.testing.assert_close(logits.detach(), clf.logits(clips[:2]), atol=1e-4, rtol=1e-4)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
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
    assert e.mask.shape == e.apart.spectrum.shape and not e.mask.requires_grad
    assert bool((e.mask >= 0).all()) and bool((e.mask <= 1).all()) and not e.mask[2].any()
    assert e.apart.activations[1].any()
    quiet = way(1e-6 * clips[1:2], torch.tensor([1]))
    torch.testing.assert_close(quiet.apart.w, e.apart.w[1:2], atol=1e-3, rtol=0)
    torch.testing.assert_close(clf.logits(clips), before)


@pytest.mark.parametrize("make", READABLE)
def test_hidden_maps(make: Callable[[], Wrapped], clips: Tensor) -> None:
    """Each layer that is chosen has a map [B, D, F, T] of the whole clip; the same for each clip
    whatever lies beside it; logits as ever. Where the clip changes, there the map changes most."""
    clf = make()
    words = [str(f.layer) for f in clf.chosen_layers()]
    assert 2 <= len(words) <= 3
    features = clf.features(clips, words)
    torch.testing.assert_close(features.logits, clf.logits(clips))
    alone = clf.features(clips[1:2], words)
    by_name = clf.features(clips, [word.partition("=")[0] for word in words])
    late = clips.clone()
    late[:, 7000:8000] = 0.3  # In the last quarter.
    changed = clf.features(late, words)
    for f, y, one, same, other in zip(
        clf.chosen_layers(), features.maps, alone.maps, by_name.maps, changed.maps, strict=True
    ):
        assert y.shape[:3] == (3, f.channels, f.rows) and y.dtype == torch.float32
        assert not y.requires_grad and bool(torch.isfinite(y).all())
        torch.testing.assert_close(one, y[1:2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(same, y)
        change = (other - y).abs().sum((0, 1, 2))
        assert len(change) == y.shape[3] > 2
        assert change.argmax() / len(change) > 0.7
        torch.testing.assert_close(other[..., : len(change) // 4], y[..., : len(change) // 4])


def test_hidden_maps_of_either_order(clips: Tensor) -> None:
    """Frequency first or time first, with the weights turned, it is the same map."""
    one, other = _frequency_first(), _time_first()
    for a, b in zip(one.model.modules(), other.model.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            b.weight.data = a.weight.data.transpose(2, 3).clone()
    axes = [{f.layer.axes for f in clf.layers()} for clf in (one, other)]
    assert axes == [{"B D F T"}, {"B D T F"}]
    names = [f.layer.name for f in one.chosen_layers()]
    assert names == ["2", "3", "4"]
    for y, z in zip(
        one.features(clips, names).maps, other.features(clips, names).maps, strict=True
    ):
        torch.testing.assert_close(y, z, atol=1e-5, rtol=1e-4)


def test_hidden_maps_of_a_transformer() -> None:
    """Four rows, which a token comes before."""
    clf = _transformer()
    assert [str(f.layer) for f in clf.chosen_layers()] == [
        f"layers.{i}=B (F4 T)+1 D" for i in range(3)
    ]


@pytest.mark.parametrize("make", [_torchscript, _black_box])
def test_no_hidden_maps(make: Callable[[], Wrapped], clips: Tensor) -> None:
    """Where there are none it is said, and logits are there."""
    clf = make()
    with pytest.raises(UsageError, match="cannot be read"):
        clf.layers()
    torch.testing.assert_close(clf.features(clips).logits, clf.logits(clips))

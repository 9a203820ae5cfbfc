"""`l2i.models.classifier` and `l2i.models.vgg`: frozen means frozen; published weights fit."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l2i.dsp.spectrogram import SpectrogramSettings, log_mel
from l2i.errors import CheckpointError
from l2i.models.classifier import FrozenClassifier, hidden_maps
from l2i.models.interpreter import Interpreter
from l2i.models.vgg import (
    BLOCKS,
    HIDDEN_MAPS,
    MIN_FRAMES,
    VGG,
    first_blocks,
    fold_batch_norm,
    last_map_size,
)
from l2i.types import Task

SETTINGS = SpectrogramSettings(sample_rate=8000, n_fft=256, hop_length=64, n_mels=128)
SAMPLES = 64 * (MIN_FRAMES + 8)
NAMES = ("a", "b", "c")


def _trained(seed: int = 0, **how: float) -> VGG:
    """A network whose batch norms have statistics and weights of a training, seeded."""
    torch.manual_seed(seed)
    network = VGG(len(NAMES), **{"head": 8, **how})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2.0)
    return network


@pytest.fixture(scope="module")
def network() -> VGG:
    """In training mode, as it comes out of training; no test changes it."""
    return _trained()


@pytest.fixture(scope="module")
def frozen(network: VGG) -> FrozenClassifier:
    """The same, frozen."""
    return FrozenClassifier(network, SETTINGS, NAMES, Task.SINGLE_LABEL)


def _clips(n: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, SAMPLES, generator=torch.Generator().manual_seed(seed))


def _hooks(module: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in module.modules()
    )


# --- folding ----------------------------------------------------------------------------------


def test_folded_batch_norms_change_no_logit(network: VGG) -> None:
    """The copy without batch norms says what the original says in evaluation mode."""
    mel = 20 * torch.randn(2, 1, 136, 128, generator=torch.Generator().manual_seed(2)) - 40
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        want, got = copy.deepcopy(network).eval()(mel), folded(mel)
    assert want.std() > 0
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


@pytest.mark.parametrize(("frames", "bands"), [(136, 128), (431, 128), (160, 192)])
def test_every_layer_of_the_folded_copy_is_the_originals(
    network: VGG, frames: int, bands: int
) -> None:
    """Tiles, patches and a rectifier after the pooling: where the copy has been through a layer's
    pooling it has what the original has, whatever is left over at the edges."""
    g = torch.Generator().manual_seed(2)
    mine = theirs = 20 * torch.randn(2, 1, frames, bands, generator=g) - 40
    original, folded = copy.deepcopy(network).eval(), fold_batch_norm(network)
    seen = []
    with torch.no_grad():
        for (name, a), (same, b) in zip(
            original.netx.named_children(), folded.netx.named_children(), strict=True
        ):
            theirs, mine = a(theirs), b(mine)
            assert name == same
            pooled = any(isinstance(m, nn.MaxPool2d) for m in a.modules())
            if name in HIDDEN_MAPS.values() or pooled or name == "layer18":
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * theirs.max().item())
                seen.append(name)
    assert len(seen) == 6 + 3 + 1


def _published_order(network: VGG, mel: torch.Tensor) -> torch.Tensor:
    """Slow twin: convolution, batch norm, ReLU, and pooling where it is due, one by one."""
    y = mel
    for name, layer in network.netx.named_children():
        if name[5:] in {"3", "6", "9", "12", "15", "17"}:
            y = F.max_pool2d(y, 2)
        else:
            y = F.relu(layer[1](layer[0](y)))
    return network.fc(F.relu(network.layer(y)).amax(dim=(2, 3)))


def test_rectified_late_is_the_published_network(network: VGG) -> None:
    """In training: the same logits, and the same gradient of every weight."""
    g = torch.Generator().manual_seed(2)
    mel = 20 * torch.randn(2, 1, 200, 128, generator=g) - 40
    network = copy.deepcopy(network).train()
    network.dropout.eval()
    outputs = []
    for forward in (lambda: network(mel), lambda: _published_order(network, mel)):
        network.zero_grad()
        logits = forward()
        logits[:, 1].sum().backward()
        outputs.append([logits.detach(), *(p.grad.clone() for p in network.parameters())])
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("blocks", range(BLOCKS + 1))
def test_the_first_blocks_and_what_is_above_them(network: VGG, blocks: int) -> None:
    """Together they are the network; each block halves the frames once."""
    mel = 20 * torch.randn(2, 1, 200, 128, generator=torch.Generator().manual_seed(2)) - 40
    network = copy.deepcopy(network).eval()
    below = first_blocks(network, blocks)
    with torch.no_grad():
        between = below(mel)
        got, want = network.above(between, blocks), network(mel)
    assert between.shape[2] == 200 >> blocks
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())
    assert not any(p.requires_grad for p in below.parameters())
    learnt = [m for i in range(blocks) for layer in network.block(i) for m in layer.parameters()]
    widths = (16, 32, 64, 128, 256, 512)[:blocks]
    assert {p.shape[0] for p in learnt} == set(widths)


def test_the_folded_copy_hands_gradients_on(network: VGG) -> None:
    """To what it is asked about, as the original does: gradients are explanations too. In double
    precision, where rounding decides between no two values that are pooled."""
    g = torch.Generator().manual_seed(2)
    mel = 20 * torch.randn(2, 1, 136, 128, generator=g, dtype=torch.float64) - 40
    network = copy.deepcopy(network).double().eval()
    gradients = []
    for model in (network, fold_batch_norm(network)):
        x = mel.clone().requires_grad_()
        model(x)[:, 1].sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(fold_batch_norm(network)(mel), network(mel), rtol=1e-9, atol=0)


def test_a_processor_without_the_library_says_the_same(
    network: VGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolution and rectifier one after the other where they cannot be had at once."""
    mel = 20 * torch.randn(2, 1, 136, 128, generator=torch.Generator().manual_seed(2)) - 40
    folded = fold_batch_norm(network)
    with torch.no_grad():
        want = folded(mel)
        monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", None)
        got = folded(mel)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_folding_leaves_the_original_as_it_is() -> None:
    """Weights, statistics, mode and gradients of the original are untouched, also by its use."""
    network = _trained()
    before = copy.deepcopy(network.state_dict())
    frozen = FrozenClassifier(network, SETTINGS, NAMES, Task.SINGLE_LABEL)
    frozen.features_of(frozen.spectrum(_clips()), ("512",))
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    with torch.no_grad():
        network.fc.weight.zero_()
    assert frozen.network.fc.weight.abs().max() > 0, "its weights are a copy of their own"


# --- frozen -----------------------------------------------------------------------------------


def test_frozen_means_frozen(frozen: FrozenClassifier) -> None:
    """Use changes no weight; nothing wants a gradient; nothing is in training mode; dropout is
    off, so that the same clip has the same logits each time."""
    before = copy.deepcopy(frozen.network.state_dict())
    x = _clips()
    first, second = (frozen.features_of(frozen.spectrum(x), ("512", "128")) for _ in range(2))
    after = frozen.network.state_dict()
    assert all(before[name].equal(after[name]) for name in before)
    assert not any(p.requires_grad for p in frozen.network.parameters())
    assert not any(m.training for m in frozen.network.modules())
    assert first.logits.equal(second.logits)
    assert not first.logits.requires_grad and not first.maps[0].requires_grad


def test_no_hook_is_left_behind(frozen: FrozenClassifier) -> None:
    """After use there is no hook, also where the forward pass broke, and also where one of the
    names is wrong."""
    frozen.features_of(frozen.spectrum(_clips()), tuple(HIDDEN_MAPS))
    assert _hooks(frozen.network) == 0

    class Broke(Exception):
        pass

    with pytest.raises(Broke), hidden_maps(frozen.network, ["netx.layer16", "netx.layer11"]):
        assert _hooks(frozen.network) == 2
        raise Broke
    assert _hooks(frozen.network) == 0

    with (
        pytest.raises(AttributeError, match="nothing"),
        hidden_maps(frozen.network, ["netx.layer16", "netx.nothing"]),
    ):
        pytest.fail("there is no such layer")
    assert _hooks(frozen.network) == 0


def test_hidden_maps_come_in_the_order_asked_for(frozen: FrozenClassifier) -> None:
    """Whatever the order of the network's layers; and they are those layers' outputs."""
    spectrum = frozen.spectrum(_clips())
    for names in (("512", "256", "128"), ("128", "512"), ()):
        maps = frozen.features_of(spectrum, names).maps
        assert [m.shape[1] for m in maps] == [int(name) for name in names]
    y = log_mel(spectrum, SETTINGS)
    with torch.no_grad():
        for name, layer in frozen.network.netx.named_children():
            y = layer(y)
            if name == HIDDEN_MAPS["256"]:
                break
    got = frozen.features_of(spectrum, ("256",)).maps[0]
    torch.testing.assert_close(got, y.transpose(2, 3), rtol=1e-4, atol=1e-3)


def test_hidden_maps_are_those_of_ones_own_thread(frozen: FrozenClassifier) -> None:
    """A network may be used by several: what another thread asks meanwhile is not collected."""
    mine, others = log_mel(frozen.spectrum(_clips()), SETTINGS), torch.randn(1, 1, 200, 128)
    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        with hidden_maps(frozen.network, ["netx.layer16"]) as maps:
            pool.submit(frozen.network, others).result()
            assert maps[0].numel() == 0
            frozen.network(mine)
            assert len(maps[0]) == len(mine)
            pool.submit(frozen.network, others).result()
        assert len(maps[0]) == len(mine)


@pytest.mark.parametrize("frames", [128, 157, 431])
def test_shapes_of_the_hidden_maps(frozen: FrozenClassifier, frames: int) -> None:
    """Rows are mel bands and columns are frames, halved three, four and five times: for 431
    frames 16 x 53, 8 x 26 and 4 x 13."""
    size = torch.rand(1, SETTINGS.n_bins, frames, generator=torch.Generator().manual_seed(3))
    features = frozen.features_of(size, ("512", "256", "128"))
    assert features.logits.shape == (1, 3)
    assert [tuple(m.shape[1:]) for m in features.maps] == [
        (512, 4, frames // 32),
        (256, 8, frames // 16),
        (128, 16, frames // 8),
    ]
    assert all(m.min() >= 0 for m in features.maps)
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in features.maps)


@pytest.mark.parametrize(("frames", "bands"), [(128, 128), (191, 128), (192, 128), (431, 256)])
def test_the_last_maps_size_is_the_trunks(network: VGG, frames: int, bands: int) -> None:
    """And one clip can be trained on if, and only if, it is more than one value."""
    trunk = copy.deepcopy(network.netx)
    size = last_map_size(frames, bands)
    assert trunk.eval()(torch.zeros(1, 1, frames, bands)).shape[2:].numel() == size
    if size == 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            trunk.train()(torch.zeros(1, 1, frames, bands))
    else:
        trunk.train()(torch.zeros(1, 1, frames, bands))


def test_large_batches_are_cut_and_joined(
    frozen: FrozenClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many clips the network hears at a time, each has the same logits and maps."""
    spectrum = frozen.spectrum(_clips(5))
    want = frozen.features_of(spectrum, ("512",))
    monkeypatch.setattr("l2i.models.classifier._AT_ONCE", {"cpu": 2})
    got = frozen.features_of(spectrum, ("512",))
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.maps[0], want.maps[0], rtol=1e-4, atol=1e-3)


def test_too_short_a_clip_is_refused(frozen: FrozenClassifier) -> None:
    """The message says how many frames there are, how many are needed, and what to set."""
    x = torch.zeros(1, 64 * (MIN_FRAMES - 2))
    with pytest.raises(CheckpointError, match=r"127 frames .* needs 128: set dataset.duration_s"):
        frozen.logits(x)
    frozen.logits(torch.zeros(1, 64 * (MIN_FRAMES - 1)))


def test_gain_and_polarity_change_no_logit(frozen: FrozenClassifier) -> None:
    """The classifier hears peak-normalised clips, by the absolute peak."""
    x = _clips(1)
    want = frozen.logits(x)
    for other in (1e-3 * x, -x, 50 * x):
        torch.testing.assert_close(frozen.logits(other), want, rtol=1e-3, atol=1e-3)


def test_silence_has_finite_logits(frozen: FrozenClassifier) -> None:
    """A clip of zeros is no NaN, and does not disturb the clip beside it."""
    x = torch.cat([torch.zeros(1, SAMPLES), _clips(1)])
    got = frozen.logits(x)
    assert got.isfinite().all()
    torch.testing.assert_close(got[1:], frozen.logits(x[1:]), rtol=1e-4, atol=1e-4)


# --- what it decides --------------------------------------------------------------------------


def test_single_label_probabilities_and_decisions(frozen: FrozenClassifier) -> None:
    """Softmax, once; exactly one class is decided."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, -5.0, 0.0]])
    p = frozen.probabilities(logits)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(p, logits.exp() / logits.exp().sum(dim=1, keepdim=True))
    assert frozen.decisions(logits).tolist() == [[False, True, False], [True, False, False]]


def test_multi_label_decisions_use_each_classs_threshold(network: VGG) -> None:
    """Sigmoid, and every class from its own threshold on; 0.5 where none are given."""
    logits = torch.tensor([[0.0, 0.3, -9.0]])  # probabilities 0.5, 0.574, 0.0001
    for thresholds, want in (
        (None, [True, True, False]),
        ([], [True, True, False]),
        ([0.6, 0.5, 0.0], [False, True, True]),
    ):
        frozen = FrozenClassifier(network, SETTINGS, NAMES, Task.MULTI_LABEL, thresholds)
        assert frozen.decisions(logits).tolist() == [want]
        torch.testing.assert_close(frozen.probabilities(logits), logits.sigmoid())


# --- the published network --------------------------------------------------------------------


def test_the_network_is_the_published_one() -> None:
    """3x3 convolutions 16-16-32-32-64-64-128-128-256-256-512, then 2x2 to 1024, a 1x1 head."""
    network = VGG(50)
    convolutions = [m for m in network.netx.modules() if isinstance(m, nn.Conv2d)]
    widths = [m.out_channels for m in convolutions]
    assert widths == [16, 16, 32, 32, 64, 64, 128, 128, 256, 256, 512, 1024]
    assert [m.kernel_size for m in convolutions] == [(3, 3)] * 11 + [(2, 2)]
    assert sum(isinstance(m, nn.MaxPool2d) for m in network.netx.modules()) == 6
    assert sum(isinstance(m, nn.ReLU) for m in network.netx.modules()) == 12
    assert network.layer[0].weight.shape == (256, 1024, 1, 1)
    assert network.fc.weight.shape == (50, 256)
    assert network.dropout.p == 0.2


@pytest.mark.parametrize("width", [0.25, 0.3])
def test_a_narrower_network_has_so_many_fewer_channels(width: float) -> None:
    """Every layer of the trunk has that share of the published channels; folded it says the same,
    and the published interpreter reads its maps."""
    network = _trained(width=width)
    convolutions = [m for m in network.netx.modules() if isinstance(m, nn.Conv2d)]
    published = [16, 16, 32, 32, 64, 64, 128, 128, 256, 256, 512, 1024]
    assert [m.out_channels for m in convolutions] == [round(width * n) for n in published]
    clf = FrozenClassifier(network, SETTINGS, NAMES, Task.SINGLE_LABEL)
    x, layers = _clips(), tuple(HIDDEN_MAPS)
    mel = log_mel(clf.spectrum(x), SETTINGS)
    with torch.no_grad():
        want = copy.deepcopy(network).eval()(mel)
    heard = clf.features(x, layers)
    torch.testing.assert_close(heard.logits, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())
    assert [m.shape[1] for m in heard.maps] == [round(width * int(name)) for name in layers]
    psi = Interpreter(6, len(NAMES), maps=layers, width=clf.width)
    frames = SETTINGS.n_frames(SAMPLES)
    with torch.no_grad():
        assert psi.activations(heard.maps, frames).shape == (2, 6, frames)

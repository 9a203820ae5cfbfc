"""`l2i.models.interpreter`: the fast order of operations is the published one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from l2i.models.interpreter import (
    AttentionPooling,
    Interpreter,
    MaxPooling,
    interpolation_matrix,
)
from tests import reference

CHANNELS = {"512": 512, "256": 256, "128": 128}
HALVINGS = {"512": 32, "256": 16, "128": 8}
K, C = 7, 5


def _maps(frames: int, names: tuple[str, ...], rows: int = 4, clips: int = 2) -> tuple:
    """Hidden maps as the classifier gives them: rectified, each halving rounded down."""
    g = torch.Generator().manual_seed(frames)
    return tuple(
        torch.rand(
            clips,
            CHANNELS[name],
            rows * 32 // HALVINGS[name],
            frames // HALVINGS[name],
            generator=g,
        )
        for name in names
    )


def _interpreter(**how: object) -> Interpreter:
    torch.manual_seed(0)
    return Interpreter(K, C, **how).eval().requires_grad_(False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def usual() -> Interpreter:
    """The published shape, with few components."""
    return _interpreter()


def _assert_published(network: Interpreter, maps: tuple, frames: int) -> None:
    got = network(maps, frames)
    want = reference.published_activations(
        network.state_dict(), dict(zip(network.maps, maps, strict=True)), frames
    )
    assert want.abs().max() > 0.01, "a network that says nothing would agree with anything"
    assert got.activations.shape == (len(maps[0]), K, frames)
    torch.testing.assert_close(got.activations, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [128, 157, 431, 500, 862])
def test_activations_are_those_of_the_published_order(usual: Interpreter, frames: int) -> None:
    """H agrees to 1e-5 with upsampling first and convolving after, for clips of any length:
    the shortest one, the demo's, ESC-50's, one with every halving rounded down, SONYC-UST's."""
    _assert_published(usual, _maps(frames, usual.maps), frames)


@pytest.mark.parametrize(
    "names", [("512",), ("256",), ("128",), ("512", "256"), ("256", "128"), ("128", "512")]
)
def test_with_fewer_maps_the_other_branches_are_left_out(names: tuple[str, ...]) -> None:
    """With some of the maps, in any order, H is that of the published network without the other
    branches, and there are no weights for them."""
    network = _interpreter(maps=names)
    has = {name.partition(".")[0] for name in network.state_dict()}
    branch = {"256": "conv1", "512": "conv7", "128": "conv8"}
    assert {branch[name] for name in names} == has & set(branch.values())
    _assert_published(network, _maps(215, names), 215)


@pytest.mark.parametrize("rows", [6, 8])
def test_with_more_mel_bands_conv6_is_as_tall_as_what_is_left(rows: int) -> None:
    """192 and 256 mel bands: six or eight rows of the 512-channel map, which tiles of four rows
    fill or do not fill, and the rest as published."""
    network = _interpreter(rows=rows)
    _assert_published(network, _maps(160, network.maps, rows=rows), 160)


def test_in_double_precision_nothing_is_left_of_rounding(usual: Interpreter) -> None:
    """The order of operations is another, the function is the same: to 1e-12."""
    network = copy.deepcopy(usual).double()
    maps = tuple(m.double() for m in _maps(157, usual.maps))
    named = dict(zip(network.maps, maps, strict=True))
    want = reference.published_activations(network.state_dict(), named, 157)
    torch.testing.assert_close(network(maps, 157).activations, want, atol=1e-12, rtol=1e-12)


def test_reduced_precision_does_without_tiles(
    usual: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 sums of a tile's rows would lose what sets them apart: H is the float32 one to
    bfloat16's precision, and no tile is made."""
    maps = _maps(157, usual.maps)
    want = usual(maps, 157).activations

    def refuse(*_: object) -> None:
        raise AssertionError("a tile was made")

    monkeypatch.setattr("l2i.models.interpreter._tile_matrix", refuse)
    with torch.autocast("cpu", torch.bfloat16):
        got = usual(maps, 157).activations.float()
    assert (got - want).norm() < 0.02 * want.norm()
    with pytest.raises(AssertionError, match="tile"):
        usual(maps, 157)


@pytest.mark.parametrize(
    "change",
    [
        lambda n, other: n.load_state_dict(other.state_dict()),
        lambda n, other: [n.get_parameter(k).lerp_(p, 0.5) for k, p in other.named_parameters()],
        lambda n, other: n.double(),
        lambda n, other: setattr(n, "conv2", other.conv2),
    ],
    ids=["loaded", "averaged", "double", "replaced"],
)
def test_what_is_kept_of_frozen_weights_ends_with_them(change: object) -> None:
    """A frozen network keeps its weights' transforms, and makes them anew when they change."""
    network = _interpreter()
    torch.manual_seed(1)
    other = Interpreter(K, C).eval().requires_grad_(False)
    maps = _maps(157, network.maps)
    with torch.inference_mode():
        before = network(maps, 157).activations
        kept = network.conv2._tiles[1]
        assert torch.equal(network(maps, 157).activations, before)
        assert network.conv2._tiles[1] is kept
        change(network, other)  # type: ignore[operator]
        now = tuple(m.to(network.conv2.weight.dtype) for m in maps)
        after = network(now, 157).activations
    want = reference.published_activations(
        network.state_dict(), dict(zip(network.maps, now, strict=True)), 157
    )
    torch.testing.assert_close(after, want, atol=1e-5, rtol=1e-5)
    assert not torch.equal(after.float(), before)


def test_nothing_is_kept_of_weights_that_learn() -> None:
    """They change with every step, and a gradient must reach them."""
    network = _interpreter().requires_grad_(True)
    network(_maps(157, network.maps), 157)
    assert not hasattr(network.conv2, "_tiles")


def test_memory_order_of_the_maps_does_not_matter(usual: Interpreter) -> None:
    """channels_last or not, the same activations."""
    maps = _maps(160, usual.maps)
    last = tuple(m.contiguous(memory_format=torch.channels_last) for m in maps)
    torch.testing.assert_close(usual(last, 160).activations, usual(maps, 160).activations)


def test_gradients_are_those_of_the_published_order() -> None:
    """Not only H but its gradients agree, so that training is the published training too."""
    network = _interpreter().requires_grad_(True)
    maps = _maps(157, network.maps)
    weight = torch.rand(2, K, 157, generator=torch.Generator().manual_seed(1))
    (network.activations(maps, 157) * weight).sum().backward()
    got = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    state = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    named = dict(zip(network.maps, maps, strict=True))
    (reference.published_activations(state, named, 157) * weight).sum().backward()
    assert {"conv1.weight", "conv2.bias", "conv6.weight", "conv7.weight", "conv8.bias"} <= set(got)
    for name, gradient in got.items():
        want = state[name].grad
        assert want is not None
        torch.testing.assert_close(gradient, want, atol=1e-5 * want.abs().max().item(), rtol=1e-3)


def test_names_are_those_of_the_published_weights(usual: Interpreter) -> None:
    """The names and shapes of the published checkpoints, attention under `pool`, so that their
    weights fit without a translation of the network."""
    shapes = {name: tuple(p.shape) for name, p in usual.state_dict().items()}
    assert shapes["conv1.weight"] == (256, 256, 3, 3)
    assert shapes["conv2.weight"] == (256, 512, 3, 3)
    assert shapes["conv7.weight"] == (128, 512, 3, 3)
    assert shapes["conv8.weight"] == (128, 128, 4, 1)
    assert shapes["conv6.weight"] == (256, 256, 4, 1)
    assert shapes["conv4.weight"] == (K, 256, 5)
    assert shapes["conv5.weight"] == (K, K, 5)
    assert shapes["fc1.weight"] == (C, K)
    assert "fc1.bias" not in shapes
    assert shapes["pool.attention_V.0.weight"] == (256, K)
    assert shapes["pool.attention_U.0.weight"] == (256, K)
    assert shapes["pool.attention_weights.weight"] == (1, 256)


def test_activations_are_never_negative(usual: Interpreter) -> None:
    """H >= 0, whatever the maps hold, and not all of it is zero."""
    maps = tuple(m - 0.5 for m in _maps(160, usual.maps))
    h = usual(maps, 160).activations
    assert h.min() >= 0
    assert h.max() > 0


def test_logits_are_theta_z(usual: Interpreter) -> None:
    """g(x) = Theta z, without a bias, and z is the pooled H."""
    output = usual(_maps(160, usual.maps), 160)
    assert usual.theta.shape == (C, K)
    torch.testing.assert_close(output.pooled, usual.pool(output.activations))
    torch.testing.assert_close(output.logits, output.pooled @ usual.theta.T)


# --- pooling ----------------------------------------------------------------------------------


def test_attention_is_the_papers() -> None:
    """z agrees with the softmax over frames written out, frame after frame."""
    torch.manual_seed(1)
    pool = AttentionPooling(K, 16).requires_grad_(False)
    h = 3 * torch.rand(3, K, 11)
    got = pool(h)
    for i in range(3):
        want = reference.attention(pool.state_dict(), h[i])
        torch.testing.assert_close(got[i], want, atol=1e-5, rtol=1e-4)


def test_attention_is_a_convex_combination_of_frames() -> None:
    """Pooling the identity gives the weights themselves: they are positive and sum to 1; and of
    anything, z lies between the least and the greatest activation of each component."""
    torch.manual_seed(2)
    frames = 6
    pool = AttentionPooling(frames, 16).requires_grad_(False)
    weights = pool(torch.eye(frames).unsqueeze(0))
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)
    h = 10 * torch.rand(4, frames, 9)
    z = pool(h)
    assert (z >= h.amin(dim=2) - 1e-5).all() and (z <= h.amax(dim=2) + 1e-5).all()


def test_attention_does_not_depend_on_the_order_of_frames() -> None:
    """The same frames in another order, the same z."""
    torch.manual_seed(3)
    pool = AttentionPooling(K, 16).requires_grad_(False)
    h = torch.rand(2, K, 9)
    torch.testing.assert_close(pool(h[:, :, torch.randperm(9)]), pool(h))


@pytest.mark.parametrize("pooling", ["attention", "max"])
def test_a_network_that_skips_silence_says_nothing_of_it(pooling: str) -> None:
    """No activations in silent frames, the published ones in the others, and z is pooled of them as
    published; of a clip that is silent everywhere z is zero, and so are its logits."""
    published = _interpreter(pooling=pooling)
    network = _interpreter(pooling=pooling, skip_silence=True)
    network.load_state_dict(published.state_dict())
    maps = _maps(160, network.maps)
    audible = torch.zeros(2, 160, dtype=torch.bool)
    audible[0, 40:90] = True
    skipping, whole = network(maps, 160, audible), published(maps, 160, audible)
    assert torch.equal(skipping.activations[0, :, 40:90], whole.activations[0, :, 40:90])
    assert not skipping.activations[0, :, :40].any() and not skipping.activations[0, :, 90:].any()
    assert torch.equal(skipping.pooled, published.pool(skipping.activations))
    assert (
        not skipping.activations[1].any()
        and not skipping.pooled[1].any()
        and not skipping.logits[1].any()
    )
    # The published network takes no notice of what can be heard.
    assert torch.equal(whole.pooled, published(maps, 160).pooled)
    assert not torch.equal(skipping.pooled, whole.pooled)


def test_a_network_that_skips_silence_must_be_told_where_it_is() -> None:
    """It does not guess that all frames are to be heard."""
    network = _interpreter(skip_silence=True)
    with pytest.raises(ValueError, match="must be told where it is"):
        network(_maps(160, network.maps), 160)


def test_gradients_pass_a_clip_without_sound() -> None:
    """Digital silence among the training clips leaves all gradients finite, and has none itself."""
    network = _interpreter(skip_silence=True).requires_grad_(True)
    audible = torch.ones(2, 160, dtype=torch.bool)
    audible[1] = False
    maps = tuple(m.requires_grad_() for m in _maps(160, network.maps))
    network(maps, 160, audible).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for m in maps:
        assert m.grad is not None and m.grad[0].any() and not m.grad[1].any()


def test_max_pooling_is_the_greatest_activation() -> None:
    """Each component's over time; and the interpreter that is told so uses it."""
    h = torch.tensor([[[0.0, 2.0, 1.0], [0.5, 0.0, 0.25]]])
    assert MaxPooling()(h).tolist() == [[2.0, 0.5]]
    network = _interpreter(pooling="max")
    output = network(_maps(160, network.maps), 160)
    assert output.pooled.equal(output.activations.amax(dim=2))
    assert not any(name.startswith("pool.") for name in network.state_dict())


# --- the matrix -------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize(("short", "long"), [(1, 2), (4, 8), (13, 26), (5, 5)])
def test_interpolation_matrix_is_interpolation_and_then_a_convolution(
    short: int, long: int, taps: int
) -> None:
    """The matrix on the taps' outputs equals ``conv1d(interpolate(x))`` with zero padding."""
    g = torch.Generator().manual_seed(short)
    x = torch.randn(2, 3, short, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 3, taps, generator=g, dtype=torch.float64)
    up = F.interpolate(x, size=long, mode="linear", align_corners=True)
    want = F.conv1d(up, weight, padding=taps // 2)
    each = torch.einsum("ocd,bcs->bsdo", weight, x).reshape(2, short * taps, 4)
    matrix = interpolation_matrix(short, long, taps, x.device, x.dtype)
    torch.testing.assert_close((matrix @ each).transpose(1, 2), want)


def test_what_is_kept_between_calls_can_be_trained_with() -> None:
    """A network that first heard clips to measure is trained afterwards, in the same process:
    matrices kept from the first call take part in the second one's gradients."""
    interpolation_matrix.cache_clear()
    network = _interpreter().train().requires_grad_(True)
    maps = _maps(64, network.maps)
    with torch.inference_mode():
        network(maps, 64)
    network(maps, 64).logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())

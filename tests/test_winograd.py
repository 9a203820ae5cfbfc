"""`l2i.models.winograd`: tiles give what the convolution they are made from gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from l2i.models.winograd import TiledConv2d, matrices


def _conv(inner: int = 6, out: int = 5, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inner, out, 3, padding=1, bias=bias).requires_grad_(False)


def _image(batch: int, frames: int, bands: int, inner: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(frames)
    x = torch.randn(batch, inner, frames, bands, generator=g)
    return x.contiguous(memory_format=torch.channels_last)


def test_six_products_are_a_filter_of_three_taps() -> None:
    """F(4, 3) itself, against the filter written out, in double precision."""
    a, b, g = matrices(torch.float64)
    d, taps = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    want = torch.stack([(d[i : i + 3] * taps).sum() for i in range(4)])
    torch.testing.assert_close(a @ ((g @ taps) * (b @ d)), want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 6, 7, 13, 26])
@pytest.mark.parametrize("bands", [4, 8, 16])
def test_tiles_are_the_convolution(batch: int, frames: int, bands: int) -> None:
    """Whatever is left of the last tile; to double precision, so that no tile is a little off."""
    conv = _conv().double()
    x = _image(batch, frames, bands).double()
    got = TiledConv2d(conv)(x)
    torch.testing.assert_close(got, conv(x), atol=1e-12, rtol=1e-12)
    assert got.stride(1) == 1, "channels last"


def test_in_single_precision_they_are_it_to_rounding() -> None:
    """With as many channels as the classifier has there: tiles add up other sums, whose rounding is
    some tens of that of the convolution itself, whatever kernels a processor has for either."""
    conv = _conv(256, 256)
    x = _image(2, 26, 8, 256)
    want = copy.deepcopy(conv).double()(x.double())
    own = (conv(x) - want).abs().max()
    assert (TiledConv2d(conv)(x) - want).abs().max() < 50 * own
    assert own < 1e-5 * want.abs().max()


@pytest.mark.parametrize("frames", [3, 5, 6, 7, 8])
def test_clips_stay_apart(frames: int) -> None:
    """What is wrong with one clip is not with its neighbours, in no bit."""
    tiled = TiledConv2d(_conv())
    x = _image(3, frames, 8)
    spoilt = x.clone()
    spoilt[1] = torch.nan
    good, bad = tiled(x), tiled(spoilt)
    assert bad[1].isnan().all()
    assert torch.equal(bad[[0, 2]], good[[0, 2]])


def test_without_a_bias() -> None:
    """There is none to add."""
    conv = _conv(bias=False)
    x = _image(2, 7, 4)
    torch.testing.assert_close(TiledConv2d(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["bands", "gradient", "reduced"])
def test_elsewhere_it_is_the_plain_convolution(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bands that tiles do not fill, where a gradient is wanted, in reduced precision."""

    def refuse(*_: object) -> None:
        raise AssertionError("a tile was made")

    monkeypatch.setattr("l2i.models.winograd.matrices", refuse)
    conv = _conv()
    tiled = TiledConv2d(copy.deepcopy(conv))
    x = _image(2, 7, 6 if how == "bands" else 8)
    if how == "gradient":
        x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "reduced"):
        got, want = tiled(x), conv(x)
    assert torch.equal(got, want)
    if how == "gradient":
        got.sum().backward()
        assert x.grad is not None and x.grad.abs().max() > 0
    with pytest.raises(AssertionError, match="tile"):
        tiled(_image(2, 7, 8))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 3, 2),
        nn.Conv2d(3, 3, 3),
        nn.Conv2d(3, 3, 3, padding=1, stride=2),
        nn.Conv2d(3, 3, 3, padding=1, dilation=2),
        nn.Conv2d(3, 3, 3, padding=1, groups=3),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
    ],
    ids=["2x2", "no padding", "stride", "dilation", "groups", "circular"],
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    """Rather than computed as another."""
    with pytest.raises(ValueError, match="3x3"):
        TiledConv2d(conv)

"""The VGG-like classifier of Kumar, Khadkevich, Fügen 2018 (arXiv 1711.01369), with L2I's head.

The way of a clip, frames first, for T = 431 frames and M = 128 mel bands::

    log-mel           [B,    1, 431, 128]
    layer1,2   + pool [B,   16, 431, 128] -> [B,  16, 215, 64]
    layer4,5   + pool [B,   32, 215,  64] -> [B,  32, 107, 32]
    layer7,8   + pool [B,   64, 107,  32] -> [B,  64,  53, 16]
    layer10,11 + pool [B,  128,  53,  16] -> [B, 128,  26,  8]    hidden map "128"
    layer13,14 + pool [B,  256,  26,   8] -> [B, 256,  13,  4]    hidden map "256"
    layer16    + pool [B,  512,  13,   4] -> [B, 512,   6,  2]    hidden map "512"
    layer18, 2x2      [B, 1024,   5,   1]
    head: 1x1 to 256, ReLU, global max pool, dropout, linear -> logits [B, C]

A network may be narrower: each of these numbers of channels times its `width`.

The hidden maps are taken before the pooling that follows them. Names of the layers are those
of the published weights, so that a state dict fits without a translation (layers 3, 6, 9, 12,
15 and 17 are the poolings).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from l2i.models.winograd import TiledConv2d

HIDDEN_MAPS = {"512": "layer16", "256": "layer14", "128": "layer11"}
"""Name of a hidden map -> the layer whose output it is."""

MIN_FRAMES = 128
"""Six halvings and a 2x2 convolution need so many frames."""

_WIDTHS = {1: 16, 2: 16, 4: 32, 5: 32, 7: 64, 8: 64, 10: 128, 11: 128, 13: 256, 14: 256, 16: 512}
_LAST = 1024
_POOLS = (3, 6, 9, 12, 15, 17)
# Where a frozen network's channels are many enough for tiles (see `l2i.models.winograd`). Sixteen
# clips take less time by them, a single one a little more: their weights are read for it alone.
_TILED = ("layer11", "layer13", "layer14", "layer16")


BLOCKS = len(_POOLS)
"""How many blocks the trunk has: convolutions of one width, and the pooling that ends them."""


def channels(published: int, width: float) -> int:
    """How many channels a network of that width has where the published one has so many.

    Examples
    --------
    >>> channels(512, 1.0), channels(512, 0.25), channels(16, 0.01)
    (512, 128, 1)
    """
    return max(1, round(published * width))


def _layers(blocks: int) -> int:
    """How many layers so many blocks have."""
    return _POOLS[blocks - 1] if blocks else 0


def last_map_size(frames: int, bands: int) -> int:
    """How many values of a channel of the trunk's last map there are per clip.

    A batch norm can learn nothing from one value: torch refuses to train on one clip where
    this is 1.
    """
    step = 2 ** len(_POOLS)
    return (frames // step - 1) * (bands // step - 1)


def _rectified_late(number: int) -> bool:
    """Whether a layer is rectified after the pooling that follows it.

    The greatest of what is rectified is the greatest, rectified, and so are the gradients: a
    quarter of the values. Not where what lies between is read.
    """
    return number + 1 in _POOLS and f"layer{number}" not in HIDDEN_MAPS.values()


class _Trunk(nn.Sequential):
    def __init__(self, width: float) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inner = 1
        for number in range(1, 18):
            name = f"layer{number}"
            if number in _POOLS:
                pool = nn.MaxPool2d(2)
                late = _rectified_late(number - 1)
                layers[name] = nn.Sequential(pool, nn.ReLU(inplace=True)) if late else pool
                continue
            out = channels(_WIDTHS[number], width)
            block = [nn.Conv2d(inner, out, 3, padding=1), nn.BatchNorm2d(out)]
            layers[name] = nn.Sequential(*block, *([] if _rectified_late(number) else [nn.ReLU()]))
            inner = out
        out = channels(_LAST, width)
        layers["layer18"] = nn.Sequential(nn.Conv2d(inner, out, 2), nn.BatchNorm2d(out), nn.ReLU())
        super().__init__(layers)


class VGG(nn.Module):
    """Trunk and head.

    Parameters
    ----------
    n_classes : int
        C.
    head : int
        Channels of the 1x1 convolution.
    dropout : float
        Between pooling and the linear layer.
    width : float
        Channels of the trunk, as a share of the published network's.
    """

    def __init__(
        self, n_classes: int, *, head: int = 256, dropout: float = 0.2, width: float = 1.0
    ) -> None:
        super().__init__()
        self.width = width
        self.netx = _Trunk(width)
        self.layer = nn.Sequential(nn.Conv2d(channels(_LAST, width), head, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(head, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel [B, 1, T, M] in dB to logits [B, C]; T at least `MIN_FRAMES`."""
        return self.above(log_mel, 0)

    def above(self, y: Tensor, blocks: int) -> Tensor:
        """From what the first `blocks` of the trunk's blocks (see `BLOCKS`) make of a log-mel to
        logits [B, C]."""
        return self._from(y, _layers(blocks))

    def after(self, y: Tensor, layer: str) -> Tensor:
        """From what a layer of the trunk gives, ``layer16`` say, to logits [B, C]."""
        return self._from(y, int(layer.removeprefix("layer")))

    def _from(self, y: Tensor, number: int) -> Tensor:
        for layer in list(self.netx.children())[number:]:
            y = layer(y)
        y = F.relu(self.layer(y)).amax(dim=(2, 3))
        return self.fc(self.dropout(y))

    def block(self, number: int) -> list[nn.Module]:
        """The layers of one of the trunk's blocks, from 0."""
        return list(self.netx.children())[_layers(number) : _layers(number + 1)]


class _Patches(nn.Module):
    """A convolution of a small image as one matrix product of its patches, half its time there."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.size = conv.kernel_size
        flat = conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        self.weight, self.bias = nn.Parameter(flat), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T, M] to [B, out, T - t + 1, M - m + 1] of a kernel of t by m."""
        t, m = self.size
        patches = x.permute(0, 2, 3, 1).unfold(1, t, 1).unfold(2, m, 1)  # [B, T', M', C, t, m]
        # One axis of patches: with several there would be one product per patch.
        rows = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.weight.shape[1])
        y = F.linear(rows, self.weight, self.bias)
        return y.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


class _RectifiedConv2d(nn.Module):
    """A convolution and its ReLU, at once where a CPU's library can."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T, M] to [B, out, T, M]."""
        c = self.conv
        # What torch's compiler calls. It knows no gradient, no other dtype and no autocast.
        at_once = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
        if (
            at_once is None
            or not torch.backends.mkldnn.enabled
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
            or (x.requires_grad and torch.is_grad_enabled())
        ):
            return F.relu_(c(x))
        shape = list(c.padding), list(c.stride), list(c.dilation), c.groups
        return at_once(x, c.weight, c.bias, *shape, "relu", [], "")


class _RectifiedMaxPool(nn.Module):
    """ReLU and max-pooling by 2, in the other order and without the indices a gradient needs."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T, M] to [B, C, T // 2, M // 2]."""
        if x.requires_grad and torch.is_grad_enabled():
            # The maxima's own gradient shares what is equal, by five passes over the values.
            return F.relu_(F.max_pool2d(x, 2))
        t, m = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        y = torch.maximum(x[:, :, 0:t:2], x[:, :, 1:t:2])
        return torch.maximum(y[..., 0:m:2], y[..., 1:m:2]).relu_()


def fold_batch_norm(model: VGG) -> VGG:
    """A copy for inference, batch norms folded into the convolutions before them.

    In evaluation a batch norm is one multiplication and one addition per channel, which a
    convolution can do along with its own: ``W' = W g / sqrt(v + e)``,
    ``b' = (b - m) g / sqrt(v + e) + beta``. Same outputs to rounding, and the first layers,
    which are bound by memory and not by arithmetic, take about half the time.
    """
    import copy

    trunk = nn.Sequential()
    folded = copy.deepcopy(model, {id(model.netx): trunk})  # All but the trunk.
    blocks: Any = model.netx.named_children()
    for name, block in blocks:
        number = int(name.removeprefix("layer"))
        if number in _POOLS:
            late = _rectified_late(number - 1)
            trunk.add_module(name, _RectifiedMaxPool() if late else copy.deepcopy(block))
            continue
        conv, norm = block[0], block[1]
        shape = conv.in_channels, conv.out_channels, conv.kernel_size
        fused = nn.Conv2d(*shape, padding=conv.padding, device="meta")
        fused.weight, fused.bias = fuse_conv_bn_weights(
            *(conv.weight, conv.bias, norm.running_mean, norm.running_var),
            *(norm.eps, norm.weight, norm.bias),
        )
        layer: nn.Module = fused
        if name in _TILED:
            layer = TiledConv2d(fused)
        elif name == "layer18":
            layer = _Patches(fused)
        if not _rectified_late(number):
            tiled = nn.Sequential(layer, nn.ReLU(inplace=True))
            layer = _RectifiedConv2d(fused) if layer is fused else tiled
        trunk.add_module(name, layer)
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # The new blocks are born in training mode.
    return folded.eval().requires_grad_(False)


def first_blocks(model: VGG, blocks: int) -> nn.Sequential:
    """A copy for inference of the trunk's first blocks, folded: log-mel [B, 1, T, M] to what
    `VGG.above` goes on from."""
    return nn.Sequential(*list(fold_batch_norm(model).netx.children())[: _layers(blocks)])

"""Winograd's minimal filtering F(4, 3), for a CPU's float32.

Four outputs of a filter of three taps come from six products instead of twelve::

    y = A' ((G g) * (B' d))      for six inputs d and taps g

with interpolation at 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, arXiv 1509.09308). Over
both axes of an image 36 products give 16 outputs, a quarter of what a 3x3 convolution takes; what
is computed besides, and the memory that goes by, make it worth while only where channels are many.

Reduced precision would lose too much in the sums of a tile; GPUs' libraries have their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

_A = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
_B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


@lru_cache(maxsize=4)
def matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A' [4, 6], B' [6, 6] and G [6, 3]."""
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        a, b, g = (torch.tensor(m, dtype=torch.float64).to(dtype) for m in (_A, _B, _G))
        return a, b, g


def worthwhile(x: Tensor, rows: int) -> bool:
    """Whether `rows` rows of x can be computed in tiles of four, and should."""
    return rows % 4 == 0 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def kept_with(conv: nn.Conv2d, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """What a convolution's weights are transformed to.

    For frozen weights the result is kept beside them until they change.
    """
    weight = conv.weight
    if weight.requires_grad or weight.is_inference():
        return transform(weight)
    state = weight.data_ptr(), weight._version
    kept: tuple[tuple[int, int], Tensor] | None = getattr(conv, "_tiles", None)
    if kept is None or kept[0] != state:
        # Outside of inference mode, where what is made is good for nothing else.
        with torch.inference_mode(False), torch.no_grad():
            kept = state, transform(weight)
        conv._tiles = kept  # type: ignore[assignment]
    return kept[1]


def _both_ways(weight: Tensor) -> Tensor:
    """G g G' of each pair of channels: [out, C, 3, 3] to [36, C, out]."""
    out, inner = weight.shape[:2]
    _, _, g = matrices(weight.dtype)
    return torch.einsum("pt,qm,octm->pqco", g, g, weight).reshape(36, inner, out).contiguous()


class TiledConv2d(nn.Conv2d):
    """A 3x3 convolution of padding 1, by tiles of four by four where that is quicker.

    The same to float32's rounding. Tiles hand no gradient on: where one is wanted, and in reduced
    precision, and on a GPU, it is the convolution it is made from.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        shape = conv.kernel_size, conv.padding, conv.stride, conv.dilation
        if (
            shape != ((3, 3), (1, 1), (1, 1), (1, 1))
            or conv.groups != 1
            or conv.padding_mode != "zeros"
        ):
            raise ValueError(f"Tiles are of 3x3 convolutions of padding 1, not of {conv}.")
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T, M] to [B, out, T, M], memory channels_last."""
        batch, inner, frames, bands = x.shape
        if not worthwhile(x, bands) or (x.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        a, b, _ = matrices(x.dtype)
        across, long = bands // 4, -(-(frames + 2) // 4)
        tiles, row = batch * long, bands * inner
        # Clips one after the other, each a whole number of tiles long and begun by two frames of
        # zeros, which are all that the last tile of the clip before reaches: clips stay apart.
        flat = x.new_zeros((4 * tiles + 2) * row)
        padded = flat[: 4 * tiles * row].view(batch, 4 * long, bands, inner)
        padded[:, 2 : frames + 2] = x.permute(0, 2, 3, 1)
        # Tiles overlap by two frames: six frames each, four frames on.
        overlapping = flat.as_strided((tiles, 6, row), (4 * row, row, 1))
        in_time = torch.bmm(b.expand(tiles, 6, 6), overlapping).view(6 * tiles, bands, inner)
        v = x.new_empty(across, 6 * tiles, 6, inner)
        for tile in range(across):
            low, high = max(4 * tile - 1, 0), min(4 * tile + 5, bands)
            part = b[:, low - 4 * tile + 1 : high - 4 * tile + 1]  # Beyond the bands are zeros.
            torch.bmm(part.expand(6 * tiles, 6, high - low), in_time[:, low:high], out=v[tile])
        products = torch.bmm(
            v.view(across * tiles, 36, inner).transpose(0, 1), kept_with(self, _both_ways)
        )  # [36, across * tiles, out]
        if self.bias is not None:
            # A polynomial that is one at 1, and zero at the other points, is one throughout.
            products[7] += self.bias
        y = torch.mm(torch.kron(a, a), products.view(36, -1))
        y = y.view(4, 4, across, batch, long, self.out_channels).permute(3, 4, 0, 2, 1, 5)
        y = y.reshape(batch, 4 * long, bands, self.out_channels)[:, 1 : frames + 1]
        return y.permute(0, 3, 1, 2)

"""L-MAC's decoder: hidden maps of a classifier to a mask, sized for the maps it finds.

The maps are taken from the deepest up, each added to what came before at its own resolution; three
doublings later a mask of mel rows is spread over the spectrogram's bins::

    map_1 (deepest)        norm, conv 3x3, ReLU                                    -> y
    map_l                  y to the size of map_l, conv 3x3, ReLU
                           + norm, conv 3x3 of map_l, ReLU                         -> y
    three times            y to a size between, conv 3x3 of half the width, ReLU   -> y
    [B, w, 128, T]         conv 5x5, rows to bins on the mel scale, conv 5x1       -> [B, F, T]
    sigmoid                                                                        -> mask

Source: Paissan, Ravanelli, Subakan, *Listenable Maps for Audio Classifiers*, ICML 2024, arXiv
2403.13086. Differences: the published one is of transposed convolutions that fit one classifier
(237 million weights); this one fits any maps, of which each is normalised over the clip (GroupNorm
of one group), as classifiers give them of any scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.mel import interpolation, mel_places

ROWS = 128
"""How many rows a mask has before they become bins."""
_UPWARDS = 3
_EPS = 1e-8


class MaskDecoder(nn.Module):
    """Maps to a mask.

    Parameters
    ----------
    maps : sequence of str
        Names of the layers that it reads, the deepest last.
    channels : sequence of int
        D_l of each.
    n_bins, sample_rate : int
        The spectrogram that is masked has them.
    width : int
        Channels while maps are read; halved with each doubling.
    """

    def __init__(
        self,
        *,
        maps: Sequence[str],
        channels: Sequence[int],
        n_bins: int,
        sample_rate: int,
        width: int,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.n_bins, self.sample_rate = n_bins, sample_rate
        self.norms = nn.ModuleList(nn.GroupNorm(1, d, eps=_EPS, affine=False) for d in channels)
        self.reads = nn.ModuleList(nn.Conv2d(d, width, 3, padding=1) for d in channels)
        self.joins = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels[1:])
        widths = [max(8, width >> i) for i in range(_UPWARDS + 1)]
        self.ups = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], 1, 5, padding=2)
        self.bins = nn.Conv2d(1, 1, (5, 1), padding=(2, 0))

    def forward(self, maps: Sequence[Tensor], frames: int) -> Tensor:
        """Mask [B, F, T] in [0, 1] of maps [B, D_l, F_l, T_l], in the order of their names."""
        read = [
            F.relu(conv(norm(x)))
            for norm, conv, x in zip(self.norms, self.reads, maps, strict=True)
        ]
        y = read[-1]
        for join, x in zip(self.joins, reversed(read[:-1]), strict=True):
            y = F.relu(join(resized(y, x.shape[2], x.shape[3]))) + x
        sizes = sizes_between((y.shape[2], y.shape[3]), (ROWS, frames), len(self.ups))
        for size, up in zip(sizes, self.ups, strict=True):
            y = F.relu(up(resized(y, *size)))
        logits = self.out(resized(y, ROWS, frames))
        weight = mel_rows(self.n_bins, self.sample_rate, logits.device)
        return self.bins(weight @ logits).squeeze(1).sigmoid()


def resized(x: Tensor, rows: int, columns: int) -> Tensor:
    """X [B, C, R, T] with other numbers of rows and columns, interpolated linearly."""
    return F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False)


def sizes_between(
    start: tuple[int, int], end: tuple[int, int], steps: int
) -> list[tuple[int, int]]:
    """Rows and columns after each of so many steps of one ratio; a size that is greater than its
    end is that at once.

    >>> sizes_between((2, 9), (16, 4), 3)
    [(4, 4), (8, 4), (16, 4)]
    """

    def after(step: int, a: int, b: int) -> int:
        return max(a, round(a * (b / a) ** (step / steps))) if b > a else b

    return [
        (after(step, start[0], end[0]), after(step, start[1], end[1]))
        for step in range(1, steps + 1)
    ]


def mel_rows(n_bins: int, sample_rate: int, device: torch.device) -> Tensor:
    """Weights [F, R] by which bins are interpolated between rows that are even on the mel scale."""
    return interpolation(mel_places(n_bins, sample_rate) * (ROWS - 1), ROWS).to(device)

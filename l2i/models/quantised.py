"""PIQ's network: one hidden map, quantised by the codes of one class, to a mask.

::

    map [B, D, F_l, T_l]   map + (conv 3x3, norm, ReLU, conv 1x1, norm)
                           conv 4x4 of stride 2                                 -> z
    z                      the nearest code of those that the class may use    -> z_q
    z_q                    transposed conv 4x4 of stride 2
                           four times to a size between, conv 3x3, ReLU, norm
                           conv 3x3, rows to bins on the mel scale             -> mask [B, F, T]

The codes are divided evenly among the classes; one more is for all. As an index of another class is
forbidden, what a mask shows is of the class.

Source: Paissan, Subakan, Ravanelli, *Posthoc Interpretation via Quantization*, 2023, arXiv
2303.12659. Differences: sizes are interpolated, so that maps of any classifier fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from l2i.models.mask_decoder import ROWS, mel_rows, resized, sizes_between

_LAST = 12


class QuantisedMask(nn.Module):
    """A map and a class to a mask.

    Parameters
    ----------
    maps : sequence of str
        The name of the one layer that it reads.
    channels : int
        D of its map.
    n_classes : int
    n_bins, sample_rate : int
        The spectrogram that is masked has them.
    codes : int
        In all; each class has one at least.
    """

    def __init__(
        self,
        *,
        maps: Sequence[str],
        channels: int,
        n_classes: int,
        n_bins: int,
        sample_rate: int,
        codes: int,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.n_bins, self.sample_rate = n_bins, sample_rate
        self.each = max(1, codes // n_classes)
        d = channels
        self.adapter = nn.Sequential(
            nn.Conv2d(d, d, 3, padding=1),
            nn.BatchNorm2d(d),
            nn.ReLU(),
            nn.Conv2d(d, d, 1),
            nn.BatchNorm2d(d),
        )
        self.down = nn.Conv2d(d, d, 4, 2, padding=1)
        # The first is for all classes.
        self.codes = nn.Parameter(torch.empty(1 + self.each * n_classes, d))
        nn.init.uniform_(self.codes, -1 / codes, 1 / codes)
        self.up = nn.ConvTranspose2d(d, d, 4, 2, padding=1)
        widths = [d, *(max(_LAST, d >> i) for i in (1, 2, 3)), _LAST]
        self.widen = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(b))
            for a, b in pairwise(widths)
        )
        self.out = nn.Conv2d(_LAST, 1, 3, padding=1)

    def forward(self, map_: Tensor, classes: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the mask [B, F, T], of maps [B, D, F_l, T_l] and classes [B]; and what was
        quantised, and its codes [B, D, F_z, T_z]."""
        x = resized(map_, max(2, map_.shape[2]), max(2, map_.shape[3]))
        z = self.down(x + self.adapter(x))
        q = self.codes[self.nearest(z, classes)].permute(0, 3, 1, 2)
        # The gradient of what is quantised is that of its code.
        y = self.up(z + (q - z).detach())
        sizes = sizes_between((y.shape[2], y.shape[3]), (ROWS, frames), len(self.widen))
        for size, conv in zip(sizes, self.widen, strict=True):
            y = conv(resized(y, *size))
        weight = mel_rows(self.n_bins, self.sample_rate, y.device)
        return (weight @ self.out(y)).squeeze(1), z, q

    @torch.no_grad()
    def nearest(self, z: Tensor, classes: Tensor) -> Tensor:
        """The codes [B, F_z, T_z], int64, that are nearest of those that each class may use."""
        batch, d, rows, columns = z.shape
        flat = z.permute(0, 2, 3, 1).reshape(batch, -1, d)
        own = 1 + classes[:, None] * self.each + torch.arange(self.each, device=z.device)
        allowed = torch.cat([torch.zeros_like(own[:, :1]), own], dim=1)  # [B, 1 + each]
        place = torch.cdist(flat, self.codes[allowed]).argmin(dim=2)
        return allowed.gather(1, place).view(batch, rows, columns)

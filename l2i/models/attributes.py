"""FLINT's networks: a classifier's hidden maps to a few attributes that tell its answer.

::

    maps       each normalised, conv 1x1, resized to the largest  -> joined [B, D, R, T_1]
    joined     conv 3x3, ReLU, conv 3x3, ReLU                     -> attribute maps [B, J, R, T_1]
    phi        means of the attribute maps                        -> attributes [B, J], >= 0
    answer     phi times a matrix                                 -> logits [B, C]
    decoder    phi times a matrix, 4 x 4 doubled three times      -> coarse spectrogram [B, 32, 32]

With the built-in classifier's three maps, ten classes and the usual settings they have 0.36 million
weights.

Source: Parekh, Mozharovskyi, d'Alché-Buc, *A Framework to Learn with Interpretation*, NeurIPS
2021, arXiv 2010.09345. Differences: there attributes come of a matrix on pooled maps; here each is
the mean of a map of its own, which says where it was heard.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.mask_decoder import ROWS, mel_rows, resized

GRID = 32
"""Rows and columns of what the decoder makes."""
_EPS = 1e-8


class Attributes(nn.Module):
    """Maps to attributes, and what they say.

    Parameters
    ----------
    maps : sequence of str
        Names of the layers that it reads.
    channels : sequence of int
        D_l of each.
    n_classes, n_bins, sample_rate : int
        The classifier's, and the spectrogram's.
    attributes : int
        J.
    width : int
        Channels that each map is read with.
    """

    def __init__(
        self,
        *,
        maps: Sequence[str],
        channels: Sequence[int],
        n_classes: int,
        n_bins: int,
        sample_rate: int,
        attributes: int,
        width: int,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.n_bins, self.sample_rate = n_bins, sample_rate
        self.norms = nn.ModuleList(nn.GroupNorm(1, d, eps=_EPS, affine=False) for d in channels)
        self.reads = nn.ModuleList(nn.Conv2d(d, width, 1) for d in channels)
        joined = width * len(channels)
        self.attend = nn.Sequential(
            nn.Conv2d(joined, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, attributes, 3, padding=1),
            nn.ReLU(),
        )
        self.theta = nn.Parameter(torch.empty(n_classes, attributes))
        nn.init.xavier_uniform_(self.theta)
        self.spread = nn.Linear(attributes, 16 * 64)
        self.decode = nn.Sequential(
            *(
                layer
                for a, b in ((64, 32), (32, 16), (16, 8))
                for layer in (nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
            ),
            nn.Conv2d(8, 1, 3, padding=1),
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Attribute maps [B, J, R, T_1], attributes [B, J] and logits [B, C] of maps."""
        rows, columns = (max(m.shape[axis] for m in maps) for axis in (2, 3))
        read = [
            resized(F.relu(conv(norm(x.contiguous()))), rows, columns)
            for norm, conv, x in zip(self.norms, self.reads, maps, strict=True)
        ]
        places: Tensor = self.attend(torch.cat(read, dim=1))
        phi = places.mean((2, 3))
        return places, phi, phi @ self.theta.T

    def decoded(self, phi: Tensor) -> Tensor:
        """Coarse spectrogram [B, 32, 32] of attributes [B, J]."""
        return self.decode(self.spread(phi).view(-1, 64, 4, 4)).squeeze(1)

    def coarse(self, size: Tensor) -> Tensor:
        """What is decoded: log(1 + ``|X|``) of magnitudes [B, F, T], mean of mel rows and times."""
        weight = mel_rows(self.n_bins, self.sample_rate, size.device).T
        weight = weight / weight.sum(1, keepdim=True).clamp_min(_EPS)
        return F.adaptive_avg_pool2d((weight @ size.log1p()).unsqueeze(1), (GRID, GRID)).squeeze(1)

    def bins(self, places: Tensor, frames: int) -> Tensor:
        """Maps [B, R, T_1] as bins [B, F, T]; their rows are even on the mel scale."""
        rows = resized(places.unsqueeze(1), ROWS, frames).squeeze(1)
        return mel_rows(self.n_bins, self.sample_rate, places.device) @ rows

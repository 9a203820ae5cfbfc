"""LMAC-TD's network: a waveform to its explanation, by a mask of learnt filters' outputs.

::

    clip x [B, S]      conv of k samples, every k/2, ReLU                 -> enc(x) [B, N, L]
    maps               normalised, conv 3x3, upwards to the largest, mean of rows,
                       conv and twice as many frames, three times         -> u [B, N, L]
    (1 - a) enc + a u  chunks that overlap by half; a transformer within
                       each chunk, another one along the chunks; sigmoid  -> mask [B, N, L]
    explanation        transposed conv of mask enc(x);  removal: of (1 - mask) enc(x)

Encoder and decoder are an autoencoder that is learnt first. With 64 filters, one block of two and
two layers, 64 channels and the built-in classifier's three maps there are 0.77 million weights.

Source: Mancini, Paissan, Ravanelli, Subakan, *LMAC-TD: Producing Time Domain Explanations for Audio
Classifiers*, 2024, arXiv 2409.08655. Differences: published are 256 filters, two blocks of eight
and two layers of 256 channels, and a U-Net of 139 million weights that fits one classifier; this
one fits any maps, and is sized down to be trained on a processor. A clip is turned so that its
greatest sample is positive, since polarity is to change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.mask_decoder import resized

_EPS = 1e-8
_UPWARDS = 3


def turned(x: Tensor) -> Tensor:
    """Clips [B, S] scaled to their peak, and turned so that it is positive; silence as it is.

    >>> turned(torch.tensor([[0.1, -0.5, 0.25], [0.0, 0.0, 0.0]]))
    tensor([[-0.2000,  1.0000, -0.5000],
            [ 0.0000,  0.0000,  0.0000]])
    """
    peak = x.gather(1, x.abs().argmax(1, keepdim=True))
    return torch.where(peak == 0, 0.0, x / torch.where(peak == 0, 1.0, peak))


class TimeDomainMask(nn.Module):
    """Maps and waveform to explanation and removal.

    Parameters
    ----------
    maps : sequence of str
        Names of the layers that it reads, the deepest last.
    channels : sequence of int
        D_l of each.
    filters, kernel : int
        N and k, of encoder and decoder.
    width : int
        Channels while maps are read, and of the transformers.
    blocks, within, along : int
        Blocks, and the layers of each of the two transformers of a block.
    heads : int
        Heads of their attention; `width` must be a multiple.
    chunk : int
        Frames of a chunk.
    alpha : float
        a, in [0, 1]: how much of what is masked by comes from the classifier.
    """

    def __init__(
        self,
        *,
        maps: Sequence[str],
        channels: Sequence[int],
        filters: int,
        kernel: int,
        width: int,
        blocks: int,
        within: int,
        along: int,
        heads: int,
        chunk: int,
        alpha: float,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.step, self.overlap, self.alpha = max(1, kernel // 2), max(1, chunk // 2), alpha
        self.encoder = nn.Conv1d(1, filters, 2 * self.step, self.step, bias=False)
        self.decoder = nn.ConvTranspose1d(filters, 1, 2 * self.step, self.step, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(1, d, eps=_EPS, affine=False) for d in channels)
        self.reads = nn.ModuleList(nn.Conv2d(d, width, 3, padding=1) for d in channels)
        self.joins = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels[1:])
        widths = [width] * _UPWARDS + [filters]
        self.ups = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.enter = nn.Sequential(nn.GroupNorm(1, filters, eps=_EPS), nn.Conv1d(filters, width, 1))
        self.within = nn.ModuleList(_transformer(width, heads, within) for _ in range(blocks))
        self.along = nn.ModuleList(_transformer(width, heads, along) for _ in range(blocks))
        self.leave = nn.Conv1d(width, filters, 1)

    def encode(self, x: Tensor, *, frozen: bool = True) -> Tensor:
        """Filters' outputs [B, N, L], non-negative, of waveforms [B, S]."""
        k = 2 * self.step
        rest = -x.shape[1] % self.step
        wide = F.pad(x, (k, k + rest)).unsqueeze(1)
        weight = self.encoder.weight.detach() if frozen else self.encoder.weight
        return F.relu(F.conv1d(wide, weight, stride=self.step))

    def decode(self, encoded: Tensor, n_samples: int, *, frozen: bool = True) -> Tensor:
        """Waveforms [B, S] of filters' outputs."""
        weight = self.decoder.weight.detach() if frozen else self.decoder.weight
        x = F.conv_transpose1d(encoded, weight, stride=self.step)
        return x[:, 0, 2 * self.step :][:, :n_samples]

    def mask(self, maps: Sequence[Tensor], encoded: Tensor) -> Tensor:
        """Mask [B, N, L] in [0, 1] of maps [B, D_l, F_l, T_l] and filters' outputs."""
        both = (1 - self.alpha) * encoded + self.alpha * self.read(maps, encoded.shape[2])
        h = self.enter(both)
        frames = h.shape[2]
        rest = -frames % self.overlap
        wide = F.pad(h, (self.overlap, self.overlap + rest))
        parts = wide.unfold(2, 2 * self.overlap, self.overlap)  # [B, D, chunks, frames]
        for inner, outer in zip(self.within, self.along, strict=True):
            parts = parts + _through(inner, parts)
            parts = parts + _through(outer, parts.transpose(2, 3)).transpose(2, 3)
        batch, d, chunks, size = parts.shape
        flat = parts.permute(0, 1, 3, 2).reshape(batch, d * size, chunks)
        joined = F.fold(flat, (1, wide.shape[2]), (1, size), stride=(1, self.overlap))[:, :, 0]
        return self.leave(joined[:, :, self.overlap : self.overlap + frames] / 2).sigmoid()

    def read(self, maps: Sequence[Tensor], frames: int) -> Tensor:
        """What the classifier heard, as filters' outputs [B, N, L]."""
        read = [
            F.relu(conv(norm(x.contiguous())))
            for norm, conv, x in zip(self.norms, self.reads, maps, strict=True)
        ]
        y = read[-1]
        for join, x in zip(self.joins, reversed(read[:-1]), strict=True):
            y = F.relu(join(resized(y, x.shape[2], x.shape[3]))) + x
        u = y.mean(2)
        for up in self.ups:
            u = F.relu(up(F.interpolate(u, scale_factor=2.0, mode="linear")))
        return F.interpolate(u, size=frames, mode="linear")

    def forward(self, maps: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Explanation and removal [B, S] of waveforms that were `turned`."""
        encoded = self.encode(x)
        mask = self.mask(maps, encoded)
        n = x.shape[1]
        return self.decode(mask * encoded, n), self.decode((1 - mask) * encoded, n)


def _transformer(width: int, heads: int, layers: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _through(transformer: nn.Module, parts: Tensor) -> Tensor:
    """Each row of [B, D, rows, n] through a transformer along n."""
    batch, d, rows, n = parts.shape
    x = parts.permute(0, 2, 3, 1).reshape(batch * rows, n, d)
    y: Tensor = transformer(x + _places(n, d, x))
    return y.view(batch, rows, n, d).permute(0, 3, 1, 2)


def _places(n: int, d: int, like: Tensor) -> Tensor:
    """Sines by which a transformer knows places [n, D] (Vaswani et al. 2017, arXiv 1706.03762)."""
    at = torch.arange(n, device=like.device, dtype=like.dtype).unsqueeze(1)
    rate = torch.exp(
        -math.log(1e4) * torch.arange(0, d, 2, device=like.device, dtype=like.dtype) / d
    )
    return torch.stack([(at * rate).sin(), (at * rate).cos()], dim=2).flatten(1)[:, :d]

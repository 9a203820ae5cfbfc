"""VIBI's networks: which chunks of a spectrogram tell what a classifier says.

::

    S = log(1 + |X|)   bins to rows on the mel scale                       [B, 1, 64, T]
    explainer          three convolutions, mean over each chunk            -> log p [B, J]
    chosen             k chunks: drawn while it learns, else the likeliest -> mask [B, F, T]
    approximator       the rows of mask * S, three convolutions, mean      -> logits [B, C]

Chunks are an eighth of the mel scale high and about a quarter of a second long. Explainer and
approximator have 0.15 million weights together for ten classes and 64 channels.

Source: Bang, Xie, Lee, Wu, Xing, *Explaining a Black-box by Using a Deep Variational Information
Bottleneck Approach*, AAAI 2021, arXiv 1902.06918. Differences: there chunks are squares of a
picture or words of a text, and networks are of a size that fits these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.mel import interpolation, mel_places

_ROWS, _HIGH = 64, 8
_SMALL = 1e-6


class ChunkSelector(nn.Module):
    """Spectrogram to mask.

    Parameters
    ----------
    maps : sequence of str
        None of them: it reads the spectrogram itself.
    n_classes, n_bins, sample_rate, hop_length : int
        The classifier's, and the spectrogram's.
    share : float
        Share of the chunks that are kept, in (0, 1].
    width : int
        Channels of the convolutions.
    piece_s : float
        Length of a chunk in seconds.
    """

    def __init__(
        self,
        *,
        maps: object = (),
        n_classes: int,
        n_bins: int,
        sample_rate: int,
        hop_length: int,
        share: float,
        width: int,
        piece_s: float,
    ) -> None:
        super().__init__()
        self.maps: tuple[str, ...] = ()
        self.n_bins, self.sample_rate, self.share = n_bins, sample_rate, share
        self.length = max(1, round(piece_s * sample_rate / hop_length))
        self.explainer = nn.Sequential(*_convolutions(width), nn.Conv2d(width, 1, 3, padding=1))
        self.approximator = nn.Sequential(
            *_convolutions(width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, n_classes),
        )

    def rows(self, size: Tensor, mask: Tensor | float = 1.0) -> Tensor:
        """Rows on the mel scale [B, 1, 64, T] of magnitudes [B, F, T], masked as their logarithm:
        the mean of their bins."""
        weight = _rows(self.n_bins, self.sample_rate, size.device)
        return (weight @ (mask * size.log1p())).unsqueeze(1)

    def odds(self, size: Tensor) -> Tensor:
        """Unnormalised log-probabilities of each chunk [B, 8, n] of magnitudes [B, F, T]."""
        pieces = max(1, round(size.shape[2] / self.length))
        return F.adaptive_avg_pool2d(self.explainer(self.rows(size)), (_HIGH, pieces)).squeeze(1)

    def count(self, odds: Tensor) -> int:
        """How many chunks [B, 8, n] are kept."""
        return max(1, round(self.share * odds[0].numel()))

    def likeliest(self, odds: Tensor) -> Tensor:
        """The k likeliest chunks, as zeros and ones [B, 8, n]."""
        flat = odds.flatten(1)
        best = flat.topk(self.count(odds), dim=1).indices
        return torch.zeros_like(flat).scatter_(1, best, 1.0).view(odds.shape)

    def mask(self, chosen: Tensor, frames: int) -> Tensor:
        """Mask [B, F, T] of chunks [B, 8, n], each of whose bins is as it is."""
        place = mel_places(self.n_bins, self.sample_rate).to(chosen.device)
        row = (_HIGH * place).long().clamp(max=_HIGH - 1)
        column = torch.arange(frames, device=chosen.device) * chosen.shape[2] // frames
        return chosen[:, row][:, :, column]

    def approximate(self, mask: Tensor, size: Tensor) -> Tensor:
        """Logits [B, C] by what a mask of log magnitudes keeps."""
        return self.approximator(self.rows(size, mask))


def drawn(odds: Tensor, count: int, temperature: float) -> Tensor:
    """Chunks [B, J] in [0, 1], each draw's maximum, of `count` draws of one chunk each.

    By the Gumbel softmax, so that gradients pass (Jang, Gu, Poole 2017, arXiv 1611.01144).
    """
    many = odds.unsqueeze(1).expand(-1, count, -1)
    return F.gumbel_softmax(many, tau=temperature, dim=2).amax(1)


def _convolutions(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (1, width, width):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2, ceil_mode=True),
        ]
    return layers


def _rows(n_bins: int, sample_rate: int, device: torch.device) -> Tensor:
    """Weights [64, F], of which each row adds up to one."""
    weight = interpolation(mel_places(n_bins, sample_rate) * (_ROWS - 1), _ROWS).T
    return (weight / weight.sum(1, keepdim=True).clamp_min(_SMALL)).to(device)

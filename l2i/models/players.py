"""A clip as a game: objects of sound that play, coalitions of them, and a network for their values.

The players of a clip are objects: components of the dictionary, grouped where what they add to the
clip, W_k H_k, goes together; or each object's part of a stretch of time. A coalition is worth the
log-odds of a class by the sound that it leaves, and a player's Shapley value is its share of what
all of them are worth (Shapley, *A value for n-person games*, 1953)::

    each map [B, D_l, F_l, T_l]     normalised, conv 1x1, ReLU, mean of each stretch of time
    the deepest map                 the same, each channel weighted by the class's gradient
    summed over maps, modulated by the gradient (FiLM), two layers  -> of each component [B, K, Q]
    summed over each object's components                            -> values [B, J * Q]

No parameter belongs to a class: it is asked for by its gradient, as in `l2i.models.gate_head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.answers import log_odds
from l2i.models.gated import Taken
from l2i.models.general import in_rows, in_time
from l2i.types import Task

# Log-odds beyond which one coalition is as good as another: none outweighs all others.
_SUREST = 20.0
_ROWS, _INNER, _ASKED = 16, 32, 128
_EPS = 1e-8


def worth(logits: Tensor, classes: Tensor, task: Task) -> Tensor:
    """Log-odds [n] of one class each, within the bounds that coalitions are counted by."""
    return log_odds(logits, classes, task).clamp(-_SUREST, _SUREST)


def coalitions(players: int, pairs: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Coalitions from the Shapley kernel, then the complement of each.

    A size s has the probability ``1 / (s (J - s))``, but for a factor (Lundberg and Lee 2017, arXiv
    1705.07874); complements make estimates vary less (Covert and Lee 2021, arXiv 2012.01536).

    Parameters
    ----------
    players : int
        J, two or more.
    pairs : int
    draw : numpy.random.Generator

    Returns
    -------
    float32 [2 * pairs, J]
        Zeros and ones.
    """
    sizes = np.arange(1, players)
    chance = 1.0 / (sizes * (players - sizes))
    sets = np.zeros((pairs, players), np.float32)
    for row in sets:
        size = draw.choice(sizes, p=chance / chance.sum())
        row[draw.choice(players, size, replace=False)] = 1
    return np.concatenate([sets, 1 - sets])


def grouped(w: Tensor, h: Tensor, count: int) -> NDArray[np.int64]:
    """Components in so many groups, by the correlation of what they add to a clip.

    Groups are merged by their mean correlation over all bins and frames (average linkage).

    Parameters
    ----------
    w : Tensor [F, K]
    h : Tensor [K, T]
    count : int
        Groups at most.

    Returns
    -------
    int64 [K]
        The group of each, from 0.

    Examples
    --------
    >>> w = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.1, 1.0]])
    >>> a, b, c = grouped(w, torch.rand(1, 9).repeat(3, 1), 2)
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    n = w.shape[1]
    if n <= count:
        return np.arange(n)
    w, h = w.double(), h.double()
    # Moments of W_k H_k over bins and frames: a mean of products is a product of means.
    both = (w.T @ w) / len(w) * (h @ h.T) / h.shape[1]
    mean = w.mean(0) * h.mean(1)
    covariance = (both - mean[:, None] * mean[None]).cpu().numpy()
    spread = np.sqrt(covariance.diagonal().clip(min=0))
    scale = spread[:, None] * spread[None]
    # What is silent goes with nothing.
    alike = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    upper = np.triu_indices(n, 1)
    tree = linkage((1 - alike[upper]).clip(min=0), "average")
    return fcluster(tree, count, "maxclust").astype(np.int64) - 1


@dataclass(frozen=True)
class Players:
    """Who plays in some clips.

    Attributes
    ----------
    owner : Tensor [B, K], int64
        The object that each component is of.
    there : Tensor [B, J * Q], bool
        Players that sound; the Q stretches of an object follow one another.
    times : int
        Q.
    """

    owner: Tensor
    there: Tensor
    times: int

    def gates(self, chosen: Tensor, frames: int) -> Tensor:
        """Gates [B, K, T] that let some players [B, J * Q] through."""
        cells = chosen.view(len(chosen), -1, self.times)
        each = cells.gather(1, self.owner.unsqueeze(2).expand(-1, -1, self.times))
        return each[:, :, _stretch(frames, self.times, chosen.device)]

    def values(self, parts: Tensor, total: Tensor) -> Tensor:
        """Values [B, J * Q] of what a network says of components [B, K, Q], which add up to `total`
        [B].

        What is missing is shared by all who sound, evenly: of all values that add up, those are the
        nearest (Ruiz, Valenciano, Zarzuelo 1998). Who is silent has none.
        """
        cells = parts.new_zeros(len(parts), self.there.shape[1] // self.times, self.times)
        cells = cells.scatter_add(1, self.owner.unsqueeze(2).expand_as(parts), parts)
        there = self.there.to(parts)
        own = cells.flatten(1) * there
        missing = (total - own.sum(1)) / there.sum(1).clamp_min(1)
        return own + missing.unsqueeze(1) * there


def players_of(taken: Taken, objects: int, times: int) -> Players:
    """Objects of some clips, at most so many, in so many stretches of time each."""
    h = taken.activations
    owner = torch.stack([torch.from_numpy(grouped(taken.w, one, objects)) for one in h])
    owner = owner.to(h.device)
    cells = h.new_zeros(len(h), objects, times)
    place = owner.unsqueeze(2) * times + _stretch(h.shape[2], times, h.device)
    loud = cells.flatten(1).scatter_add(1, place.flatten(1), h.flatten(1))
    return Players(owner, loud > 0, times)


def _stretch(frames: int, times: int, device: torch.device) -> Tensor:
    """Which stretch of time each frame [T] is in."""
    return torch.arange(frames, device=device) * times // frames


class _Reader(nn.Module):
    """A map [B, D, F, T] to [B, Q, width]."""

    def __init__(self, channels: int, rows: int, width: int) -> None:
        super().__init__()
        self.rows = min(rows, _ROWS)
        self.norm = nn.GroupNorm(1, channels, eps=_EPS)
        self.inner = nn.Conv2d(channels, _INNER, 1)
        self.out = nn.Linear(_INNER * self.rows, width)

    def forward(self, x: Tensor, times: int, weight: Tensor | None = None) -> Tensor:
        """`weight` [B, D]: of each channel."""
        # Channels first: the gradient of this normalisation ends the process on a CPU where they
        # are last in memory (torch 2.13).
        y = self.norm(in_rows(x, self.rows).contiguous())
        if weight is not None:
            y = y * weight[:, :, None, None]
        y = in_time(F.relu(self.inner(y)), times)
        return self.out(y.flatten(1, 2).transpose(1, 2))


class ShapleyHead(nn.Module):
    """Hidden maps, and a class's gradient, to what each component adds to the class's log-odds.

    Parameters
    ----------
    maps : sequence of str
        Names of the layers that it reads, the deepest last.
    shapes : sequence of (int, int)
        Channels and rows (D_l, F_l) of each.
    components : int
        K.
    objects, times : int
        J and Q: who plays.
    width : int
        Width of the hidden layers.

    Examples
    --------
    >>> head = ShapleyHead(
    ...     maps=["a", "b"], shapes=((4, 8), (6, 2)), components=5, objects=3, times=2, width=16
    ... )
    >>> head((torch.rand(2, 4, 8, 30), torch.rand(2, 6, 2, 9)), torch.rand(2, 6)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        *,
        maps: Sequence[str],
        shapes: Sequence[tuple[int, int]],
        components: int,
        objects: int,
        times: int,
        width: int,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.components, self.objects, self.times = components, objects, times
        self.readers = nn.ModuleList(_Reader(d, f, width) for d, f in shapes)
        self.evidence = _Reader(*shapes[-1], width)
        self.asked = nn.Sequential(
            nn.Linear(shapes[-1][0], _ASKED), nn.ReLU(), nn.Linear(_ASKED, 2 * width)
        )
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, components)

    def forward(self, maps: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """What each component adds [B, K, Q], in log-odds.

        Parameters
        ----------
        maps : sequence of Tensor [B, D_l, F_l, T_l]
        gradient : Tensor [B, D]
            The class's logit by the channels of the deepest map.
        """
        direction = F.normalize(gradient, dim=1) * gradient.shape[1] ** 0.5
        y = self.evidence(maps[-1], self.times, direction)
        for reader, x in zip(self.readers, maps, strict=True):
            y = y + reader(x, self.times)
        scale, shift = self.asked(direction).unsqueeze(1).chunk(2, dim=2)
        y = F.relu(y * (1 + scale) + shift)
        return self.out(y + F.relu(self.hidden(y))).transpose(1, 2)

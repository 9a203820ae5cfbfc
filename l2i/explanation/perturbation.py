"""Explanations by asking the classifier of a clip with parts of it left out.

A clip is divided into units; some of them are kept, by a linear gain on |X|, and the classifier
hears what that leaves, as sound. From many such answers a linear model, or a mean, says which units
speak for the class:

==============  =====================================================  ==========================
``slime``       a grid of times and frequencies                        ridge regression
``lime``        segments of a kind of sound (SLIC)                     ridge regression
``audiolime``   the clip's own components (NMF), each in two halves    ridge regression
``rise``        random masks of low resolution                         covariance with the answer
``extremal``    gates on a grid                                        gradient descent
==============  =====================================================  ==========================

All ask about one class's probability, the first four a number of times that is the same for all:
``questions``. A class that inherits from one of them has another number::

    class Slime1000(Slime):
        questions = 1000          # as published; --method FILE.py:Slime1000

Differences: what is left out is silent here, not as loud as a spectrogram's least bin, and the
classifier hears sound, not a masked spectrogram of its own front-end. Grids and segments are even
on a mel scale of frequency whatever the classifier's front-end is.

Over 300 lines: seven methods that differ in a few lines each.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.mel import interpolation, mel_places
from l2i.dsp.spectrogram import Domain, synthesise
from l2i.explanation.apart import take_apart
from l2i.explanation.families import ClipByClip
from l2i.models.answers import log_odds
from l2i.models.heard import Heard
from l2i.models.optimizers import Adam

# What the classifier hears at once.
_AT_ONCE = 16


class Pieces:
    """Units that share no bin: `labels` [F, T] says which one a bin is of; `count`, J, of them."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.count = int(labels.max()) + 1

    def masks(self, kept: Tensor) -> Tensor:
        """Gains [n, F, T] of how much of each unit is kept [n, J]."""
        return kept[:, self.labels]


class Shares:
    """Units that share bins: of `shares` [J, F, T], which add up to one, or less."""

    def __init__(self, shares: Tensor) -> None:
        self.shares = shares
        self.count = len(shares)

    def masks(self, kept: Tensor) -> Tensor:
        """See `Pieces.masks`."""
        return torch.einsum("nj,jft->nft", kept, self.shares).clamp(0, 1)


class _Perturbation(ClipByClip):
    """Those that ask a number of questions."""

    questions = 200
    """Masks that the classifier is asked about, per clip."""

    def answers(self, one: Heard, masks: Tensor, c: int) -> Tensor:
        """Probabilities [n] of the class by what some masks [n, F, T] leave of one clip."""
        audio = synthesise(one.spectrum.expand(masks.shape), masks, one.domain, one.n_samples)
        return one.classifier.probabilities(one.judge(audio, slice(0, 1)))[:, c]


class _Regression(_Perturbation):
    """Coalitions of units, and a linear model of what the classifier says of them.

    The first coalition is of all units; in the others each is kept with probability one half. The
    mask keeps the units whose weight is positive (Ribeiro, Singh, Guestrin, *"Why Should I Trust
    You?"*, 2016, arXiv 1602.04938).
    """

    def units(self, one: Heard) -> Pieces | Shares:
        """What the clip is divided into."""
        raise NotImplementedError

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T] of the units that speak for the class."""
        units = self.units(one)
        z = draw.integers(0, 2, (self.questions, units.count)).astype(np.float32)
        z[0] = 1
        kept = torch.from_numpy(z).to(one.size.device)
        p = torch.cat([self.answers(one, units.masks(some), c) for some in kept.split(_AT_ONCE)])
        weights = ridge(z.astype(np.float64), p.double().cpu().numpy())
        return units.masks(torch.from_numpy(weights > 0).to(one.size).unsqueeze(0))[0]


def ridge(z: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """LIME's linear model: weights of units by weighted ridge regression with an intercept.

    A coalition z counts by ``sqrt(exp(-d^2 / 0.25^2))``, with d its cosine distance to the one of
    all units; the penalty is 1: both as in LIME's reference implementation.

    Parameters
    ----------
    z : float64 [n, J]
        0 or 1.
    p : float64 [n]
        What the classifier says of each.

    Returns
    -------
    float64 [J]

    Examples
    --------
    >>> z = np.array([[1, 1], [1, 0], [0, 1], [0, 0]] * 50, float)
    >>> (ridge(z, z[:, 0]) > [0.5, -0.1]).tolist(), bool(abs(ridge(z, z[:, 0])[1]) < 0.01)
    ([True, True], True)
    """
    cosine = np.sqrt(z.mean(axis=1))
    weight = np.sqrt(np.exp(-np.square(1 - cosine) / 0.25**2))
    weight /= weight.mean()
    total = weight.sum()
    x = z - (weight @ z) / total
    y = p - (weight @ p) / total
    gram = (x * weight[:, None]).T @ x + np.eye(z.shape[1])
    return np.linalg.solve(gram, x.T @ (weight * y))


class Slime(_Regression):
    """Six times by four frequencies (SLIME: Mishra, Sturm, Dixon, *Local Interpretable
    Model-Agnostic Explanations for Music Content Analysis*, ISMIR 2017)."""

    times, frequencies = 6, 4

    def units(self, one: Heard) -> Pieces:
        """Rectangles of the spectrogram."""
        bins, frames = one.size.shape[1:]
        row = (self.frequencies * mel_places(bins, self.domain.sample_rate)).long()
        column = (self.times * torch.arange(frames) / frames).long()
        row.clamp_(max=self.frequencies - 1)
        return Pieces((row[:, None] * self.times + column).to(one.size.device))


class Lime(_Regression):
    """Segments of one loudness each, by SLIC (Ribeiro, Singh, Guestrin 2016, arXiv 1602.04938;
    Achanta et al., *SLIC Superpixels*, PAMI 2012)."""

    segments = 50

    def units(self, one: Heard) -> Pieces:
        """Segments of log(1 + |X|)."""
        return Pieces(segments(one.size[0].log1p(), self.domain, self.segments))


# How much places count against loudness, and how often k-means is repeated.
_COMPACTNESS, _ROUNDS = 10.0, 5


def segments(loudness: Tensor, domain: Domain, count: int) -> Tensor:
    """Superpixels of a spectrogram: k-means of place and loudness, from a regular grid.

    Parameters
    ----------
    loudness : Tensor [F, T]
        Scaled here to 0 ... 100, as the lightness that SLIC was made for.
    domain : Domain
    count : int
        About how many segments.

    Returns
    -------
    Tensor [F, T], int64
        Numbers without a gap, from 0.

    Differences: any bin may belong to any segment, and what is one segment need not hang together.
    """
    bins, frames = loudness.shape
    rows = 128.0  # As many as a picture of mel bands has.
    step = (rows * frames / count) ** 0.5
    level = 100 * loudness / loudness.amax().clamp_min(torch.finfo(loudness.dtype).tiny)
    place = (rows * mel_places(bins, domain.sample_rate)).to(level)
    time = torch.arange(frames).to(level)
    near = _COMPACTNESS / step
    points = torch.stack(
        [level, near * place[:, None].expand(bins, frames), near * time.expand(bins, frames)], 2
    ).flatten(0, 1)
    down, across = max(1, round(rows / step)), max(1, round(frames / step))
    at_row = ((torch.arange(down) + 0.5) / down * rows).to(level)
    at_row = (place[None] - at_row[:, None]).abs().argmin(dim=1)
    at_time = ((torch.arange(across) + 0.5) / across * frames).long().to(level.device)
    centres = points[(at_row[:, None] * frames + at_time).flatten()]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        held = nearest.bincount(minlength=len(centres)).unsqueeze(1)
        centres = torch.where(held > 0, sums / held.clamp_min(1), centres)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    return nearest.unique(return_inverse=True)[1].view(bins, frames)


class AudioLime(_Regression):
    """The clip's own components, each in two halves of the time, in place of separated instruments
    (audioLIME: Haunschmid, Manilow, Widmer 2020, arXiv 2008.00582).

    Differences: audioLIME separates voices and instruments by a network for music; of any other
    sound the sources are the clip's own NMF.
    """

    components, times = 12, 2

    def units(self, one: Heard) -> Shares:
        """Shares of the components."""
        apart = take_apart(one.waveform, self.domain, self.components, self.seed)
        w, h, whole = apart.w[0], apart.activations[0], apart.whole[0]
        frames = h.shape[1]
        share = w.T[:, :, None] * h[:, None, :] / whole.clamp_min(1e-8)  # [K, F, T]
        when = (self.times * torch.arange(frames, device=h.device) / frames).long()
        return Shares(torch.cat([share * (when == t) for t in range(self.times)]))


class Rise(_Perturbation):
    """Random masks of low resolution (RISE: Petsiuk, Das, Saenko 2018, arXiv 1806.07421).

    Cells of a quarter of a second and an eighth of the mel scale are kept with probability one
    half, and interpolated from a random offset. A bin's importance is the covariance of its gain
    with the class's probability; its positive part, divided by its greatest value, is the mask.

    Differences: RISE's map is E[p M] / E[M]; what it would be were p always the same is taken away,
    since it is a mask of one half everywhere.
    """

    rows, piece_s = 8, 0.25

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T] of bins whose gain goes with the class."""
        bins, frames = one.size.shape[1:]
        seconds = frames * self.domain.hop_length / self.domain.sample_rate
        columns = max(2, round(seconds / self.piece_s))
        place = self.rows * mel_places(bins, self.domain.sample_rate).to(one.size)
        time = columns * torch.arange(frames).to(one.size) / frames
        total, weighted = torch.zeros_like(one.size[0]), torch.zeros_like(one.size[0])
        p_sum, left = 0.0, self.questions
        while left:
            n = min(_AT_ONCE, left)
            cells = draw.integers(0, 2, (n, self.rows + 2, columns + 2))
            masks = torch.stack(
                [
                    interpolation(place + down, self.rows + 2)
                    @ cell
                    @ interpolation(time + across, columns + 2).T
                    for cell, (down, across) in zip(
                        torch.from_numpy(cells).to(one.size), draw.random((n, 2)), strict=True
                    )
                ]
            )
            p = self.answers(one, masks, c)
            total += masks.sum(0)
            weighted += torch.einsum("n,nft->ft", p, masks)
            p_sum += float(p.sum())
            left -= n
        covariance = (weighted - p_sum * total / self.questions).clamp_min(0)
        greatest = covariance.amax()
        return covariance / greatest if bool(greatest > 0) else covariance


class Extremal(ClipByClip):
    """Gates on a grid, by descent: as probable as can be by a given share of the cells (extremal
    perturbations: Fong, Patrick, Vedaldi 2019, arXiv 1910.08485).

    ::

        -log p(mask) + weight * mean((sort(gates) - ideal)^2)

    where `ideal` is one in the given share of the cells and zero in the others. The grid is of 27
    mel bands by 32 times, and gates between its points are interpolated.

    Differences: the paper's masks are smoothed by a maximum of Gaussians, here by interpolation;
    and its weight grows with the steps.
    """

    needs_gradients = True
    rows, times = 27, 32
    steps, learning_rate = 50, 0.2
    area, weight = 0.3, 30.0

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T] of a share of the cells."""
        bins, frames = one.size.shape[1:]
        place = mel_places(bins, self.domain.sample_rate).to(one.size) * (self.rows - 1)
        time = torch.linspace(0, self.times - 1, frames, device=one.size.device)
        down, across = interpolation(place, self.rows), interpolation(time, self.times)
        with torch.inference_mode(False), torch.enable_grad():
            one = one.copied()
            down, across = down.clone(), across.clone()
            cells = self.rows * self.times
            ideal = (torch.arange(cells, device=place.device) >= (1 - self.area) * cells).float()
            v = torch.full((self.rows, self.times), 1.0, device=place.device, requires_grad=True)
            optimizer = Adam([v], self.learning_rate)
            target = torch.tensor([c], device=place.device)
            for _ in range(self.steps):
                gates = v.sigmoid()
                mask = (down @ gates @ across.T).unsqueeze(0)
                audio = synthesise(one.spectrum, mask, one.domain, one.n_samples)
                z = log_odds(one.judge(audio), target, one.classifier.task)
                area = (gates.flatten().sort().values - ideal).square().mean()
                loss = torch.nn.functional.softplus(-z).sum() + self.weight * area
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            final: Tensor = down @ v.detach().sigmoid() @ across.T
        return final.clamp(0, 1)

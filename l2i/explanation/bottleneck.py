"""IBA: what a hidden map must tell, for the class to be heard (Schulz, Sixt, Tombari, Landgraf,
*Restricting the Flow: Information Bottlenecks for Attribution*, ICLR 2020, arXiv 2001.00396).

Noise takes the place of what a hidden map R says, clip by clip, as far as the class permits::

    Z = lambda R + (1 - lambda) e,   e ~ N(mu, sigma^2) of each channel,   lambda = blur(sigmoid(a))

    -log p_c(Z) + weight * mean KL[ N(lambda R + (1 - lambda) mu, (1 - lambda)^2 sigma^2)
                                    || N(mu, sigma^2) ]

The divergence is the information that passes at each place of the map. Its sum over channels,
stretched to the spectrogram and divided by its greatest value, is the mask. Nothing is kept of
training; ``a`` has as many numbers as the map: 53,248 for 256 channels, 8 rows and 26 frames.

Differences: mu and sigma are of the clip's own map, not of a data set; and the map is the middle
one of those that an interpreter reads, in a classifier that can be run from there on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.families import ClipByClip
from l2i.models.answers import log_probabilities
from l2i.models.heard import Heard
from l2i.models.optimizers import Adam

_LEAST = 1e-6


def information(r: Tensor, share: Tensor) -> Tensor:
    """Information that passes where a share of a signal is kept, and noise fills the rest.

    The divergence of N(share r, (1 - share)^2) from N(0, 1), in nats.

    Parameters
    ----------
    r : Tensor
        The signal, in standard deviations from its mean.
    share : Tensor
        In [0, 1), of its shape.

    Examples
    --------
    >>> information(torch.tensor([2.0, 2.0]), torch.tensor([0.0, 0.5])).tolist()
    [0.0, 0.8181471824645996]
    """
    noise = (1 - share).clamp_min(_LEAST)
    return -noise.log() + 0.5 * (noise.square() + (share * r).square() - 1)


class Iba(ClipByClip):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`.

    Raises
    ------
    UsageError
        The classifier cannot be run from a hidden map on.
    """

    needs_gradients = True
    needs_layers = True
    steps, learning_rate, copies = 10, 1.0, 10
    """Adam's, and how many draws of the noise each step hears; as published."""
    start, weight, blur = 5.0, 10.0, 1.0
    """The start of a; the information's weight; the blur's standard deviation in places."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        clf: Any = subject.classifier
        if not hasattr(clf, "logits_above") or not hasattr(clf, "to_bins"):
            raise UsageError(
                "Method 'iba' puts noise into a hidden map, and this classifier cannot be run from "
                "one on: take 'extremal' or 'gates'."
            )
        chosen = clf.chosen_layers()
        self.layers = (chosen[len(chosen) // 2],)
        super().__init__(subject, settings)

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T] of one clip that is not silent."""
        clf: Any = one.classifier
        # Copies: tensors that were made for inference take part in no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            map_ = one.features.maps[0].clone().contiguous()
            mean = map_.mean((2, 3), keepdim=True)
            spread = map_.std((2, 3), keepdim=True, correction=0)
            # A channel that says nothing has nothing to be hidden.
            r = torch.where(spread > _LEAST, (map_ - mean) / spread.clamp_min(_LEAST), 0.0)
            a = torch.full_like(map_, self.start, requires_grad=True)
            optimizer = Adam([a], self.learning_rate)
            for _ in range(self.steps):
                share = _blurred(a.sigmoid(), self.blur)
                drawn = draw.standard_normal((self.copies, *map_.shape[1:]), np.float32)
                noise = torch.from_numpy(drawn).to(map_.device)
                z = mean + spread * (share * r + (1 - share) * noise)
                logits, _ = clf.logits_above(z, self.layers[0])
                heard = -log_probabilities(logits, clf.task)[:, c].mean()
                loss = heard + self.weight * information(r, share).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                passed = information(r, _blurred(a.sigmoid(), self.blur)).sum(1, keepdim=True)
                # Maps have rows of frequency; `to_bins` takes frames first.
                bins: Tensor = clf.to_bins(passed.transpose(2, 3), one.size.shape[2])[0]
                return (bins / bins.amax().clamp_min(_LEAST)).clamp(0, 1)


def _blurred(x: Tensor, width: float) -> Tensor:
    """X [B, D, F, T], each channel blurred by a Gaussian; what lies outside is as its edge is."""
    reach = max(1, round(2 * width))
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weight = (-0.5 * (place / width).square()).exp()
    weight = weight / weight.sum()
    flat = F.pad(x.flatten(0, 1).unsqueeze(1), (reach,) * 4, mode="replicate")
    along = F.conv2d(flat, weight.view(1, 1, 1, -1))
    return F.conv2d(along, weight.view(1, 1, -1, 1)).view(x.shape)

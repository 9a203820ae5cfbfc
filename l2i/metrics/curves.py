"""Explanations at a stated size: a mask's most important energy, and what the classifier says as it
is let in, or taken away.

A mask is read as an order of bins. As many of the first are taken, whole, as have a wanted share
of the clip's energy (`ByEnergy`); so all methods are compared at one size, whether their masks
are soft or hard, and a mask that says nothing of bins takes all of them alike.

Sources: insertion and deletion, Petsiuk, Das, Saenko 2018, arXiv 1806.07421, here over energy and
not over the number of bins, of which most are silent; sufficiency and comprehensiveness, DeYoung
et al. 2020, arXiv 1911.03429.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = (0.0, 0.01, *(round(0.05 * i, 2) for i in range(1, 21)))
"""Shares of the energy at which the curves are heard."""

FIXED = (0.1, 0.25, 0.5)
"""Shares at which FF and Fid-In are given."""

STATED = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares over which sufficiency and comprehensiveness are means."""

# Values of a mask that differ in less than one of so many parts are equal: rounding is no order.
_DIGITS = 2.0**14


class ByEnergy:
    """Bins in the order of a mask, by the energy that they have.

    Parameters
    ----------
    mask : Tensor [B, F, T]
        Only its order counts: of its negative, the least important bins come first.
    size : Tensor [B, F, T]
        ``|X|``.

    Examples
    --------
    Three bins of equal energy, the first the most important: a third of the energy is the first,
    and two thirds are the first and, since the mask tells them not apart, half of the energy of
    both others.

    >>> order = ByEnergy(torch.tensor([[[0.9, 0.1, 0.1]]]), torch.ones(1, 1, 3))
    >>> order.gain(1 / 3).round(decimals=3).tolist()
    [[[1.0, 0.0, 0.0]]]
    >>> order.gain(2 / 3).square().round(decimals=3).tolist()
    [[[1.0, 0.5, 0.5]]]
    """

    def __init__(self, mask: Tensor, size: Tensor) -> None:
        mantissa, exponent = torch.frexp(mask.float())
        self.mask = torch.ldexp((mantissa * _DIGITS).round() / _DIGITS, exponent)
        self.energy = size.double().square()
        ordered, place = self.mask.flatten(1).sort(dim=1, descending=True)
        self._ordered = ordered
        self._sums = self.energy.flatten(1).gather(1, place).cumsum(dim=1)

    def gain(self, share: float) -> Tensor:
        """A linear gain that keeps this share of each clip's energy.

        Bins above a threshold are kept whole and those below it not at all; those at it, which the
        mask tells not apart, all get the gain that makes up what is wanting. So a soft mask is
        hardened: what it would halve is kept or not.

        Parameters
        ----------
        share : float
            In [0, 1].

        Returns
        -------
        Tensor [B, F, T]
            In [0, 1]; ``sum |gain X|^2 = share sum |X|^2``.
        """
        wanted = share * self._sums[:, -1:]
        # By rounding the last sum may fall short of what is wanted.
        at = torch.searchsorted(self._sums, wanted).clamp_max(self._sums.shape[1] - 1)
        threshold = self._ordered.gather(1, at).unsqueeze(2)
        above, level = self.mask > threshold, self.mask == threshold
        wanting = wanted[:, 0] - (self.energy * above).sum(dim=(1, 2))
        there = (self.energy * level).sum(dim=(1, 2))
        tiny = torch.finfo(there.dtype).tiny
        part = (wanting / there.clamp_min(tiny)).clamp(0.0, 1.0).sqrt()
        return above.float() + level * part.float().view(-1, 1, 1)

"""Attribution of wavelet coefficients: WAM (Kasmi, Brunetto, Fel, Parekh, *One Wave To Explain Them
All*, ICML 2025, arXiv 2410.01482), with SmoothGrad.

The class's logit is differentiated with respect to the clip's Haar coefficients, of three levels,
and averaged over 25 noisy copies. The explanation is the inverse transform of the coefficients with
the greatest gradients, as many as have half of the clip's energy.

Differences: there the number of coefficients is half, here their energy; and methods here give
gains of a spectrogram, not sounds: with E the sound of the kept coefficients and R = x - E, the
gain is |E| / (|E| + |R|), bin by bin.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import magnitude, stft
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.controls import loudest
from l2i.explanation.families import ClipByClip
from l2i.models.heard import Heard

# Copies that the classifier hears at once.
_AT_ONCE = 5


def haar(x: Tensor, levels: int) -> Tensor:
    """The orthonormal Haar transform of waveforms, by pairs of samples (Haar 1910).

    Parameters
    ----------
    x : Tensor [B, S]
        S is a multiple of 2^levels.
    levels : int

    Returns
    -------
    Tensor [B, S]
        Means of the last level first, then differences from the last level to the first.

    Examples
    --------
    >>> haar(torch.tensor([[1.0, 1.0, 3.0, 1.0]]), 1).mul(2**0.5).round().tolist()
    [[2.0, 4.0, 0.0, 2.0]]
    """
    details: list[Tensor] = []
    for _ in range(levels):
        even, odd = x[:, 0::2], x[:, 1::2]
        details.insert(0, (even - odd) / 2**0.5)
        x = (even + odd) / 2**0.5
    return torch.cat([x, *details], dim=1)


def inverse_haar(coefficients: Tensor, levels: int) -> Tensor:
    """Waveforms [B, S] of what `haar` gives of them."""
    n = coefficients.shape[1] >> levels
    x = coefficients[:, :n]
    for _ in range(levels):
        detail = coefficients[:, n : 2 * n]
        pair = torch.stack([x + detail, x - detail], dim=2) / 2**0.5
        x, n = pair.flatten(1), 2 * n
    return x


class Wam(ClipByClip):
    """WAM-SG as a method of masks; see the module."""

    needs_gradients = True
    costly = False
    levels, copies = 3, 25
    noise = 0.001
    """Deviation of the noise, as a share of the clip's range."""
    share = 0.5
    """What is kept of the energy."""

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        super().__init__(subject, settings)
        self.classifier = subject.classifier

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T], a linear gain."""
        x = one.waveform
        kept = self._kept(x, c, draw)
        inside, outside = (magnitude(stft(y, one.domain))[0] for y in (kept, x - kept))
        whole = inside + outside
        tiny = torch.finfo(whole.dtype).tiny
        return torch.where(whole > 0, inside / whole.clamp_min(tiny), 0.0).clamp(0, 1)

    def _kept(self, x: Tensor, c: int, draw: np.random.Generator) -> Tensor:
        """The sound [1, S] of the coefficients that are kept."""
        n = x.shape[1]
        missing = -n % 2**self.levels
        importance = F.pad(self._gradient(x, c, draw), (0, missing))
        coefficients = haar(F.pad(x, (0, missing)), self.levels)
        order = haar(importance, self.levels).abs()
        chosen = loudest(order[0], coefficients[0].square(), self.share)
        return inverse_haar(coefficients * chosen, self.levels)[:, :n]

    def _gradient(self, x: Tensor, c: int, draw: np.random.Generator) -> Tensor:
        """The logit's gradient with respect to the samples [1, S], the mean over noisy copies.

        The transform is orthonormal: that with respect to its coefficients is its transform.
        """
        # As the clip's own, so that of a clip that is upside down it is upside down.
        polarity = x[0, x[0].abs().argmax()].sign()
        deviation = self.noise * float(x.max() - x.min()) * polarity
        total = torch.zeros_like(x)
        with torch.inference_mode(False), torch.enable_grad():
            for first in range(0, self.copies, _AT_ONCE):
                count = min(_AT_ONCE, self.copies - first)
                noise = draw.standard_normal((count, x.shape[1]), dtype=np.float32)
                # A copy: tensors that were made for inference take part in no gradient.
                noisy = x.clone() + float(deviation) * torch.from_numpy(noise).to(x.device)
                noisy.requires_grad_()
                logits = self.classifier.logits(noisy)
                (gradient,) = torch.autograd.grad(logits[:, c].sum(), noisy)
                # Where a front-end takes the root of nothing there is no derivative.
                total = total + gradient.nan_to_num(0.0, 0.0, 0.0).sum(0, keepdim=True)
        return total / self.copies

"""What the method is compared with, behind the same protocol and under the same figures.

The gradient methods and occlusion are Captum's. They attribute a class's logit to the bins of
log(1 + |X|), the spectrogram that the dictionary explains; their input is silence where they want
a baseline. An attribution becomes a mask by its positive part, divided by its greatest value::

    M = max(A, 0) / max over bins of max(A, 0)                                     in [0, 1]

Where nothing is positive, the mask is zero.

Differences: others scale an attribution from its least to its greatest value, which turns all
that speaks *against* a class into a background of one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.spectrogram import log_magnitude, log_mel, magnitude, mel_filters
from l2i.explanation import Explainer, MethodSettings
from l2i.explanation.listen_to_interpret import (
    ListenToInterpret,
    audible,
    random_ranks,
    soft_mask,
)
from l2i.models.classifier import FrozenClassifier
from l2i.models.vgg import HIDDEN_MAPS

__all__ = [
    "Full",
    "GradCam",
    "IntegratedGradients",
    "Occlusion",
    "RandomComponents",
    "Saliency",
    "SmoothGrad",
]


class Full:
    """A mask of ones: the explanation is the clip. What it costs to say everything."""

    def __init__(self, explainer: Explainer, settings: MethodSettings) -> None:
        pass

    def __call__(self, spectrum: Tensor, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Ones [B, F, T]; zeros for silence."""
        return audible(magnitude(spectrum)).view(-1, 1, 1).expand(spectrum.shape).float()


class RandomComponents:
    """As many components as L2I selects, drawn at random: what any components would do."""

    def __init__(self, explainer: Explainer, settings: MethodSettings) -> None:
        self._l2i = ListenToInterpret(explainer, settings)
        self._seed = settings.seed

    @torch.inference_mode()
    def __call__(self, spectrum: Tensor, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T] of the drawn components."""
        activations, selected = self._l2i.select(spectrum, classes)
        count = selected.sum(dim=1, keepdim=True)
        rank = random_ranks(keys, self._seed, 1, selected.shape[1])[:, 0].to(selected.device)
        return soft_mask(self._l2i.explainer.w, activations, rank < count)


class _FromSpectrogram(nn.Module):
    """log(1 + |X|) to logits, so that gradients can flow to the spectrogram."""

    def __init__(self, classifier: FrozenClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self._settings = classifier.settings

    def forward(self, size: Tensor) -> Tensor:
        """Logits [B, C] of log magnitudes [B, F, T]."""
        mel = log_mel(size.clamp_min(0).expm1(), self._settings)
        logits: Tensor = self.network(mel.contiguous(memory_format=torch.channels_last))
        return logits


class _Attribution:
    """What the methods of Captum share: clip by clip, from attribution to mask."""

    def __init__(self, explainer: Explainer, settings: MethodSettings) -> None:
        self.classifier = explainer.classifier
        self.forward = _FromSpectrogram(explainer.classifier).eval()
        self.seed = settings.seed

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution [F, T] of one clip's log magnitudes [1, F, T]."""
        raise NotImplementedError

    def __call__(self, spectrum: Tensor, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; clip by clip, since Captum's noise and steps are of a whole batch."""
        masks = []
        with torch.inference_mode(False), torch.enable_grad():
            # Copies: tensors that were made for inference take part in no gradient.
            for x, c, key in zip(spectrum.clone(), classes.tolist(), keys, strict=True):
                size = log_magnitude(x.unsqueeze(0))
                if not bool(size.any()):
                    masks.append(torch.zeros_like(size[0]))
                    continue
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(np.random.default_rng([self.seed, key]).integers(2**62)))
                    a = self.attribute(size, c).detach().clamp_min(0)
                greatest = a.amax()
                masks.append(a / greatest if bool(greatest > 0) else torch.zeros_like(a))
        return torch.stack(masks)


class Saliency(_Attribution):
    """Absolute gradient of the logit (Simonyan, Vedaldi, Zisserman 2014, arXiv 1312.6034)."""

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Of one clip."""
        from captum.attr import Saliency as Method

        found: Tensor = Method(self.forward).attribute(size.requires_grad_(), target=target)
        return found[0]


class SmoothGrad(_Attribution):
    """Mean saliency of noisy copies (Smilkov et al. 2017, arXiv 1706.03825).

    Sixteen copies, noise of a tenth of the spectrogram's range: within the paper's 10 to 20 %.
    """

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Of one clip."""
        from captum.attr import NoiseTunnel
        from captum.attr import Saliency as Method

        found: Tensor = NoiseTunnel(Method(self.forward)).attribute(
            size.requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=16,
            nt_samples_batch_size=8,
            stdevs=0.1 * float(size.detach().amax()),
            target=target,
        )
        return found[0]


class IntegratedGradients(_Attribution):
    """Gradients along the way from silence (Sundararajan, Taly, Yan 2017, arXiv 1703.01365)."""

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Of one clip, in 24 steps."""
        from captum.attr import IntegratedGradients as Method

        found: Tensor = Method(self.forward).attribute(
            size, baselines=0.0, target=target, n_steps=24, internal_batch_size=8
        )
        return found[0]


class GradCam(_Attribution):
    """Channels of the last pooled map, weighted by their mean gradient (Selvaraju et al. 2017,
    arXiv 1610.02391).

    The map has frames and mel bands: it is stretched to all of them, and a bin gets the mean of
    the bands that hear it, weighted by how well. A bin that no band hears gets nothing.
    """

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Of one clip."""
        from captum.attr import LayerGradCam

        layer: Any = self.forward.network.get_submodule(f"netx.{HIDDEN_MAPS['512']}")
        found = LayerGradCam(self.forward, layer).attribute(
            size.requires_grad_(), target=target, relu_attributions=True
        )
        settings = self.classifier.settings
        grid = (size.shape[2], settings.n_mels)
        bands = F.interpolate(found.detach(), grid, mode="bilinear", align_corners=False)[0, 0]
        weight = mel_filters(settings, size.device)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return weight @ bands.T


class Occlusion(_Attribution):
    """Fall of the logit when a patch is silent (Zeiler and Fergus 2014, arXiv 1311.2901).

    Patches of an eighth of the bins and a quarter of a second, side by side.
    """

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Of one clip."""
        from captum.attr import Occlusion as Method

        settings = self.classifier.settings
        bins = -(-size.shape[1] // 8)
        quarter = round(0.25 * settings.sample_rate / settings.hop_length)
        frames = max(1, min(size.shape[2], quarter))
        with torch.no_grad():
            found: Tensor = Method(self.forward).attribute(
                size,
                sliding_window_shapes=(bins, frames),
                strides=(bins, frames),
                baselines=0.0,
                target=target,
                perturbations_per_eval=8,
            )
        return found[0]

"""What the method is compared with, behind the same protocol and under the same figures.

The gradient methods and occlusion are Captum's. They attribute a class's logit to the bins of
log(1 + |X|), the spectrogram that the dictionary explains; their input is silence where they want
a baseline. An attribution becomes a mask by its positive part, divided by its greatest value::

    M = max(A, 0) / max over bins of max(A, 0)                                     in [0, 1]

Where nothing is positive, the mask is zero.

A classifier whose front-end begins with the explanation's transform is asked by its magnitudes.
Any other hears the waveform that they make with the clip's phase, at the clip's level.

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

from l2i.dsp.spectrogram import phase, synthesise
from l2i.errors import MissingPackage
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.families import AtOnce
from l2i.explanation.listen_to_interpret import OnInterpreter, random_ranks, soft_mask
from l2i.models.heard import Heard


class Full(AtOnce):
    """A mask of ones: the explanation is the clip. What it costs to say everything."""

    linear = False

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Ones [B, F, T]."""
        return torch.ones_like(heard.size)


class RandomComponents(OnInterpreter):
    """As many components as L2I selects, drawn at random: what any components would do."""

    linear = False
    heeds = ("threshold", "max_components")

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T] of the drawn components."""
        activations, selected = self.select(heard, classes)
        count = selected.sum(dim=1, keepdim=True)
        ranks = random_ranks(keys, self.settings.seed, 1, selected.shape[1])[:, 0]
        return soft_mask(self.explainer.w, activations, ranks.to(selected.device) < count)


class _FromSpectrogram(nn.Module):
    """log(1 + |X|) of one clip to logits, so that gradients can flow to the spectrogram."""

    clip: Heard
    """Its phase and level are what magnitudes alone do not say."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        # Not the classifier, which would be among this module's own: its mode would be changed, and
        # its weights counted.
        self._subject = subject

    def forward(self, size: Tensor) -> Tensor:
        """Logits [B, C] of log magnitudes [B, F, T]."""
        size = size.clamp_min(0).expm1()
        classifier: Any = self._subject.classifier
        clip = self.clip
        if clip.level is None and hasattr(classifier, "logits_of"):
            return classifier.logits_of(size)
        # A gradient needs another audio per point of the way; all have the clip's phase.
        direction = phase(clip.spectrum, clip.size).expand(size.shape)
        audio = synthesise(direction, size, clip.domain, clip.n_samples)
        return clip.judge(audio, slice(0, 1))


class _Attribution:
    """What the methods of Captum share: clip by clip, from attribution to mask."""

    parts: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    linear = False
    needs_gradients = True
    packages: tuple[str, ...] = ("captum",)

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.classifier = subject.classifier
        self.domain = subject.domain
        self.forward = _FromSpectrogram(subject).eval()
        self.seed = settings.seed

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution [F, T] of one clip's log magnitudes [1, F, T]."""
        raise NotImplementedError

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]: what speaks for the class, the greatest as 1."""
        a = self.attributions(heard, classes, keys).clamp_min(0)
        greatest = a.amax(dim=(1, 2), keepdim=True)
        return torch.where(greatest > 0, a / greatest, 0.0)

    def attributions(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """What `attribute` gives of each clip [B, F, T]; of silence, zero.

        Clip by clip, since Captum's noise and steps are of a whole batch.
        """
        attributions = []
        with torch.inference_mode(False), torch.enable_grad():
            for row, (c, key) in enumerate(zip(classes.tolist(), keys, strict=True)):
                one = heard.take(slice(row, row + 1)).copied()
                size = one.size.log1p()
                if not bool(size.any()):
                    attributions.append(torch.zeros_like(size[0]))
                    continue
                self.forward.clip = one
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(np.random.default_rng([self.seed, key]).integers(2**62)))
                    a = self.attribute(size, c).detach()
                # Where a front-end takes the root of nothing there is no derivative.
                attributions.append(a.nan_to_num(0.0, 0.0, 0.0))
        return torch.stack(attributions)


class Saliency(_Attribution):
    """Absolute gradient of the logit (Simonyan, Vedaldi, Zisserman 2014, arXiv 1312.6034)."""

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution for one clip."""
        from captum.attr import Saliency as Method

        return Method(self.forward).attribute(size.requires_grad_(), target=target)[0]


class SmoothGrad(_Attribution):
    """Mean saliency of noisy copies (Smilkov et al. 2017, arXiv 1706.03825).

    Sixteen copies, noise of a tenth of the spectrogram's range: within the paper's 10 to 20 %.
    """

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution for one clip."""
        from captum.attr import NoiseTunnel
        from captum.attr import Saliency as Method

        return NoiseTunnel(Method(self.forward)).attribute(
            size.requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=16,
            nt_samples_batch_size=8,
            stdevs=0.1 * float(size.detach().amax()),
            target=target,
        )[0]


class IntegratedGradients(_Attribution):
    """Gradients along the way from silence (Sundararajan, Taly, Yan 2017, arXiv 1703.01365)."""

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution for one clip, in 24 steps."""
        from captum.attr import IntegratedGradients as Method

        return Method(self.forward).attribute(
            size, baselines=0.0, target=target, n_steps=24, internal_batch_size=8
        )[0]

    def relevances_of(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """The bins' attributions [B, F T]."""
        return self.attributions(heard, classes, keys).flatten(1)

    @staticmethod
    def worth(logits: Tensor, classes: Tensor) -> Tensor:
        """Logit [B], of which the attributions are shares."""
        return logits.gather(1, classes.unsqueeze(1))[:, 0]


class GradCam(_Attribution):
    """Channels of the last map that has frames, weighted by their mean gradient (Selvaraju et al.
    2017, arXiv 1610.02391).

    The built-in classifier says which bins its map's rows hear; the map is stretched to all frames.
    What the rows of another classifier's map hear is not known: its mask says when, not where.
    """

    packages = ()  # Captum's is the one for the built-in classifier alone.
    needs_layers = True

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution for one clip."""
        classifier: Any = self.classifier
        frames = size.shape[2]
        if not hasattr(classifier, "to_bins"):
            return self._over_time(size, target)
        try:
            from captum.attr import LayerGradCam
        except ModuleNotFoundError as error:
            if error.name != "captum":
                raise
            raise MissingPackage("Grad-CAM of the built-in classifier", "captum") from None
        attribution = LayerGradCam(self.forward, classifier.attribution_layer()).attribute(
            size.requires_grad_(), target=target, relu_attributions=True
        )
        return classifier.to_bins(attribution.detach(), frames)[0]

    def _over_time(self, size: Tensor, target: int) -> Tensor:
        """For a classifier of which only the layers are known [F, T], alike for all bins."""
        classifier: Any = self.classifier
        layer = classifier.chosen_layers()[-1].layer
        with classifier.recorded(layer) as given:
            logits = self.forward(size.requires_grad_())
            gradients = torch.autograd.grad(logits[:, target].sum(), given)
        n_samples = self.forward.clip.n_samples
        x, gradient = (
            classifier.over_time(layer, y, n_samples) for y in (given[0].detach(), gradients[0])
        )
        weight = gradient.mean(dim=(2, 3), keepdim=True)
        cam = F.relu((weight * x).sum(dim=1)).mean(dim=1, keepdim=True)  # [1, 1, T_l]
        wide = F.interpolate(cam.detach(), size=size.shape[2], mode="linear", align_corners=False)
        return wide[0].expand(size.shape[1], -1)


class Occlusion(_Attribution):
    """Fall of the logit when a patch is silent (Zeiler and Fergus 2014, arXiv 1311.2901).

    Patches of an eighth of the bins and a quarter of a second, side by side.
    """

    needs_gradients = False

    def attribute(self, size: Tensor, target: int) -> Tensor:
        """Attribution for one clip."""
        from captum.attr import Occlusion as Method

        bins = -(-size.shape[1] // 8)
        quarter = round(0.25 * self.domain.sample_rate / self.domain.hop_length)
        frames = max(1, min(size.shape[2], quarter))
        with torch.no_grad():
            return Method(self.forward).attribute(
                size,
                sliding_window_shapes=(bins, frames),
                strides=(bins, frames),
                baselines=0.0,
                target=target,
                perturbations_per_eval=8,
            )[0]

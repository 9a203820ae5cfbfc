"""Which channels of a hidden map speak for a class: the class's own gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from l2i.errors import UsageError
from l2i.models.heard import Heard
from l2i.models.layers import Layer

__all__ = ["class_gradient"]


def class_gradient(heard: Heard, layer: str, map_: Tensor, classes: Tensor) -> Tensor:
    """Gradient of a class's logit by the channels of a hidden map, its mean over rows and frames.

    Parameters
    ----------
    heard : Heard
        Of B clips.
    layer : str
        As the classifier has its layers.
    map_ : Tensor [B, D, F, T]
        Of that layer.
    classes : Tensor [B], int64

    Returns
    -------
    Tensor [B, D]

    Raises
    ------
    UsageError
        The classifier has no gradients, or its layer is not on the way to its answer.
    """
    clf: Any = heard.classifier
    above = getattr(clf, "logits_above", None)
    with torch.inference_mode(False), torch.enable_grad():
        chosen = classes.clone().view(-1, 1)
        if above is not None:
            # From the map on: what lies below is not computed again.
            x = map_.clone().requires_grad_()
            own = above(x, layer).gather(1, chosen).sum()
            (found,) = torch.autograd.grad(own, x)
            return found.mean(dim=(2, 3))
        return _recorded(clf, heard.waveform.clone(), layer, chosen)


def _recorded(clf: Any, waveform: Tensor, layer: str, classes: Tensor) -> Tensor:
    """The same by a pass of its own, for a classifier whose upper part cannot be run alone."""
    if not clf.differentiable or not hasattr(clf, "recorded"):
        raise UsageError(
            "This classifier has no gradients that can be read at its layers, which this method "
            "needs: take 'gates' or 'shapley', or give the torch module itself."
        )
    read = Layer.parse(layer)
    with clf.recorded(read) as given:
        logits = clf.logits(waveform.requires_grad_())
    if len(given) != 1 or not given[0].requires_grad:
        raise UsageError(
            f"The class's gradient does not reach the layer {read.name}: name another one."
        )
    (found,) = torch.autograd.grad(logits.gather(1, classes).sum(), given[0], allow_unused=True)
    if found is None:
        raise UsageError(
            f"The layer {read.name} is not on the way to the classifier's answer: name another one."
        )
    per_window = read.map(found).float().mean(dim=(2, 3))
    return per_window.unflatten(0, (len(waveform), -1)).mean(dim=1)

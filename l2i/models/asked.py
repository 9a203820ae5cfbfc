"""Which channels of hidden maps speak for a class: the class's own gradient."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from l2i.errors import UsageError
from l2i.models.axes import Layer
from l2i.models.heard import Heard


def class_gradients(
    heard: Heard, layers: Sequence[str], maps: Sequence[Tensor], classes: Tensor
) -> tuple[Tensor, ...]:
    """Gradient of a class's logit by the channels of hidden maps, its mean over rows and frames.

    Parameters
    ----------
    heard : Heard
        B clips.
    layers : sequence of str
        As the classifier has its layers, the deepest last.
    maps : sequence of Tensor [B, D_l, F_l, T_l]
        What those layers give.
    classes : Tensor [B], int64

    Returns
    -------
    tuple of Tensor [B, D_l]
        Zeros of a map that is not on the way to the classifier's answer.

    Raises
    ------
    UsageError
        The classifier has no gradients, or the deepest layer is not on the way to its answer.
    """
    clf: Any = heard.classifier
    above = getattr(clf, "logits_above", None)
    with torch.inference_mode(False), torch.enable_grad():
        chosen = classes.clone().view(-1, 1)
        if above is not None:
            # From the first map on: what lies below is not computed again.
            x = maps[0].clone().requires_grad_()
            logits, given = above(x, *layers)
            gradients = torch.autograd.grad(logits.gather(1, chosen).sum(), [x, *given])
            return tuple(g.mean(dim=(2, 3)) for g in gradients)
        return _recorded(clf, heard.waveform.clone(), layers, chosen)


def _recorded(
    clf: Any, waveform: Tensor, layers: Sequence[str], classes: Tensor
) -> tuple[Tensor, ...]:
    """The same by a pass of its own, for a classifier whose upper part cannot be run alone."""
    if not clf.differentiable or not hasattr(clf, "recorded"):
        raise UsageError(
            "This classifier has no gradients that can be read at its layers, which this method "
            "needs: take 'shapley', or give the torch module itself."
        )
    read = [Layer.parse(layer) for layer in layers]
    with ExitStack() as stack:
        given = [stack.enter_context(clf.recorded(layer)) for layer in read]
        logits = clf.logits(waveform.requires_grad_())
    # The deepest map is what the class is asked for at; a finer one may lie beside the way.
    reached = [n for n, passes in enumerate(given) if passes and passes[0].requires_grad]
    gradients: list[Tensor | None] = [None] * len(read)
    if reached:
        own = logits.gather(1, classes).sum()
        some = torch.autograd.grad(own, [given[n][0] for n in reached], allow_unused=True)
        for n, gradient in zip(reached, some, strict=True):
            gradients[n] = gradient
    if gradients[-1] is None:
        raise UsageError(
            f"The class's gradient does not reach the layer {read[-1].name}, which is not on the "
            "way to the classifier's answer: name another one."
        )
    means = []
    for layer, mean, passes in zip(read, gradients, given, strict=True):
        map_ = layer.map(torch.zeros_like(passes[0]) if mean is None else mean)
        per_window = map_.float().mean(dim=(2, 3))
        means.append(per_window.unflatten(0, (len(waveform), -1)).mean(dim=1))
    return tuple(means)

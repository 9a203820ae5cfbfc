"""The three terms of the interpreter's loss, one function each.

``lambda_rec * reconstruction + lambda_fid * fidelity + lambda_spa * sparsity`` (paper, eq. 4-6).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.types import Task


def reconstruction_loss(
    activations: Tensor, gram: Tensor, projected: Tensor, energy: Tensor, n_bins: int
) -> Tensor:
    """Mean squared error between W H and S, without ever forming W H.

    ``|S - W H|^2 = |S|^2 - 2 <W'S, H> + <W'W, H H'>``: of a clip, W'S [K, T] and |S|^2 are all
    that the loss needs, a fifth of the spectrogram, and with K a fifth of F the products cost
    a fifth too. Since W is fixed, both are computed once.

    Parameters
    ----------
    activations : Tensor [B, K, T]
        H.
    gram : Tensor [K, K]
        W'W.
    projected : Tensor [B, K, T]
        W'S.
    energy : Tensor [B]
        |S|^2 of each clip.
    n_bins : int
        F, so that the mean is over bins, frames and clips as written.
    """
    batch, _, frames = activations.shape
    quadratic = (torch.matmul(gram, activations) * activations).sum()
    linear = (projected * activations).sum()
    return (energy.sum() - 2 * linear + quadratic) / (batch * n_bins * frames)


def fidelity_loss(classifier_logits: Tensor, interpreter_logits: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the interpreter's classes under the classifier's, mean over clips.

    Single-label: ``-sum_c softmax(f)_c log softmax(g)_c``; multi-label: binary cross-entropy
    between the sigmoids, mean over clips and classes. The targets are the classifier's
    outputs, never the labels.

    Parameters
    ----------
    classifier_logits, interpreter_logits : Tensor [B, C]
    """
    if task is Task.SINGLE_LABEL:
        return F.cross_entropy(interpreter_logits, classifier_logits.softmax(dim=1))
    return F.binary_cross_entropy_with_logits(interpreter_logits, classifier_logits.sigmoid())


def sparsity_loss(activations: Tensor) -> Tensor:
    """Mean of |H|; H is non-negative."""
    return activations.mean()

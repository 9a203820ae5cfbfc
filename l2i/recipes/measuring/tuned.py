"""A judge that is at home with masked sounds: the classifier, fine-tuned on random masks.

What is left of a sound by a mask is unlike anything a classifier has learnt from, and a fall of
probability may say no more than that. One that has heard clips with any of their parts missing
judges what is missing.

Source: Zheng et al., *F-Fidelity*, ICLR 2025, arXiv 2410.02970.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import log_mel, magnitude, phase, synthesise
from l2i.metrics.sensitivity import tiles
from l2i.models.classifier import FrozenClassifier
from l2i.models.vgg import VGG
from l2i.run.progress import Progress
from l2i.types import Task

__all__ = ["tuned_on_masks"]

_BATCH = 16
_RATE = 1e-4


def tuned_on_masks(
    classifier: FrozenClassifier,
    network: VGG,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    seed: int,
    progress: Progress,
    epochs: int = 10,
) -> FrozenClassifier:
    """A copy of the built-in classifier that has heard clips with random tiles missing.

    In each epoch anew, tiles of each clip's time-frequency plane are kept with a probability that
    is itself drawn from 0 to 1. It learns to say of them what the classifier says of the whole
    clip, so that no label is needed.

    Parameters
    ----------
    classifier : FrozenClassifier
        Left as it is.
    network : VGG
        Its weights, with batch norms; it learns, and is changed.
    waveforms : float32 [M, S]
    rows : int64 [N]
        The clips that it learns from: those that the classifier was trained on.
    seed : int
    progress : Progress
    epochs : int
    """
    # In evaluation mode: statistics of batch norms are those of whole clips.
    network = network.to(classifier.device).eval().requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    rng = np.random.default_rng([seed, len(rows)])
    with progress.task("evaluator", total=epochs * len(rows), unit="clip") as bar:
        for _ in range(epochs):
            order = rng.permutation(rows)
            for start in range(0, len(order), _BATCH):
                some = order[start : start + _BATCH]
                x = torch.from_numpy(np.array(waveforms[some])).to(classifier.device)
                with torch.no_grad():
                    target = classifier.logits(x)
                    spectrum = classifier.spectrum(_masked(classifier, x, rng))
                    mel = log_mel(spectrum, classifier.settings)
                # What was made for inference takes part in no gradient.
                loss = _loss(network(mel.clone()), target.clone(), classifier.task)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.advance(len(some))
    return FrozenClassifier(
        network,
        classifier.settings,
        classifier.classes,
        classifier.task,
        classifier.thresholds.tolist(),
        classifier.device,
        classifier.dtype,
    )


def _masked(classifier: FrozenClassifier, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Clips [B, S] without some of their tiles."""
    spectrum = classifier.spectrum(x)
    size = magnitude(spectrum)
    tile = tiles(size.shape[2], classifier.domain)
    share = rng.random((len(x), 1))
    kept = rng.random((len(x), int(tile.max()) + 1)) < share
    gain = torch.from_numpy(kept.astype(np.float32))[:, tile].to(size.device)
    return synthesise(phase(spectrum, size), gain * size, classifier.domain, x.shape[1])


def _loss(logits: Tensor, target: Tensor, task: Task) -> Any:
    if task is Task.SINGLE_LABEL:
        return F.cross_entropy(logits, target.softmax(1))
    return F.binary_cross_entropy_with_logits(logits, target.sigmoid())

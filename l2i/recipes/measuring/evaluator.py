"""Who judges explanations and was not in the loop: another run's classifier, or one that is at home
with masked sounds, the classifier itself, fine-tuned on random masks.

What is left of a sound by a mask is unlike anything a classifier has learnt from, and a fall of
probability may say no more than that. One that has heard clips with any of their parts missing
judges what is missing.

Source: Zheng et al., *F-Fidelity*, ICLR 2025, arXiv 2410.02970.
"""

from __future__ import annotations

import copy
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.spectrogram import log_mel, magnitude, phase, synthesise
from l2i.errors import UsageError
from l2i.metrics.sensitivity import tiles
from l2i.models.checkpoint import load_checkpoint
from l2i.models.classifier import FrozenClassifier
from l2i.models.losses import fidelity_loss
from l2i.models.optimizers import Adam
from l2i.models.vgg import VGG, fold_batch_norm
from l2i.recipes.measuring.probes import Evaluator
from l2i.recipes.opening.bundle import WEIGHTS, build_network, open_bundle
from l2i.recipes.opening.opened import Opened, Where
from l2i.run.artifacts import download
from l2i.run.device import pick_device
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run

_BATCH = 16
_RATE = 1e-4

TUNED = "random-masks"
"""The run's own classifier, fine-tuned on random masks."""


def open_evaluator(
    opened: Opened, word: str, progress: Progress, **where: Unpack[Where]
) -> Evaluator:
    """The classifier of another run, or the run's own after random masks, as a probe."""
    own = opened.subject.classifier
    if word == TUNED:
        if not isinstance(own, FrozenClassifier):
            raise UsageError(
                "Only the built-in classifier can be fine-tuned on random masks: give another run "
                "as the evaluator."
            )
        material = opened.material
        rows = material.rows(material.split.train)
        seed = opened.config.run.seed
        path = download(opened.run, WEIGHTS) / "classifier.safetensors"
        network = build_network(*load_checkpoint(path, "classifier"), path)
        waves = material.waves.array
        tuned = tuned_on_masks(own, network, waves, rows, seed=seed, progress=progress)
        return Evaluator(tuned, own)
    run = resolve_run(word)
    if run.id == opened.run.id:
        raise UsageError(
            f"The evaluator {run.name} ({run.id[:8]}) is the run itself, which was in the loop: "
            "give a run with another seed."
        )
    place, dtype, _ = pick_device(where.get("device", "auto"), where.get("precision", "float32"))
    config, subject = open_bundle(run, place, dtype)
    mine, other = opened.config.dataset, config.dataset
    if (mine.name, mine.fold) != (other.name, other.fold):
        progress.say(
            f"The evaluator was trained on {other.name}, fold {other.fold}, and these are the test "
            f"clips of {mine.name}, fold {mine.fold}: it may have learnt from them."
        )
    return Evaluator(subject.classifier, own)


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
    optimizer = Adam(network.parameters(), lr=_RATE)
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
                loss = fidelity_loss(target.clone(), network(mel.clone()), classifier.task)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.advance(len(some))
    tuned = copy.copy(classifier)
    tuned.network = fold_batch_norm(network)
    return tuned


def _masked(classifier: FrozenClassifier, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Clips [B, S] without some of their tiles."""
    spectrum = classifier.spectrum(x)
    size = magnitude(spectrum)
    tile = tiles(size.shape[2], classifier.domain)
    share = rng.random((len(x), 1))
    kept = rng.random((len(x), int(tile.max()) + 1)) < share
    gain = torch.from_numpy(kept.astype(np.float32))[:, tile].to(size.device)
    return synthesise(phase(spectrum, size), gain * size, classifier.domain, x.shape[1])

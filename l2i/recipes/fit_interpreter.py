"""The interpreter of a run, trained to say what the frozen classifier says."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.config import Config
from l2i.models.classifier import FrozenClassifier
from l2i.models.features import FeatureStore, compute_features
from l2i.models.interpreter import Interpreter
from l2i.models.losses import fidelity_loss, reconstruction_loss, sparsity_loss
from l2i.recipes.bundle import build_interpreter
from l2i.recipes.fitting import average_weights, best_epoch, in_batches, keep_best, share_right
from l2i.recipes.material import Material
from l2i.recipes.stage import Stage
from l2i.run.device import epoch_generator
from l2i.run.progress import Progress
from l2i.types import Task

__all__ = ["fit_interpreter", "validate"]


def fit_interpreter(
    config: Config,
    material: Material,
    classifier: FrozenClassifier,
    w: Tensor,
    stage: Stage,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Train an interpreter from where the stage stands, and finish the stage with its best epoch.

    What the frozen classifier says of the clips is computed once, before the first epoch. A resumed
    training takes up what lies on disk of it.

    Parameters
    ----------
    config : Config
    material : Material
    classifier : FrozenClassifier
    w : Tensor
        The dictionary [F, K], on the device.
    stage : Stage
    device : device
    dtype : dtype
        Of the network's arithmetic; weights and losses are float32.
    progress : Progress

    Raises
    ------
    DataError
        A loss is no longer a number.
    """
    i, split = config.interpreter, material.split
    maps = tuple(dict.fromkeys(i.maps))
    with progress.task(
        "hidden maps", total=len(split.train) * i.views + len(split.validate), unit="clip"
    ) as bar:
        kept = compute_features(
            classifier,
            w,
            material.waves.array,
            material.rows(split.train),
            maps,
            stage.folder / "train",
            views=i.views,
            mixed_db=i.mixed_db,
            silenced=i.silenced,
            generator=epoch_generator(config.run.seed, "views"),
            on_clip=bar.advance,
        )
        held = compute_features(
            classifier,
            w,
            material.waves.array,
            material.rows(split.validate),
            maps,
            stage.folder / "validate",
            on_clip=bar.advance,
        )
    meta = {
        "components": w.shape[1],
        "n_classes": len(classifier.classes),
        "maps": list(maps),
        "rows": material.settings.n_mels // 32,
        "pooling": i.pooling,
        "attention_width": i.attention_width,
        "skip_silence": i.skip_silence,
    }
    torch.manual_seed(config.run.seed)
    network = build_interpreter(meta).to(device)
    averaged = copy.deepcopy(network) if i.average else network
    networks = {"network": network} | ({"averaged": averaged} if i.average else {})
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p is not network.theta]},
        {"params": [network.theta], "lr": i.head_learning_rate or i.learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, lr=i.learning_rate)
    gram = w.T @ w
    n, task = len(split.train), material.card.task
    batches = len(in_batches(torch.arange(n), i.batch_size))
    best = stage.restore(optimizer, **networks)
    done = len(stage.history)
    with progress.task("interpreter", total=i.epochs, unit="epoch", done=done) as bar:
        for epoch in range(done + 1, i.epochs + 1):
            generator = epoch_generator(config.run.seed, "interpreter", epoch)
            late = epoch >= i.late_epoch
            weight = i.lambda_fidelity_late if late else i.lambda_fidelity
            # Of each clip one view per epoch: the same number of steps, whatever the views.
            view = torch.randint(i.views, (n,), generator=generator) * n + torch.arange(n)
            network.train()
            totals = torch.zeros(3, dtype=torch.float64)
            order = view[torch.randperm(n, generator=generator)]
            for step, rows in enumerate(in_batches(order, i.batch_size)):
                features, audible, projected, energy = kept.batch(rows, device)
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    said = network(features.maps, kept.frames, audible)
                h = said.activations.float()
                terms = (
                    reconstruction_loss(h, gram, projected, energy, w.shape[0]),
                    fidelity_loss(features.logits, said.logits.float(), task),
                    sparsity_loss(h),
                )
                loss = i.lambda_reconstruction * terms[0] + weight * terms[1]
                loss = loss + i.lambda_sparsity * terms[2]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if i.average:
                    average_weights(averaged, network, (epoch - 1) * batches + step, i.average)
                totals += torch.stack([t.detach().double().cpu() for t in terms]) * len(rows)
            figures = dict(
                zip(("reconstruction", "fidelity", "sparsity"), (totals / n).tolist(), strict=True)
            )
            figures |= validate(averaged, held, gram, w.shape[0], task, device, dtype, i.batch_size)
            best = keep_best(stage, figures, averaged, best)
            stage.save(optimizer, best, **networks)
            bar.advance(1, f"validation fidelity {figures['validation_fidelity']:.3f}")
    stage.finish(best, {**meta, "epoch": best_epoch(stage)}, material.settings)


@torch.inference_mode()
def validate(
    network: Interpreter,
    held: FeatureStore,
    gram: Tensor,
    n_bins: int,
    task: Task,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> dict[str, float]:
    """What an epoch is judged by, on clips that were not trained on.

    Parameters
    ----------
    network : Interpreter
    held : FeatureStore
        What the classifier said of those clips.
    gram : Tensor
        W'W [K, K] of the dictionary.
    n_bins : int
        F.
    task : Task
    device : device
    dtype : dtype
    batch_size : int

    Returns
    -------
    dict of str to float
        ``validation_loss`` (of fidelity), ``validation_reconstruction``, and
        ``validation_fidelity``: the share of clips, or of clip-and-class pairs, on which
        interpreter and classifier agree.
    """
    network.eval()
    loss = rec = agree = 0.0
    for rows in torch.arange(len(held)).split(batch_size):
        features, audible, projected, energy = held.batch(rows, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            said = network(features.maps, held.frames, audible)
        g = said.logits.float()
        loss += float(fidelity_loss(features.logits, g, task)) * len(rows)
        h = said.activations.float()
        rec += float(reconstruction_loss(h, gram, projected, energy, n_bins)) * len(rows)
        target = (
            F.one_hot(features.logits.argmax(1), g.shape[1])
            if task is Task.SINGLE_LABEL
            else features.logits > 0
        )
        agree += share_right(g, target.float(), task) * len(rows)
    n = len(held)
    return {
        "validation_loss": loss / n,
        "validation_reconstruction": rec / n,
        "validation_fidelity": agree / n,
    }

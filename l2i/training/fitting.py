"""What the trainings of classifier and interpreter share.

The best epoch of either is the one with the lowest loss on the validation clips, which are taken
from the training clips. A loss and not a share of right answers: with some thirty validation clips,
shares come in steps of three per cent, and many epochs tie.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from l2i.errors import DataError
from l2i.training.stage import Stage
from l2i.types import Task


@torch.no_grad()
def average_weights(
    averaged: torch.nn.Module, network: torch.nn.Module, step: int, decay: float
) -> None:
    """Let the averaged weights (and batch norms' statistics) follow the trained ones.

    An exponential moving average (Polyak and Juditsky 1992). Few clips give noisy steps, and a
    few dozen validation clips cannot tell a good epoch from a lucky one; the average has
    neither trouble. It is shorter in the beginning, where the weights move fast.

    Parameters
    ----------
    averaged, network : Module
        The first is changed.
    step : int
        How many steps were taken before this one, from the beginning of the training.
    decay : float
        What is kept of the average per step, at most; 0 <= decay < 1.
    """
    keep = min(decay, (2 + step) / (11 + step))
    for mine, theirs in zip(
        averaged.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - keep)
        else:
            mine.copy_(theirs)


def in_batches(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Rows of a shuffled epoch in batches of nearly the same size.

    The last batch is no leftover. Batches of 16 would leave one of 289 clips over, and by
    batch norms that know one clip alone its gradient is up to 80 times that of 16: Adam remembers
    the square of it for a thousand steps, and takes small ones.

    Parameters
    ----------
    rows : Tensor [n]
    size : int
        At most so many in a batch; one more where a single one would be left.

    Returns
    -------
    tuple of Tensor
        As few batches as there can be. None is of one row, unless `size` or n is 1.
    """
    n = len(rows)
    count = math.ceil(n / size)
    return rows.tensor_split(count if size == 1 else min(count, max(1, n // 2)))


def keep_best(
    stage: Stage,
    figures: dict[str, float],
    network: torch.nn.Module,
    best: dict[str, Tensor],
    *,
    last: bool = False,
    since: int = 0,
) -> dict[str, Tensor]:
    """Append an epoch's figures to the stage's history, and say which weights to keep so far.

    Parameters
    ----------
    stage : Stage
    figures : dict of str to float
        With ``validation_loss``, which decides.
    network : Module
        As it is after this epoch.
    best : dict of str to Tensor
        The weights of the best epoch so far.
    last : bool
        Every epoch is better than those before it.
    since : int
        So many epochs learnt by another loss: each is better than those before it.

    Returns
    -------
    dict of str to Tensor
        The network's weights, copied, where no earlier epoch was as good; else `best`.

    Raises
    ------
    DataError
        A figure is no number.
    """
    if not all(math.isfinite(v) for v in figures.values()):
        raise DataError(
            f"The {stage.name}'s loss is no longer a number in epoch {len(stage.history) + 1}: "
            f"{figures}; a lower learning rate or --precision float32 may help."
        )
    stage.history.append(figures)
    if best_epoch(stage, last=last, since=since) == len(stage.history):
        return {k: v.detach().clone() for k, v in network.state_dict().items()}
    return best


def best_epoch(stage: Stage, *, last: bool = False, since: int = 0) -> int:
    """The epoch with the lowest validation loss, from 1; of equal ones the first. Or the `last`.

    The first `since` epochs, which learnt by another loss, do not count once there are more.
    """
    if last or len(stage.history) <= since:
        return len(stage.history)
    losses = [figures["validation_loss"] for figures in stage.history[since:]]
    return since + 1 + losses.index(min(losses))


def share_right(logits: Tensor, targets: Tensor, task: Task) -> float:
    """Share of right answers: of clips, or of clip-and-class pairs at 0.5.

    Parameters
    ----------
    logits, targets : Tensor
        [B, C]; targets are 0 or 1.
    task : Task

    Returns
    -------
    float
        From 0 to 1.
    """
    if task is Task.SINGLE_LABEL:
        return float((logits.argmax(1) == targets.argmax(1)).float().mean())
    return float(((logits > 0) == (targets > 0.5)).float().mean())

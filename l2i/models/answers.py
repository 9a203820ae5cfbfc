"""What logits say, whatever classifier gave them: probabilities, and which classes are there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.types import Task


class Answers:
    """A classifier's reading of its own logits.

    Attributes
    ----------
    task : Task
    thresholds : Tensor [C]
        Multi-label: from which probability on a class counts as present.
    """

    task: Task
    thresholds: Tensor

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax or sigmoid [..., C], as the task has it."""
        return logits.softmax(-1) if self.task is Task.SINGLE_LABEL else logits.sigmoid()

    def decisions(self, logits: Tensor) -> Tensor:
        """Bool [B, C]: the best class, or every class from its threshold on."""
        if self.task is Task.SINGLE_LABEL:
            return torch.zeros_like(logits, dtype=torch.bool).scatter_(
                1, logits.argmax(1, keepdim=True), True
            )
        return logits.sigmoid() >= self.thresholds.to(logits.device)


def log_probabilities(logits: Tensor, task: Task) -> Tensor:
    """Log-probabilities [B, C] of logits [B, C], to which gradients flow."""
    return F.logsigmoid(logits) if task is Task.MULTI_LABEL else logits.log_softmax(1)


def log_odds(logits: Tensor, classes: Tensor, task: Task) -> Tensor:
    """log(p / (1 - p)) [B] of one class per clip.

    Parameters
    ----------
    logits : Tensor [B, C]
    classes : Tensor [B], int64
    task : Task

    Examples
    --------
    >>> log_odds(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), Task.SINGLE_LABEL)
    tensor([2.])
    """
    own = logits.gather(1, classes.view(-1, 1)).squeeze(1)
    if task is Task.MULTI_LABEL:
        return own
    return own - logits.scatter(1, classes.view(-1, 1), -torch.inf).logsumexp(1)


def objective(
    inside: Tensor,
    outside: Tensor,
    target: Tensor,
    kept: Tensor,
    *,
    size: float,
    margin: float,
    surer: float = 0.0,
) -> Tensor:
    """What gates make least, per clip [B]; see `l2i.explanation.gates`.

    Parameters
    ----------
    inside, outside : Tensor [B]
        Log-odds of the class: by the explanation alone, and by what is left.
    target : Tensor [B]
        By the clip.
    kept : Tensor [B]
        Share of the clip's magnitude in the explanation, in [0, 1].
    size : float
        Weight of what is kept.
    margin : float
        By how much the log-odds are to fall below even, or below the clip's.
    surer : float
        By how much the explanation's are to be above the clip's.
    """
    wanted = target.clamp(max=0) - margin
    return F.relu(target + surer - inside) + F.softplus(outside - wanted) + size * kept

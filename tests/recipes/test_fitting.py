"""Which epoch's weights are kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from l2i.training.fitting import best_epoch, in_batches, keep_best
from l2i.training.stage import Stage


def _learn(losses: list[float], *, last: bool = False, since: int = 0) -> tuple[int, Tensor]:
    """The epoch, and the weight, which counts epochs, that are kept of so many epochs."""
    stage = cast(Stage, SimpleNamespace(name="toy", history=[]))
    network = torch.nn.Linear(1, 1, bias=False)
    best: dict[str, Tensor] = {}
    for epoch, loss in enumerate(losses, start=1):
        torch.nn.init.constant_(network.weight, epoch)
        best = keep_best(stage, {"validation_loss": loss}, network, best, last=last, since=since)
    return best_epoch(stage, last=last, since=since), best["weight"]


@pytest.mark.parametrize(
    ("losses", "last", "kept"),
    [
        ([3.0, 1.0, 2.0], False, 2),
        ([3.0, 1.0, 1.0], False, 2),
        ([3.0, 1.0, 2.0], True, 3),
        ([1.0], True, 1),
    ],
)
def test_the_best_or_the_last(losses: list[float], last: bool, kept: int) -> None:
    """The first of equally good ones; the weights are those of the epoch that is named, and no
    later step changes them."""
    epoch, weight = _learn(losses, last=last)
    assert epoch == kept
    assert weight.item() == kept


@pytest.mark.parametrize(
    ("losses", "kept"), [([1.0, 2.0], 2), ([1.0, 2.0, 9.0], 3), ([1.0, 2.0, 9.0, 8.0, 8.0], 4)]
)
def test_epochs_of_another_loss(losses: list[float], kept: int) -> None:
    """Two of them do not count beside those that follow, however low their losses are."""
    epoch, weight = _learn(losses, since=2)
    assert epoch == kept and weight.item() == kept


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (289, 16, [16] * 4 + [15] * 15),
        (32, 16, [16, 16]),
        (33, 16, [11, 11, 11]),
        (17, 16, [9, 8]),
        (15, 16, [15]),
        (3, 2, [3]),
        (5, 2, [3, 2]),
        (4, 2, [2, 2]),
        (3, 1, [1, 1, 1]),
        (1, 16, [1]),
    ],
)
def test_no_batch_is_a_leftover(n: int, size: int, sizes: list[int]) -> None:
    """Each row once, in its order; sizes differ by one at most."""
    batches = in_batches(torch.arange(n), size)
    assert [len(rows) for rows in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(n))

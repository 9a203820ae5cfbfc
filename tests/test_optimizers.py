"""`l2i.models.optimizers`: torch's steps, without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from l2i.models.optimizers import Adam, AdamW
from tests.conftest import REPOSITORY


def _steps(kind: type[Optimizer], grad: bool) -> list[Tensor]:
    """A few steps of two groups, stopped and gone on with once."""
    torch.manual_seed(0)
    weights = [torch.randn(5, requires_grad=True), torch.randn(3, 2, requires_grad=True)]
    groups = [{"params": weights[:1], "lr": 0.1}, {"params": weights[1:]}]
    optimizer = kind(groups, weight_decay=0.01)  # type: ignore[call-arg]
    for step in range(4):
        sum(w.pow(4).sum() for w in weights).backward()  # type: ignore[union-attr]
        with torch.set_grad_enabled(grad):
            optimizer.step()
        optimizer.zero_grad()
        if step == 1:
            optimizer.load_state_dict(optimizer.state_dict())
    return weights


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("own", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_steps_are_torchs(own: type[Optimizer], theirs: type[Optimizer], grad: bool) -> None:
    """To the bit, whether or not gradients are on around them."""
    for mine, wanted in zip(_steps(own, grad), _steps(theirs, grad), strict=True):
        assert torch.equal(mine, wanted) and mine.grad is None


def test_no_compiler_is_imported() -> None:
    """By an explanation that is found by descent."""
    code = (
        "import sys, torch, l2i\n"
        "from tests.test_gates import RATE, TwoTones\n"
        "clf = l2i.wrap(TwoTones(), RATE, ['low', 'high'])\n"
        "l2i.explain(clf, torch.randn(RATE), 'low', method='gates', components=2, steps=1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)

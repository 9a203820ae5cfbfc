"""`l2i.models.losses` against the sums written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.models.losses import fidelity_loss, reconstruction_loss, sparsity_loss
from l2i.types import Task
from tests import reference

seeded = settings(derandomize=True, deadline=None, max_examples=60, database=None)
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31)


def _terms(
    s: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """What the loss reads instead of S: W'W, W'S, |S|^2, F."""
    return w.T @ w, w.T @ s, s.square().sum(dim=(1, 2)), s.shape[1]


@seeded
@given(seeds, sizes, sizes, sizes, sizes)
def test_reconstruction_is_the_mean_squared_error(
    seed: int, b: int, f: int, k: int, t: int
) -> None:
    """The expanded square equals the mean of (S - W H)^2, with W H really formed."""
    g = torch.Generator().manual_seed(seed)
    s = torch.rand(b, f, t, generator=g, dtype=torch.float64)
    w = torch.rand(f, k, generator=g, dtype=torch.float64)
    h = torch.rand(b, k, t, generator=g, dtype=torch.float64)
    gram, projected, energy, bins = _terms(s, w)
    got = reconstruction_loss(h, gram, projected, energy, bins).item()
    assert got == pytest.approx(reference.reconstruction_loss(s, w, h), rel=1e-9, abs=1e-12)


def test_reconstruction_is_zero_where_w_h_is_s() -> None:
    """An exact reconstruction costs nothing, and no reconstruction costs the energy."""
    g = torch.Generator().manual_seed(0)
    w = torch.rand(8, 3, generator=g, dtype=torch.float64)
    h = torch.rand(2, 3, 5, generator=g, dtype=torch.float64)
    s = w @ h
    gram, projected, energy, bins = _terms(s, w)
    exact = reconstruction_loss(h, gram, projected, energy, bins).item()
    nothing = reconstruction_loss(0 * h, gram, projected, energy, bins).item()
    assert exact == pytest.approx(0.0, abs=1e-12)
    assert nothing == pytest.approx(s.square().mean().item())


def test_reconstruction_has_the_gradient_of_the_mean_squared_error() -> None:
    """What trains the interpreter is the same, not only what is shown."""
    g = torch.Generator().manual_seed(1)
    s, w = torch.rand(2, 9, 7, generator=g), torch.rand(9, 4, generator=g)
    a = torch.rand(2, 4, 7, generator=g).requires_grad_()
    b = a.detach().clone().requires_grad_()
    gram, projected, energy, bins = _terms(s, w)
    reconstruction_loss(a, gram, projected, energy, bins).backward()
    torch.nn.functional.mse_loss(w @ b, s).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_a_mean_over_batches_of_equal_size_is_the_mean_over_all() -> None:
    """The loss is a mean over clips: two batches' mean is the loss of both together."""
    g = torch.Generator().manual_seed(2)
    s, w = torch.rand(4, 9, 7, generator=g), torch.rand(9, 3, generator=g)
    h = torch.rand(4, 3, 7, generator=g)
    gram, projected, energy, bins = _terms(s, w)

    def loss(rows: slice) -> float:
        return reconstruction_loss(h[rows], gram, projected[rows], energy[rows], bins).item()

    both = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
    assert both == pytest.approx(loss(slice(0, 4)), rel=1e-5)


@seeded
@given(seeds, sizes, st.integers(2, 6))
def test_fidelity_is_the_cross_entropy(seed: int, b: int, c: int) -> None:
    """Single-label: between softmaxes; multi-label: between sigmoids; both written out."""
    g = torch.Generator().manual_seed(seed)
    predicted, heard = 4 * torch.randn(2, b, c, generator=g, dtype=torch.float64)
    single = fidelity_loss(predicted, heard, Task.SINGLE_LABEL).item()
    multi = fidelity_loss(predicted, heard, Task.MULTI_LABEL).item()
    assert single == pytest.approx(reference.fidelity_single(predicted.tolist(), heard.tolist()))
    assert multi == pytest.approx(reference.fidelity_multi(predicted.tolist(), heard.tolist()))


@pytest.mark.parametrize("task", list(Task))
def test_fidelity_is_least_where_the_interpreter_agrees(task: Task) -> None:
    """With the classifier's own logits the gradient is zero, and any step away costs more."""
    g = torch.Generator().manual_seed(3)
    f = torch.randn(4, 5, generator=g, dtype=torch.float64)
    heard = f.clone().requires_grad_()
    least = fidelity_loss(f, heard, task)
    least.backward()
    torch.testing.assert_close(heard.grad, torch.zeros_like(f), atol=1e-12, rtol=0)
    for _ in range(5):
        step = torch.randn(4, 5, generator=g, dtype=torch.float64)
        assert fidelity_loss(f, f + step, task) > least


def test_fidelity_of_one_class_sure_of_itself() -> None:
    """On paper: the classifier is certain, the interpreter gives its class 1/4: log 4."""
    f = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    assert fidelity_loss(f, torch.zeros(1, 4), Task.SINGLE_LABEL).item() == pytest.approx(1.386294)
    # Multi-label: of the four, one is certain, three are as undecided as the interpreter.
    assert fidelity_loss(f, torch.zeros(1, 4), Task.MULTI_LABEL).item() == pytest.approx(0.693147)


def test_sparsity_is_the_mean_activation() -> None:
    """Mean of |H| over clips, components and frames."""
    h = torch.tensor([[[1.0, 0.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert sparsity_loss(h).item() == 1.0

"""The dictionary W: sparse NMF of log(1 + |X|), with columns of unit length.

The objective, over all frames s_n of the training clips::

    D(W, H) = 1/2 sum_n |s_n - W h_n|^2  +  sparsity * sum H,     W >= 0, |w_k| = 1, H >= 0

Without the unit columns the penalty would mean nothing: W could grow and H shrink.

Each sweep minimises D exactly, one coordinate block after the other, so that D never rises:

- activations, component after component: ``h_k = relu(w_k' S - sum_{j != k} g_kj h_j -
  sparsity)`` with ``G = W'W`` (its diagonal is 1);
- columns: with |w_k| fixed, the quadratic term in w_k is constant and the best unit,
  non-negative column is ``relu(v) / |relu(v)|`` for ``v = sum_n (residual without k)_n h_kn``.

This is hierarchical alternating least squares (Cichocki, Zdunek, Amari 2007) with the penalty of
Hoyer 2002 and the constraint of Le Roux, Hershey, Weninger 2015 (*Sparse NMF: half-baked or well
done?*); that report's multiplicative updates minimise the same D, without the guarantee. Columns
need only ``A = H H'`` and ``B = S H'``, sums over frames, so that the frames pass by in blocks and
18,000 clips need no more memory than one block (and the activations, which may lie on disk).

Differences: the published dictionaries write D without the 1/2; `sparsity` here is theirs under
the convention with it, Le Roux's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l2i.errors import DataError

_COLUMNS_AT_ONCE = 2048  # Frames per inner block on a CPU: K x 2048 floats stay in its cache.


def unit_columns(w: Tensor) -> Tensor:
    """W with columns of unit L2 length; a column of zeros stays zero.

    >>> unit_columns(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    tensor([[0.6000, 0.0000],
            [0.8000, 0.0000]])
    """
    length = w.norm(dim=0, keepdim=True)
    return torch.where(length > 0, w / length.clamp_min(torch.finfo(w.dtype).tiny), 0.0)


def random_dictionary(n_bins: int, components: int, generator: torch.Generator) -> Tensor:
    """Columns that nothing was learnt for: directions drawn evenly among the non-negative ones.

    Parameters
    ----------
    n_bins, components : int
        F and K.
    generator : torch.Generator

    Returns
    -------
    Tensor [F, K]
        Unit columns.
    """
    return unit_columns(torch.randn(n_bins, components, generator=generator).abs())


def band_dictionary(n_bins: int, components: int) -> Tensor:
    """Contiguous bands of frequency, as equal as they can be, in place of spectral patterns.

    Each bin is in one column and no other: components are then no more than parts of the
    spectrum.

    Parameters
    ----------
    n_bins, components : int
        F and K, K at most F.

    Returns
    -------
    Tensor [F, K]
        Unit columns.

    Raises
    ------
    DataError
        There are more components than bins.

    Examples
    --------
    >>> band_dictionary(4, 2)
    tensor([[0.7071, 0.0000],
            [0.7071, 0.0000],
            [0.0000, 0.7071],
            [0.0000, 0.7071]])
    """
    if components > n_bins:
        raise DataError(f"{n_bins} frequency bins cannot make {components} bands.")
    of_bin = torch.arange(n_bins) * components // n_bins
    return unit_columns(torch.nn.functional.one_hot(of_bin, components).float())


def _first_activations(gram: Tensor, projected: Tensor, sparsity: float) -> Tensor:
    # A diagonal step that cannot overshoot: rows of G bound its effect. From zeros instead,
    # the first component would take everything that it can explain.
    return (projected - sparsity).clamp_min(0) / gram.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _sweep(gram: Tensor, projected: Tensor, h: Tensor, sparsity: float) -> None:
    """One exact pass over the components of h [K, n], in place."""
    width = h.shape[1] if h.device.type != "cpu" else _COLUMNS_AT_ONCE
    others = gram - torch.diag(gram.diagonal())
    goal = projected - sparsity
    # A dead column (zero) explains nothing and is never active.
    alive = gram.diagonal() > 0
    for start in range(0, h.shape[1], width):
        part = h[:, start : start + width].contiguous()
        want = goal[:, start : start + width]
        for k in range(len(part)):
            if alive[k]:
                torch.addmv(want[k], part.T, others[k], alpha=-1.0, out=part[k])
                part[k].clamp_min_(0)
            else:
                part[k].zero_()
        h[:, start : start + width] = part


def encode(frames: Tensor, w: Tensor, sparsity: float = 0.0, *, sweeps: int = 50) -> Tensor:
    """Activations [K, N] of `frames` [F, N] under a fixed dictionary [F, K] of unit columns."""
    gram, projected = w.T @ w, w.T @ frames
    h = _first_activations(gram, projected, sparsity)
    for _ in range(sweeps):
        _sweep(gram, projected, h, sparsity)
    return h


def learn_dictionary(
    blocks: Sequence[Tensor],
    components: int,
    *,
    sparsity: float,
    iterations: int,
    generator: torch.Generator,
    tolerance: float = 0.0,
    fixed: Tensor | None = None,
    scratch: Path | None = None,
    on_sweep: Callable[[float], None] | None = None,
    setting: str = "dictionary.components",
) -> tuple[Tensor, list[float]]:
    """Sparse NMF over blocks of frames.

    Parameters
    ----------
    blocks : sequence of Tensor [F, n]
        The training frames, of any block lengths; read once per sweep, so that they may be
        computed when asked for. The result does not depend on where the blocks are cut.
    components : int
        K.
    sparsity : float
        Weight of the penalty, at least 0.
    iterations : int
        Sweeps, at most.
    generator : torch.Generator
        Draws the frames that the columns start from.
    tolerance : float
        Stop when D falls by less than this share of itself.
    fixed : Tensor [F, L], optional
        Columns that take part in the explanation of the frames but do not change.
    scratch : Path, optional
        A file for the activations; without it they are kept in memory.
    on_sweep : callable, optional
        Called with D per frame after each sweep.
    setting : str
        What says how many components there are, for messages.

    Returns
    -------
    Tensor [F, K]
        W, without the fixed columns.
    list of float
        D per frame after each sweep; never rises.

    Raises
    ------
    DataError
        If there are fewer frames than components that are not silent.
    """
    lengths = [int(b.shape[1]) for b in blocks]
    total = sum(lengths)
    w = _first_columns(blocks, lengths, components, generator, setting)
    n_fixed = 0
    if fixed is not None:
        n_fixed = fixed.shape[1]
        w = torch.cat([unit_columns(fixed.to(w)), w], dim=1)
    k = w.shape[1]

    store: np.ndarray | None = None
    if scratch is not None:
        store = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=(total, k))
    kept: list[Tensor] = []
    objective: list[float] = []
    energy = 0.0
    for sweep in range(iterations):
        a = torch.zeros(k, k, dtype=torch.float64, device=w.device)
        b = torch.zeros(w.shape[0], k, dtype=torch.float64, device=w.device)
        penalty = 0.0
        gram = w.T @ w
        row = 0
        for index in range(len(blocks)):
            s = blocks[index]
            projected = w.T @ s
            if sweep == 0:
                h = _first_activations(gram, projected, sparsity)
            elif store is not None:
                h = torch.from_numpy(store[row : row + s.shape[1]].T.copy()).to(w.device)
            else:
                h = kept[index]
            _sweep(gram, projected, h, sparsity)
            if store is not None:
                store[row : row + s.shape[1]] = h.T.cpu().numpy()
            elif sweep == 0:
                kept.append(h)
            a += (h @ h.T).double()
            b += (s @ h.T).double()
            energy += float(s.double().square().sum()) if sweep == 0 else 0.0
            penalty += float(h.double().sum())
            row += s.shape[1]
        w = _update_columns(w, a, b, n_fixed)
        wd = w.double()
        value = (
            0.5 * (energy - 2 * (wd * b).sum().item() + ((wd.T @ wd) * a).sum().item())
            + sparsity * penalty
        ) / total
        objective.append(value)
        if on_sweep is not None:
            on_sweep(value)
        if sweep > 0 and objective[-2] - value <= tolerance * abs(objective[-2]):
            break
    return w[:, n_fixed:].contiguous(), objective


def _first_columns(
    blocks: Sequence[Tensor],
    lengths: list[int],
    components: int,
    generator: torch.Generator,
    setting: str,
) -> Tensor:
    """Unit columns from frames drawn at random among those that are not silent."""
    chosen: list[Tensor] = []
    starts = np.cumsum([0, *lengths])
    # A first draw may hit silence; the others decide.
    order = torch.randperm(int(starts[-1]), generator=generator)
    for draw in order.split(max(4 * components, 64)):
        rows = draw.numpy()
        owner = np.searchsorted(starts, rows, side="right") - 1
        drawn: dict[int, Tensor] = {}
        for index in np.unique(owner):
            block = blocks[int(index)]
            for n in rows[owner == index].tolist():
                column = block[:, n - int(starts[index])]
                if float(column.square().sum()) > 1e-8:
                    drawn[n] = column.clone()
        chosen += [drawn[n] for n in rows.tolist() if n in drawn]
        if len(chosen) >= components:
            return unit_columns(torch.stack(chosen[:components], dim=1))
    raise DataError(
        f"The dictionary wants {components} components but the training clips hold only "
        f"{len(chosen)} frames that are not silent; set {setting} lower or add clips."
    )


def _update_columns(w: Tensor, a: Tensor, b: Tensor, n_fixed: int) -> Tensor:
    """The best unit column after the other, given A = H H' and B = S H'."""
    w = w.double()
    for k in range(n_fixed, w.shape[1]):
        v = (b[:, k] - w @ a[:, k] + w[:, k] * a[k, k]).clamp_min_(0)
        length = v.norm()
        # A component that no frame uses, or that can only harm, keeps its column.
        if length > 0 and a[k, k] > 0:
            w[:, k] = v / length
    return w.float()

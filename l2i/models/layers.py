"""Hidden layers of any torch module: which can be read, and which an interpreter reads.

A layer is named together with its axes: see `l2i.models.axes`.

How axes are found (`find`). The model hears silence, then noise in each fifth of the clip, then low
and high noise. What it changes is measured against silence, and against the median of the fifths,
which is better where a normalisation lets quiet parts change as much as loud ones; what moves more
counts. Along each axis the change is summed up; what all fifths change alike is taken off; the rest
has a centroid, as a share of the axis. An axis moves by the way of that centroid from the first
fifth to the last, times the share of the change that was not taken off, and not at all where the
way is not in the order of the fifths. Time is the axis that moves most. A layer without one is no
candidate.

- Four axes: time moves by a twelfth of the axis, and by far more than the others. Rows are the
  other of the last two. Where time is the second axis, or the second axis follows low and high
  noise by far more than the last one, channels are the last.
- Three axes: time moves by a fifth of the axis. The other one has the channels.
- Tokens: an axis may be a grid of rows and time, with 0, 1 or 2 tokens before. Every grid is tried,
  and one is taken where it moves more than the axis as it is: in time with the fifths (by three
  tenths at least), in rows from low to high noise. Where none is, one or two first tokens that
  hear all fifths alike are left out.

Candidates are all modules below the model that are run exactly once, in the order in which they
end, from the first one with weights: what comes before is a front-end.

Which are taken, unless the user names some (`choose`). Blocks are modules that a number names and
that have a neighbour of the same class (``layers.3``); what lies inside of them is not taken, nor
is padding. For each size (F, T) it is the module that ends last; of those the last three. Sizes
that differ by less than two fifths, as by a convolution without padding, are one. Where there are
fewer sizes, as in a transformer, the rest are blocks of the last size, evenly spread over depth; if
there are none, any modules of that size.

Over 300 lines: one search, and the rules by which it chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from l2i.models.axes import Layer, tensor_of

# What the sounds change along an axis: [N, L].
_Along = NDArray[np.float64]

# How many layers are read where nobody names any.
_WANTED = 3
# By which share of an axis the centroid moves where the axis is time; that of an ideal map moves by
# four fifths. Grids are many, so that one of them may seem to move: it has to move further.
_MOVES = 0.2
_GRID_IN_TIME = 0.3
# Four axes need no search, so that less is believed where the others move much less: the last maps
# of a network of short windows have few frames, each of which hears most of the window.
_FOUR_MOVE = 0.08
_FOUR_MORE = 2.5
# Where all other axes have the length 1.
_VECTOR_MOVES = 0.5
# The correlation of centroids with the order of the fifths.
_IN_ORDER = 0.7
# By how much more a grid moves than the axis as it is, and the second axis than the last one.
_GRID_MOVES = 0.25
_CHANNELS_LAST = 0.2
# A leading token changes with each fifth by half of its greatest change, and others do not.
_ALIKE = 0.5
_MOST_ROWS = 64
_SAME_SIZE = 1.4
_FIFTHS = 5
_LEVEL = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """A hidden layer that can be read, and the size of its map of one window.

    Attributes
    ----------
    layer : Layer
    kind : str
        The module's class.
    channels, rows, frames : int
        D, F and T.
    """

    layer: Layer
    kind: str
    channels: int
    rows: int
    frames: int


def probes(samples: int) -> Tensor:
    """What a model hears so that its axes show: [8, S].

    Silence, noise in each fifth, low noise, high noise.
    """
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    sounds = torch.zeros(_FIFTHS + 3, samples)
    length = -(-samples // _FIFTHS)
    for i in range(_FIFTHS):
        there = sounds[i + 1, i * length : (i + 1) * length]
        there[:] = noise[: len(there)]  # The same noise, so that nothing but its place differs.
    spectrum = torch.fft.rfft(noise)
    at = torch.linspace(0, 0.5, len(spectrum))  # As a share of the sample rate.
    for i, keep in ((-2, at < 1 / 32), (-1, at > 3 / 16)):
        y = torch.fft.irfft(spectrum * keep, n=samples)
        sounds[i] = y / y.square().mean().sqrt().clamp_min(1e-9)
    return _LEVEL * sounds


def find(model: nn.Module, hear: Callable[[Tensor], object], samples: int) -> tuple[Found, ...]:
    """All layers that can be read, in the order in which they end; see the module.

    Parameters
    ----------
    model : nn.Module
    hear : callable
        Makes the model hear waveforms [B, S].
    samples : int
        S, of the probes: those of a window where the model hears windows.
    """
    given = probes(samples)
    runs: dict[str, int] = {}
    candidates: dict[str, Found | None] = {}
    learned = False

    def watch(name: str, module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal learned
        learned = learned or next(module.parameters(), None) is not None
        runs[name] = runs.get(name, 0) + 1
        if runs[name] == 1 and learned:
            # What it changed is measured here: a later step may work in place, and to keep all
            # maps of a network would take much memory.
            kind = type(module).__name__
            candidates[name] = _candidate(name, kind, tensor_of(output), len(given))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks.enter_context(module.register_forward_hook(partial(watch, name)))
        hear(given)
    return tuple(f for name, f in candidates.items() if f is not None and runs[name] == 1)


def _candidate(name: str, kind: str, x: Tensor | None, clips: int) -> Found | None:
    if x is None or x.ndim not in (3, 4) or not x.is_floating_point() or not x.numel():
        return None
    batch = next((i for i in range(x.ndim - 1) if x.shape[i] == clips), None)
    if batch is None:
        return None
    x = x.detach().movedim(batch, 0).float()
    silence = _along(x, x[0])
    median = _along(x, x[1 : _FIFTHS + 1].median(0).values)
    if x.ndim == 4:
        moves, axes = max(_four(silence), _four(median), key=lambda f: f[0])
    else:
        # A leading token shows against silence: it is not the same there.
        leading = {i: _leading(y) for i, y in silence.items()}
        moves, axes = max(_three(silence, leading), _three(median, leading), key=lambda f: f[0])
    # A vector may be time, and may be what channels are pooled to: it has to be plain.
    if not axes or (x[0].numel() == max(x.shape[1:]) and moves < _VECTOR_MOVES):
        return None
    y = Layer(name, " ".join(["B", *axes])).map(x)
    # Where the batch is not first, the word says so.
    axes.insert(batch, "B")
    return Found(Layer(name, " ".join(axes)), kind, *y.shape[1:])


def _along(x: Tensor, still: Tensor) -> dict[int, _Along]:
    """What each sound changes along each axis but the batch, summed over the others: [N, L]."""
    change = (x - still).abs().nan_to_num(0.0, 0.0, 0.0)
    return {
        i: change.sum(dim=[j for j in range(1, x.ndim) if j != i]).cpu().double().numpy()
        for i in range(1, x.ndim)
    }


def _moves(along: _Along) -> tuple[NDArray[np.float64], float]:
    """Centroids [N] of the change by each of N sounds, along [N, L], as shares of the axis; and
    which share of the change is not alike."""
    total = along.sum(1, keepdims=True)
    nowhere = np.full(len(along), 0.5)
    if not (total > 0).all():
        return nowhere, 0.0
    # A sound that changes all by twice as much changes it in the same places.
    along = along / total
    own = along - along.min(0)
    parts = own.sum(1)  # The same for every sound, since all of them sum to one.
    if parts[0] < 1e-9:
        return nowhere, 0.0
    at = (np.arange(along.shape[1]) + 0.5) / along.shape[1]
    return own @ at / parts, float(own.max(0).sum() / along.max(0).sum())


def _in_time(along: _Along) -> float:
    """How far an axis moves from the first fifth to the last; 0 if not in their order."""
    centroids, share = _moves(along[1 : _FIFTHS + 1])
    step = np.arange(_FIFTHS) - (_FIFTHS - 1) / 2
    away = centroids - centroids.mean()
    size = np.linalg.norm(away) * np.linalg.norm(step)
    if not size or away @ step < _IN_ORDER * size:
        return 0.0
    # By the line that fits best.
    return float(away @ step / (step @ step)) * (_FIFTHS - 1) * share


def _in_pitch(along: _Along) -> float:
    """How far it moves from low to high noise; below 0 where it moves down."""
    centroids, share = _moves(along[-2:])
    return float(centroids[1] - centroids[0]) * share


def _rows_in_pitch(grid: _Along) -> float:
    """How far the rows of a grid [N, F, T] move from low to high noise, either way: in each half of
    the clip alike, since in one of few frames they may seem to."""
    half = (grid.shape[2] + 1) // 2
    first, second = (_in_pitch(part.sum(2)) for part in (grid[:, :, :half], grid[:, :, -half:]))
    return min(abs(first), abs(second)) if first * second > 0 else 0.0


def _leading(along: _Along) -> int:
    """How many tokens come first that hear every fifth alike, 2 at most."""
    heard = along[1 : _FIFTHS + 1]
    if heard.shape[1] <= 4:
        return 0  # Nobody could tell one token from the others.
    most = heard.max(0)
    alike = heard.min(0) / np.maximum(most, 1e-300)
    least = max(_ALIKE, 2 * float(np.median(alike[2:])))
    moved = [bool(most[i] > 0 and alike[i] > least) for i in range(2)]
    return sum(moved) if moved[0] else 0


def _four(along: Mapping[int, _Along]) -> tuple[float, list[str]]:
    """How far time moves, and the axes after the batch."""
    moves = {i: _in_time(y) for i, y in along.items()}
    time = max(moves, key=moves.__getitem__)
    if moves[time] < max(_FOUR_MOVE, *(_FOUR_MORE * moves[i] for i in moves if i != time)):
        return 0.0, []
    rows = 2 if time == 1 else 5 - time
    if time == 2 and abs(_in_pitch(along[1])) - abs(_in_pitch(along[3])) > _CHANNELS_LAST:
        rows = 1
    names = {time: "T", rows: "F"}
    return moves[time], [names.get(i, "D") for i in (1, 2, 3)]


def _three(along: Mapping[int, _Along], leading: Mapping[int, int]) -> tuple[float, list[str]]:
    choices = []
    for i in (1, 2):
        word, moves = "T", _in_time(along[i])
        grids = (g for before in (0, 1, 2) for g in _grids(along[i], before))
        grid, score = max(grids, key=lambda g: g[1], default=("", 0.0))
        if score > moves + _GRID_MOVES:
            word, moves = grid, score
        elif leading[i]:
            word = f"(T)+{leading[i]}"
        choices.append((moves, [word, "D"] if i == 1 else ["D", word]))
    moves, axes = max(choices, key=lambda f: f[0])
    return (moves, axes) if moves >= _MOVES else (0.0, [])


def _grids(along: _Along, leading: int) -> Iterator[tuple[str, float]]:
    """Every grid of rows and time, as a word, and how far it moves in both."""
    tokens = along[:, leading:]
    n = tokens.shape[1]
    plus = f"+{leading}" if leading else ""
    for rows in range(2, min(_MOST_ROWS, n // 2) + 1):
        if n % rows:
            continue
        for word, grid in (
            (f"(F{rows} T){plus}", tokens.reshape(-1, rows, n // rows)),
            (f"(T F{rows}){plus}", tokens.reshape(-1, n // rows, rows).swapaxes(1, 2)),
        ):
            time = _in_time(grid.sum(1))
            if time >= _GRID_IN_TIME:
                yield word, time + _rows_in_pitch(grid)


def choose(layers: Sequence[Found], count: int = _WANTED) -> tuple[Found, ...]:
    """Which layers are read where nobody names any; see the module.

    Parameters
    ----------
    layers : sequence of Found
        All candidates, in the order in which they end.
    count : int

    Returns
    -------
    tuple of Found
        At most `count`, in the same order.
    """
    order = {f: i for i, f in enumerate(layers)}
    blocks = _blocks(layers)
    names = {f.layer.name for f in blocks}
    outer = [
        f for f in layers if "Pad" not in f.kind and not names.intersection(_above(f.layer.name))
    ]
    last: list[Found] = []
    for f in outer:
        last = [*(g for g in last if not _alike(f, g)), f]
    taken = last[-count:]
    missing = count - len(taken)
    if missing and taken:
        end = taken[-1]
        same = [f for f in outer if _alike(f, end) and f != end]
        rest = [f for f in same if f in blocks] or same
        # Those that end a third and two thirds of the way, say.
        places = {-(-len(rest) * i // (missing + 1)) - 1 for i in range(1, missing + 1)}
        taken += [rest[i] for i in places if rest]
    return tuple(sorted(taken, key=order.__getitem__))


def _alike(a: Found, b: Found) -> bool:
    return all(
        max(x, y) < _SAME_SIZE * min(x, y) for x, y in ((a.rows, b.rows), (a.frames, b.frames))
    )


def _blocks(layers: Sequence[Found]) -> set[Found]:
    """Modules that a number names, and that have a neighbour of the same class."""
    rows: dict[tuple[str, str], list[Found]] = {}
    for f in layers:
        parent, _, name = f.layer.name.rpartition(".")
        if name.isdigit():
            rows.setdefault((parent, f.kind), []).append(f)
    return {f for row in rows.values() if len(row) > 1 for f in row}


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name

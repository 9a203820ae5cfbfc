"""Hidden layers of any torch module: which can be read, and how.

An interpreter reads maps [B, D, F, T], rows being frequency and columns time. A layer is named
together with the axes of what it gives, in one word::

    blocks.5=B D F T            channels, rows, time, in any order
    conv.3=B T D                no rows: F = 1
    layers.7=B (F5 T)+2 D       tokens: 2 that are left out, then 5 rows of T, time fastest
    layers.7=B (T F5)+2 D       the same, time slowest
    layers.7=B (T)+1 D          a token that is left out, then T

What a layer gives may be a tensor, a tuple or dict (its first tensor is meant), or an object with
``last_hidden_state``.

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
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from l2i.errors import UsageError
from l2i.registry import nearest

__all__ = [
    "Found",
    "Layer",
    "Places",
    "choose",
    "find",
    "module_of",
    "read",
    "readable",
    "tensor_of",
]

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
_AXES_HINT = (
    "give 'B D F T' or 'B D T' in the order of its axes, or tokens as 'B (F5 T)+2 D' (5 rows of "
    "T, after 2 tokens that are left out)"
)


# --- a layer and its axes -----------------------------------------------------------------------


class _Axes(NamedTuple):
    order: tuple[str, ...]  # B, D, T and F, or N for tokens.
    rows: int
    leading: int
    time_fastest: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """A hidden layer, and the axes of what it gives; see the module.

    Parameters
    ----------
    name : str
        Dotted, as in ``named_modules``.
    axes : str

    Raises
    ------
    UsageError
        The axes are none.

    Examples
    --------
    >>> layer = Layer.parse("blocks.5=B T F D")
    >>> layer.map(torch.zeros(2, 50, 8, 64)).shape
    torch.Size([2, 64, 8, 50])
    >>> Layer("layers.7", "B (F5 T)+2 D").map(torch.zeros(2, 252, 32)).shape
    torch.Size([2, 32, 5, 50])
    """

    name: str
    axes: str

    def __post_init__(self) -> None:
        # Written one way, so that equal layers are equal.
        object.__setattr__(self, "axes", " ".join(self.axes.split()))
        if _parsed(self.axes) is None:
            raise UsageError(f"{self.axes!r} are no axes of {self.name}: {_AXES_HINT}.")

    @classmethod
    def parse(cls, word: str) -> Layer:
        """The layer that ``NAME=AXES`` names.

        Raises
        ------
        UsageError
            It is no such word.
        """
        name, equals, axes = word.partition("=")
        if not name.strip() or not equals:
            raise UsageError(
                f"{word!r} names no layer and its axes: write NAME=AXES, 'blocks.5=B D F T' say."
            )
        return cls(name.strip(), axes)

    def __str__(self) -> str:
        return f"{self.name}={self.axes}"

    def map(self, output: object) -> Tensor:
        """What the layer gave as a map [B, D, F, T]: a view of it wherever possible.

        Raises
        ------
        UsageError
            It has other axes.
        """
        x = tensor_of(output)
        axes = _parsed(self.axes)
        assert axes is not None
        if x is None:
            raise UsageError(
                f"The layer {self.name} gives a {type(output).__name__} without a tensor: name "
                "another layer."
            )
        if x.ndim != len(axes.order):
            raise UsageError(
                f"The layer {self.name} gives the shape {list(x.shape)}, which has not the axes "
                f"{self.axes!r}: {_AXES_HINT}."
            )
        if "N" not in axes.order:
            if "F" not in axes.order:
                x = x.permute([axes.order.index(a) for a in "BDT"])
                return x.unsqueeze(2)
            return x.permute([axes.order.index(a) for a in "BDFT"])
        x = x.permute([axes.order.index(a) for a in "BDN"])[..., axes.leading :]
        if x.shape[2] == 0 or x.shape[2] % axes.rows:
            raise UsageError(
                f"The layer {self.name} gives {x.shape[2] + axes.leading} tokens, which are not "
                f"{axes.leading} and then {axes.rows} rows of as many: {_AXES_HINT}."
            )
        if axes.time_fastest:
            return x.unflatten(2, (axes.rows, -1))
        return x.unflatten(2, (-1, axes.rows)).transpose(2, 3)


@lru_cache(maxsize=256)
def _parsed(axes: str) -> _Axes | None:
    words = re.findall(r"\([^)]*\)(?:\+\d+)?|\S+", axes)
    grid = _Axes((), 1, 0, True)
    order = []
    for word in words:
        if match := re.fullmatch(r"\((?:F(\d+) T|T F(\d+)|T)\)(?:\+(\d+))?", word):
            rows = int(match[1] or match[2] or 1)
            if not rows:
                return None
            grid = _Axes((), rows, int(match[3] or 0), match[2] is None)
            word = "N"
        order.append(word)
    if sorted(order) not in (["B", "D", "N"], ["B", "D", "T"], ["B", "D", "F", "T"]):
        return None
    return grid._replace(order=tuple(order))


def tensor_of(output: object) -> Tensor | None:
    """The tensor that is meant, of all that a module gave."""
    if isinstance(output, Tensor):
        return output
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((x for x in output if isinstance(x, Tensor)), None)
    return None


# --- reading them -------------------------------------------------------------------------------


def readable(model: object) -> nn.Module:
    """The model, where its hidden layers can be read.

    Raises
    ------
    UsageError
        It is TorchScript, or no module.
    """
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        return model
    what = "TorchScript" if isinstance(model, nn.Module) else "a black box"
    raise UsageError(
        f"The hidden layers of {what} cannot be read: give the torch module itself, or take "
        "a method without training ('gates', 'shapley'), which needs none."
    )


def module_of(model: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises
    ------
    UsageError
        There is none; the nearest name is said.
    """
    known = {n: m for n, m in model.named_modules(remove_duplicate=False) if n}
    if name not in known:
        like = nearest(name, list(known))
        hint = f"; did you mean {like!r}?" if like else f", which has {', '.join(list(known)[:9])}."
        raise UsageError(f"There is no layer {name!r} in {type(model).__name__}{hint}")
    return known[name]


@contextmanager
def read(model: nn.Module, layers: Sequence[Layer], clips: int) -> Iterator[list[Tensor]]:
    """Read the layers of one forward pass while the context is open.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of Layer
    clips : int
        B of the pass.

    Yields
    ------
    list of Tensor [B, D_l, F_l, T_l]
        Float32, in the order of `layers`, filled by the forward pass. They are copies, made when
        the module ends: what later works in place does not change them.

    Raises
    ------
    UsageError
        A layer is not there, has other axes, or is run more than once or not at all.
    """
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)
    runs = [0] * len(layers)

    def keep(index: int, layer: Layer) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            runs[index] += 1
            y = layer.map(output).detach()
            if len(y) != clips:
                raise UsageError(
                    f"The layer {layer.name} gives {len(y)} maps of {clips} clips: name another "
                    f"layer, or its axes, of which B has the clips."
                )
            # It is in the module's own precision, and may be a view of what is changed later.
            outputs[index] = y.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

        return hook

    # All names are looked up before the first hook is set: one that is wrong leaves none behind.
    modules = [module_of(model, layer.name) for layer in layers]
    for module in modules:
        readable(module)
    handles = [
        module.register_forward_hook(keep(i, layer))
        for i, (layer, module) in enumerate(zip(layers, modules, strict=True))
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
    for layer, times in zip(layers, runs, strict=True):
        if times != 1:
            often = f"{times} times" if times else "not at all"
            raise UsageError(
                f"The layer {layer.name} is run {often} in a forward pass: name one that is run "
                "once."
            )


# --- windows, side by side ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a clip the windows lie that a model hears.

    Attributes
    ----------
    starts : tuple of int
        Their first samples.
    length : int
        Samples of a window.
    covers : int
        Samples that a window's map stands for: more than `length` where the model pads it.
    """

    starts: tuple[int, ...]
    length: int
    covers: int

    def side_by_side(self, maps: Tensor, samples: int) -> Tensor:
        """Maps of clips from those of their windows.

        The frames of the clip are as long as those of the windows (to the rounding of their
        number), and evenly spaced. Each is taken from the window whose middle is nearest to it: of
        windows that overlap the middle parts are kept, each as long as the step from one to
        the next; of the first the beginning, of the last the end, too. Frames after the clip's end
        are left out.

        Parameters
        ----------
        maps : Tensor [B * n, D, F, T]
            All windows of the first clip, then of the second, ...
        samples : int
            S, of the clips.

        Returns
        -------
        Tensor [B, D, F, T']
            T' is about S * T / `covers`.

        Examples
        --------
        Two windows of four samples, two apart, each sample a frame; three are kept of each:

        >>> x = torch.arange(6.0)
        >>> windows = x.unfold(0, 4, 2).view(2, 1, 1, 4)
        >>> Places((0, 2), 4, 4).side_by_side(windows, 6).flatten()
        tensor([0., 1., 2., 3., 4., 5.])
        """
        per_window = maps.shape[3]
        if self.starts == (0,) and samples == self.covers:
            return maps
        frames = max(1, round(samples * per_window / self.covers))
        starts = torch.tensor(self.starts, dtype=torch.float64)
        centres = (torch.arange(frames, dtype=torch.float64) + 0.5) * (samples / frames)
        which = torch.empty(frames, dtype=torch.long)
        # In parts: a clip of an hour has many windows and more frames.
        for some in torch.arange(frames).split(4096):
            away = centres[some, None] - (starts + self.length / 2)
            which[some] = away.abs().argmin(1)
        frame = ((centres - starts[which]) * (per_window / self.covers)).floor().long()
        frame = frame.clamp(0, per_window - 1)
        windows = maps.unflatten(0, (-1, len(self.starts)))
        kept = windows[:, which.to(maps.device), :, :, frame.to(maps.device)]  # [T', B, D, F]
        return kept.permute(1, 2, 3, 0).contiguous()


# --- finding them -------------------------------------------------------------------------------


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
    handles = []

    learned = False

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            nonlocal learned
            learned = learned or next(module.parameters(), None) is not None
            runs[name] = runs.get(name, 0) + 1
            if runs[name] == 1 and learned:
                # What it changed is measured here: a later step may work in place, and to keep
                # all maps of a network would take much memory.
                candidates[name] = _candidate(
                    name, type(module).__name__, tensor_of(output), len(given)
                )

        return hook

    for name, module in model.named_modules():
        if name and not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        hear(given)
    finally:
        for handle in handles:
            handle.remove()
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

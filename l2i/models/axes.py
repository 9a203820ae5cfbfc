"""A hidden layer of a torch module, the axes of what it gives, and reading it.

An interpreter reads maps [B, D, F, T], rows being frequency and columns time. A layer is named
together with the axes of what it gives, in one word::

    blocks.5=B D F T            channels, rows, time, in any order
    conv.3=B T D                no rows: F = 1
    layers.7=B (F5 T)+2 D       tokens: 2 that are left out, then 5 rows of T, time fastest
    layers.7=B (T F5)+2 D       the same, time slowest
    layers.7=B (T)+1 D          a token that is left out, then T

What a layer gives may be a tensor, a tuple or dict (its first tensor is meant), or an object with
``last_hidden_state``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2i.errors import UsageError
from l2i.registry import did_you_mean

_AXES_HINT = (
    "give 'B D F T' or 'B D T' in the order of its axes, or tokens as 'B (F5 T)+2 D' (5 rows of "
    "T, after 2 tokens that are left out)"
)


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


def readable(model: object) -> nn.Module:
    """The model, where its hidden layers can be read.

    Raises
    ------
    UsageError
        It is TorchScript, or no module.
    """
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        return model
    script = isinstance(model, nn.Module)
    what = "TorchScript" if script else "a black box"
    methods = "a method without training ('gates', 'shapley')" if script else "'shapley'"
    raise UsageError(
        f"The hidden layers of {what} cannot be read: give the torch module itself, or take "
        f"{methods}, which needs none."
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
        hint = did_you_mean(name, known, f", which has {', '.join(list(known)[:9])}.")
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

    def keep(index: int, _module: nn.Module, _inputs: object, output: object) -> None:
        layer = layers[index]
        runs[index] += 1
        y = layer.map(output).detach()
        if len(y) != clips:
            raise UsageError(
                f"The layer {layer.name} gives {len(y)} maps of {clips} clips: name another "
                f"layer, or its axes, of which B has the clips."
            )
        # It is in the module's own precision, and may be a view of what is changed later.
        outputs[index] = y.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

    with ExitStack() as hooks:
        for i, layer in enumerate(layers):
            module = readable(module_of(model, layer.name))
            hooks.enter_context(module.register_forward_hook(partial(keep, i)))
        yield outputs
    for layer, times in zip(layers, runs, strict=True):
        if times != 1:
            often = f"{times} times" if times else "not at all"
            raise UsageError(
                f"The layer {layer.name} is run {often} in a forward pass: name one that is run "
                "once."
            )

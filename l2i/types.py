"""The things that flow, as frozen dataclasses, and the one legend of axes.

The legend, used in every docstring::

    B batch    N clips    S samples    F frequency bins (n_fft/2 + 1)    T frames    M mel bands
    K components    C classes    D_l, F_l, T_l  channels, rows, columns of hidden map l

The way::

    Clip -> waveform [S] -> spectrogram [F, T] -> Features -> activations [K, T]
         -> relevance [K] -> Explanation ([F, T], [S]) -> scores

Two facts newcomers trip on. Mask and removal add up to the input in the *log* domain only,
because expm1 is not linear. And the classifier hears a front-end of its own while the dictionary
explains log(1 + |X|), so an explanation must pass through a waveform before the classifier can
judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Classifier", "Clip", "Explanation", "Features", "Interpretation", "Split", "Task"]


class Task(StrEnum):
    """What a classifier is asked: exactly one class per clip, or any number of them."""

    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"


@runtime_checkable
class Classifier(Protocol):
    """Whatever is to be explained: waveforms in, logits out.

    It owns its front-end: nobody else knows whether it reads mel bands, tokens or samples.

    Attributes
    ----------
    sample_rate : int
        Hz, of the waveforms it takes.
    classes : tuple of str
        In the order of the logits.
    task : Task
    differentiable : bool
        Whether gradients reach the waveform; a black box has none.
    device : torch.device
        Where waveforms are to be.
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> Task: ...
    @property
    def differentiable(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...

    def logits(self, waveform: Tensor) -> Tensor:
        """Logits [B, C], float32, of waveforms [B, S].

        Gradients flow to a waveform that requires them, where the classifier has any.
        """

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax or sigmoid [B, C], as the task has it."""

    def decisions(self, logits: Tensor) -> Tensor:
        """Which classes it says are there, bool [B, C]: the best one, or all that are probable
        enough."""

    def features(self, waveform: Tensor, layers: Sequence[str] = ()) -> Features:
        """Logits of waveforms [B, S], and the maps of hidden layers [B, D_l, F_l, T_l] by name.

        Without gradients. A classifier whose layers cannot be read refuses, where any is asked for.
        """


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of a data set.

    Attributes
    ----------
    id : str
        Unique within the data set and stable: the same clip has the same id on every machine.
    labels : tuple of int
        Indices into the card's classes, ascending; exactly one where the task is single-label.
    path : Path or None
        Its file; None where the clip is synthesised.
    fold : int or None
        Its fold, from 1; None where the data set is split by name.
    split : str or None
        ``train``, ``validate`` or ``test`` where the data set is split by name.
    group : str
        Its source. Clips of one group never stand on both sides of a split.
    """

    id: str
    labels: tuple[int, ...]
    path: Path | None = None
    fold: int | None = None
    split: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """Clips by purpose: weights are fitted on `train`, epochs are chosen on `validate`, and
    `test` is looked at once, at the end."""

    train: tuple[Clip, ...]
    validate: tuple[Clip, ...]
    test: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """What a frozen classifier says of a batch.

    Attributes
    ----------
    logits : Tensor [B, C]
    maps : tuple of Tensor [B, D_l, F_l, T_l]
        The hidden maps the interpreter reads, rows being frequency and columns time, in the
        order in which the interpreter names them.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What the interpreter says of a batch.

    Attributes
    ----------
    activations : Tensor [B, K, T]
        Non-negative.
    pooled : Tensor [B, K]
        Activations pooled over time, z in the paper.
    logits : Tensor [B, C]
        The interpreter's own logits, g(x) = Theta z.
    """

    activations: Tensor
    pooled: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts of a batch of clips that mattered, and what is left without them.

    Attributes
    ----------
    classes : Tensor [B], int64
        The class explained.
    relevance : Tensor [B, K]
        In [-1, 1]; 1 (or -1) is reached by the component that matters most.
    selected : Tensor [B, K], bool
    mask : Tensor [B, F, T]
        In [0, 1].
    audio, removal : Tensor [B, S]
        The explanation, and the input without it.
    """

    classes: Tensor
    relevance: Tensor
    selected: Tensor
    mask: Tensor
    audio: Tensor
    removal: Tensor

"""Sound in, logits out: a model of any kind made to hear waveforms, in windows where it must.

How real models differ, and what is done about it, is in `l2i.models.wrapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from l2i.errors import DataError, L2IError, UsageError
from l2i.models.answers import Answers
from l2i.models.resampling import Resampler
from l2i.models.windows import Places
from l2i.types import Task

# Below it a probability's logit would be infinite.
_LEAST = 1e-7
TRIAL_S = 1.0
"""What a classifier is tried on where it says nothing of a length."""

Pool = Literal["mean", "max"]


@dataclass(eq=False, repr=False)
class Hearing(Answers):
    """A model that hears waveforms, and answers with logits.

    `l2i.models.wrapped.Wrapped` is one whose hidden layers can be read, too.
    """

    model: nn.Module | Callable[[Any], Any]
    sample_rate: int
    classes: tuple[str, ...]
    task: Task
    model_rate: int
    front_end: Callable[[Any], Any] | None
    window: int | None
    hop: int | None
    pool: Pool
    pool_logits: bool
    gives_probabilities: bool
    output: str | int | Callable[[Any], Any] | None
    differentiable: bool

    def __post_init__(self) -> None:
        self.resample = Resampler(self.sample_rate, self.model_rate)
        self.hop = self.hop or self.window
        self._tensors = isinstance(self.model, nn.Module) or self.differentiable
        self.thresholds = torch.full((len(self.classes),), 0.5)

    @property
    def device(self) -> torch.device:
        """Where the module's weights are; the CPU where it has none."""
        first = self._first_weight()
        return torch.device("cpu") if first is None else first.device

    def _first_weight(self) -> Tensor | None:
        if not isinstance(self.model, nn.Module):
            return None
        weights = (*self.model.parameters(), *self.model.buffers())
        return next((w for w in weights if w.is_floating_point()), None)

    def logits(self, waveform: Tensor) -> Tensor:
        """Logits [B, C], float32, of waveforms [B, S]; see `l2i.types.Classifier.logits`.

        Raises
        ------
        UsageError
            The model's answer is not a score per clip and class.
        DataError
            It is not a number.
        """
        windows, count = self.cut(self.resample(waveform.to(self.device)))
        gradients = self.differentiable and waveform.requires_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(gradients), as_found(self.model):
            scores = self.scores(windows)
        return self.of_clips(scores, count)

    def of_clips(self, scores: Tensor, count: int) -> Tensor:
        """Logits [B, C] of the scores of all windows, `count` a clip."""
        # Logits may be infinite.
        wrong = scores.isnan() if not self.gives_probabilities else ~scores.isfinite()
        if bool(wrong.any()):
            raise DataError(
                "The classifier's scores are NaN: the sound or its front-end gives it what it "
                "cannot take (log of zero, say)."
            )
        # One score per clip; several where the model answers per frame.
        if count == 1 and scores.ndim == 2:
            return self._to_logits(scores)
        if scores.ndim == 3:
            scores = scores.unflatten(0, (-1, count)).flatten(1, 2)
        else:
            scores = scores.unflatten(0, (-1, count))
        return self._pooled(scores)

    def set_thresholds(self, thresholds: Sequence[float]) -> None:
        """From which probability on each class counts as present; one is for all classes.

        Raises
        ------
        UsageError
            They are not as many as the classes.
        """
        known = len(self.classes)
        if len(thresholds) not in (1, known):
            raise UsageError(
                f"There are {len(thresholds)} thresholds for {known} classes: give one for all, "
                "or one for each, in their order."
            )
        self.thresholds = torch.tensor(list(thresholds), dtype=torch.float32).expand(known).clone()

    def cut(self, waveform: Tensor) -> tuple[Tensor, int]:
        """Windows [B * n, W] of waveforms [B, S], and n."""
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise UsageError(
                f"Waveforms have the shape [B, S], at least one sample long; here is "
                f"{list(waveform.shape)}."
            )
        if self.window is None or self.hop is None:
            return waveform, 1
        n = waveform.shape[1]
        count = len(self.places(n).starts)
        missing = self.window + (count - 1) * self.hop - n
        if missing > 0:
            waveform = nn.functional.pad(waveform, (0, missing))
        return waveform.unfold(1, self.window, self.hop).flatten(0, 1), count

    def places(self, samples: int) -> Places:
        """Where the windows of clips of so many samples lie."""
        if self.window is None or self.hop is None:
            places = getattr(self.front_end, "places", None)
            return places(samples) if places else Places((0,), samples, samples)
        count = 1 + max(0, -(-(samples - self.window) // self.hop))
        return Places(tuple(i * self.hop for i in range(count)), self.window, self.window)

    def scores(self, windows: Tensor) -> Tensor:
        """What the model answers, as float32 [N, C], or [N, T, C] per frame."""
        answer = self._part(self._answer(windows))
        scores = answer if isinstance(answer, Tensor) else torch.as_tensor(np.asarray(answer))
        scores = scores.to(self.device, torch.float32)
        n = len(windows)
        if scores.ndim == 1 and len(scores) == n:
            scores = scores.unsqueeze(1)
        known = len(self.classes)
        if scores.ndim == 3 and scores.shape[1] == known != scores.shape[2]:
            scores = scores.transpose(1, 2)  # Classes before frames, as convolutions have them.
        if scores.ndim not in (2, 3) or len(scores) != n:
            raise UsageError(
                f"The classifier answers {n} clips with the shape {list(scores.shape)}; scores "
                "are [B, C], or [B, T, C] per frame. If they are a part of its answer, name it by "
                "output='logits', output=0, or a function."
            )
        return scores

    def _answer(self, windows: Tensor) -> Any:
        """What the model answers; a `DataError` at lengths and sounds at which it fails."""
        weight = self._first_weight()
        # A copy: front-ends and models may work in place, and the clip is not theirs.
        given: Any = windows.clone()
        try:
            if not self._tensors:
                given = given.detach().cpu().numpy()
            if self.front_end is not None:
                given = self.front_end(given)
            if self._tensors:
                given = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
                given = given.to(self.device, weight.dtype if weight is not None else None)
            return self.model(given)
        except L2IError:  # A layer that is read says what is wrong with its axes.
            raise
        except Exception as error:
            samples, tried = windows.shape[1], round(TRIAL_S * self.model_rate)
            way = ""
            if self.window is None and samples < tried:
                way = (
                    ", which is too short for it: give a longer one, or wrap it with window_s, to "
                    "which clips are padded"
                )
            elif self.window is None and samples > tried:
                way = (
                    f"; it takes one of {tried}: wrap it with window_s={TRIAL_S:g}, so that it "
                    "hears longer ones in windows"
                )
            raise DataError(
                f"The classifier fails on a clip of {samples} sample{'s' * (samples != 1)} "
                f"({told(error)}){way}."
            ) from error

    def _part(self, answer: Any) -> Any:
        """The scores, of all that the model answers."""
        wanted = self.output
        try:
            if callable(wanted):
                return wanted(answer)
            if isinstance(wanted, int):
                return answer[wanted]
            if isinstance(wanted, str):
                return answer[wanted] if isinstance(answer, Mapping) else getattr(answer, wanted)
        except (KeyError, IndexError, AttributeError, TypeError):
            has = ", ".join(map(str, answer)) if isinstance(answer, Mapping) else type(answer)
            raise UsageError(
                f"The classifier's answer has no part output={wanted!r}; it is {has}."
            ) from None
        if isinstance(answer, Tensor | np.ndarray):
            return answer
        if isinstance(answer, Mapping) and "logits" in answer:
            return answer["logits"]
        if hasattr(answer, "logits"):
            return answer.logits
        if isinstance(answer, Sequence) and len(answer) == 1:
            return answer[0]
        kinds = (
            f"a dict of {', '.join(map(str, answer))}"
            if isinstance(answer, Mapping)
            else f"{type(answer).__name__} of {len(answer)}"
            if isinstance(answer, Sequence)
            else type(answer).__name__
        )
        raise UsageError(
            f"The classifier answers with {kinds}, not with scores: name the part that has them "
            "by output='logits', output=0, or a function of the answer."
        )

    def _to_logits(self, scores: Tensor) -> Tensor:
        if not self.gives_probabilities:
            return scores
        p = scores.clamp(_LEAST, 1 - _LEAST)
        return p.log() if self.task is Task.SINGLE_LABEL else p.logit()

    def _pooled(self, scores: Tensor) -> Tensor:
        """Logits [B, C] of scores [B, n, C]."""
        if self.pool_logits:
            return self._over(self._to_logits(scores))
        p = scores if self.gives_probabilities else self.probabilities(scores)
        p = self._over(p).clamp(_LEAST, 1 - _LEAST)
        return p.log() if self.task is Task.SINGLE_LABEL else p.logit()

    def _over(self, x: Tensor) -> Tensor:
        return x.mean(dim=1) if self.pool == "mean" else x.amax(dim=1)


def told(error: BaseException) -> str:
    """The first line of what an exception says, the beginning of a long one."""
    why = next((line for line in str(error).splitlines() if line.strip()), "").rstrip(".")
    return shorten(f"{type(error).__name__}: {why}", 160, placeholder=" ...")


def names_of(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, if that is what they are."""
    # A set has no order.
    listed = isinstance(classes, Iterable) and not isinstance(classes, str | Mapping | Set)
    names = tuple(map(str, classes)) if listed else ()
    if not listed or len(set(names)) < len(names):
        raise UsageError(
            f"classes={classes!r}: give a list of names, all different, in the order of the scores."
        )
    return names


def raised(error: Exception) -> BaseException | None:
    """What the user's model raised; None where the error is ours, and says what is wrong."""
    if isinstance(error, DataError):
        return error.__cause__
    return None if isinstance(error, L2IError) else error


@contextmanager
def as_found(model: object) -> Iterator[None]:
    """A module in evaluation, its weights frozen; afterwards all of it is as it was."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [m for m in model.modules() if m.training]
    learning = [w for w in model.parameters() if w.requires_grad]
    for module in training:
        module.training = False
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for weight in learning:
            weight.requires_grad_(True)

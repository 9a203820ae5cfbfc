"""Any classifier of sound behind one interface: waveforms [B, S] in, logits [B, C] out.

::

    clf = wrap(network, sample_rate=16000, classes=names, task="multi-label")
    clf = wrap(network, 16000, names, front_end=log_mel, window_s=0.98, hop_s=0.48)
    clf = wrap(lambda x: session.run(None, {"x": x})[0], 48000, names, outputs="probabilities")

What real models do differently, and what is done about it here:

- A torch module is left as it was found: it hears in evaluation mode and with frozen weights, and
  has its mode and its flags back afterwards.
- Its answer may be a tensor, a tuple, a dict or an object with ``logits``; `output` says which part
  is meant where that is in doubt. Scores per frame are pooled over the frames.
- Its answer may be probabilities. Their logits are log(p), or log(p / (1 - p)) for multi-label.
- It may want windows of one length. A clip is cut into them, the last padded with silence, and the
  scores of the windows are pooled, which is part of what the classifier says.
- A callable that is no module is a black box without gradients: it gets and gives arrays. One in
  torch says ``differentiable=True``, and gets and gives tensors.
- It may hear at another rate than the sounds that are explained: `model_rate` resamples for it, on
  the device and with gradients, and the explanation keeps what is above its highest frequency.
- Its hidden layers, which an interpreter reads, are called and shaped in many ways: see
  `l2i.models.layers`.

Over 300 lines: one wrapper, and a docstring that is its manual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from l2i.errors import UsageError, need_positive
from l2i.models.axes import Layer, module_of, read, readable, tensor_of
from l2i.models.hearing import TRIAL_S, Hearing, Pool, as_found, names_of, raised, told
from l2i.models.layers import Found, choose, find
from l2i.types import Features, Task

# Two answers to the same sound may differ by rounding, which depends on threads.
_SAME = 1e-3
# Windows heard at a time where maps are kept.
_AT_ONCE = 64


def wrap(
    model: nn.Module | Callable[[Any], Any],
    sample_rate: int,
    classes: Sequence[str] | None = None,
    task: Task | Literal["single-label", "multi-label"] = Task.SINGLE_LABEL,
    *,
    model_rate: int | None = None,
    front_end: Callable[[Any], Any] | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    pool: Pool = "mean",
    pool_on: Literal["logits", "probabilities"] = "probabilities",
    outputs: Literal["logits", "probabilities"] = "logits",
    output: str | int | Callable[[Any], Any] | None = None,
    differentiable: bool | None = None,
    threshold: float | Sequence[float] = 0.5,
    check: bool = True,
) -> Wrapped:
    """Make a classifier of a torch module, or of any callable.

    Parameters
    ----------
    model : nn.Module or callable
        Takes waveforms [B, S], or what `front_end` makes of them. A module gets tensors on its own
        device and in its own precision; any other callable float32 arrays, unless it is
        `differentiable`.
    sample_rate : int
        Hz, of the waveforms.
    classes : sequence of str, optional
        A name per score; by default ``class 0``, ``class 1``, ...
    task : {'single-label', 'multi-label'}
        Whether its classes exclude one another (softmax) or not (sigmoid). One score alone, for
        yes or no, is multi-label.
    model_rate : int, optional
        Hz, that the model hears at, where it is not `sample_rate`: what it is given is resampled.
    front_end : callable, optional
        Waveforms [B, S], at the model's rate, to what the model takes. In torch it keeps gradients;
        in numpy it does not: then say ``differentiable=False``. One that cuts windows itself says
        where they lie by a method ``places(S)``, which gives `l2i.models.windows.Places`.
    window_s, hop_s : float, optional
        Seconds of the windows that it takes, and from one to the next (by default a window).
    pool : {'mean', 'max'}
        How the scores of windows, or of frames, become those of the clip.
    pool_on : {'probabilities', 'logits'}
        What is pooled.
    outputs : {'logits', 'probabilities'}
        What the model answers.
    output : str, int or callable, optional
        The part of its answer that has the scores: a key or attribute, a place in a tuple, or a
        function of the answer.
    differentiable : bool, optional
        By default whether `model` is a module.
    threshold : float or sequence of float
        From which probability on a class counts as present, of all classes or of each. Read where
        the task is multi-label.
    check : bool
        Try it on a second of noise first, and say what is wrong.

    Returns
    -------
    Wrapped

    Raises
    ------
    UsageError
        What was given does not fit the model; the sentence says what to give instead.

    Examples
    --------
    >>> loud = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 2, 9), nn.AdaptiveMaxPool1d(1),
    ...                      nn.Flatten())
    >>> clf = wrap(loud, 8000, ["hum", "hiss"])
    >>> clf.logits(torch.zeros(3, 4000)).shape
    torch.Size([3, 2])
    """
    try:
        kind = Task(task)
    except ValueError:
        raise UsageError(f"task {task!r} is neither 'single-label' nor 'multi-label'.") from None
    need_positive("sample_rate", sample_rate, "Hz")
    if model_rate is not None:
        need_positive("model_rate", model_rate, "Hz")
    own_rate = int(model_rate or sample_rate)
    for word, value in (("window_s", window_s), ("hop_s", hop_s)):
        if value is not None:
            need_positive(word, value, "s")
            if value * own_rate < 1:
                raise UsageError(f"{word} {value} is shorter than a sample.")
    if hop_s is not None and window_s is None:
        raise UsageError("hop_s is the step between windows: give window_s, too.")
    for word, given, known in (
        ("pool", pool, ("mean", "max")),
        ("pool_on", pool_on, ("logits", "probabilities")),
        ("outputs", outputs, ("logits", "probabilities")),
    ):
        if given not in known:
            raise UsageError(f"{word} {given!r} is neither {known[0]!r} nor {known[1]!r}.")
    try:
        thresholds = np.atleast_1d(np.asarray(threshold, dtype=np.float64)).tolist()
    except (TypeError, ValueError):
        thresholds = [np.nan]
    if not all(0 < t < 1 for t in thresholds):
        raise UsageError(
            f"threshold {threshold!r} is no probability: give one above 0 and below 1."
        )
    wrapped = Wrapped(
        model,
        int(sample_rate),
        names_of(() if classes is None else classes),
        kind,
        model_rate=own_rate,
        front_end=front_end,
        window=None if window_s is None else round(window_s * own_rate),
        hop=None if hop_s is None else round(hop_s * own_rate),
        pool=pool,
        pool_logits=pool_on == "logits",
        gives_probabilities=outputs == "probabilities",
        output=output,
        differentiable=isinstance(model, nn.Module) if differentiable is None else differentiable,
    )
    if check or classes is None:
        wrapped.check()
    wrapped.set_thresholds(thresholds)
    return wrapped


class Wrapped(Hearing):
    """A classifier made by `wrap`; an `l2i.types.Classifier`."""

    _layers: tuple[Found, ...] | None = None

    def layers(self) -> tuple[Found, ...]:
        """All hidden layers that can be read, in the order in which they end.

        The model hears eight sounds for it, the first time; see `l2i.models.layers`.

        Returns
        -------
        tuple of Found
            Each with its axes, and the size of its map of one window, or of a second where the
            model takes any length.

        Raises
        ------
        UsageError
            The model is TorchScript or no module, or fails on eight sounds at once.
        """
        if self._layers is None:
            model = readable(self.model)
            samples = self.places(round(TRIAL_S * self.model_rate)).length
            try:
                with torch.no_grad(), as_found(model):
                    self._layers = find(model, lambda x: self.scores(x.to(self.device)), samples)
            except Exception as error:
                if (cause := raised(error)) is None:
                    raise
                raise UsageError(
                    f"The classifier fails on several clips at once ({told(cause)}): name layers "
                    "and their axes ('blocks.5=B D F T'), or wrap a module that takes [B, S]."
                ) from cause
        return self._layers

    def chosen_layers(self) -> tuple[Found, ...]:
        """Those of `layers` that an interpreter reads where nobody names any.

        Raises
        ------
        UsageError
            There is none, or the model is TorchScript or no module.
        """
        if not (chosen := choose(self.layers())):
            raise UsageError(
                "No hidden layer was found that follows the sound in time: name layers and their "
                "axes ('blocks.5=B D F T'), or take a method without training, which needs none: "
                "'gates', or 'shapley' where there are no gradients."
            )
        return chosen

    def layer(self, word: str) -> Layer:
        """The layer that a word names, with or without its axes (``=B D F T``).

        Raises
        ------
        UsageError
            There is none of that name, its axes are wrong, or they are not given and were not
            found.
        """
        model = readable(self.model)
        if "=" in word:
            layer = Layer.parse(word)
            module_of(model, layer.name)
            return layer
        module_of(model, word)
        for known in self.layers():
            if known.layer.name == word:
                return known.layer
        raise UsageError(
            f"No axis of the layer {word} was found to be time: write its axes, '{word}=B D F T' "
            "say, or name another layer."
        )

    @torch.no_grad()
    def features(self, waveform: Tensor, layers: Sequence[str] = ()) -> Features:
        """Logits and hidden maps of one forward pass, without gradients.

        Parameters
        ----------
        waveform : Tensor [B, S]
        layers : sequence of str
            Words, with or without axes: see `l2i.models.axes`.

        Returns
        -------
        Features
            Logits as `logits` gives them. A map [B, D, F, T] per layer, float32, contiguous, which
            covers the clips from their beginning to their end: the maps of windows lie side by
            side, and where windows overlap the middle part of each is kept (see
            `l2i.models.windows.Places.side_by_side`).

        Raises
        ------
        UsageError
            A layer cannot be read; the sentence says what to give instead.
        DataError
            The scores are not numbers.
        """
        if not layers:
            return Features(self.logits(waveform), ())
        model = readable(self.model)
        read_from = [self.layer(word) for word in layers]
        waveform = self.resample(waveform.to(self.device))
        windows, count = self.cut(waveform)
        samples = waveform.shape[1]
        places = self.places(samples)
        # As many whole clips as fit; a clip of more windows is heard in parts.
        inside = len(places.starts) // count  # Windows that the front-end cuts.
        clips = max(1, _AT_ONCE // len(places.starts))
        logits, parts = [], []
        for some in windows.split(clips * count):
            scores, maps = [], []
            for piece in some.split(max(1, _AT_ONCE // inside)):
                with as_found(model), read(model, read_from, len(piece) * inside) as outputs:
                    scores.append(self.scores(piece))
                maps.append(list(outputs))
            logits.append(self.of_clips(torch.cat(scores), count))
            parts.append(
                [
                    places.side_by_side(_joined(pieces), samples)
                    for pieces in zip(*maps, strict=True)
                ]
            )
        return Features(
            torch.cat(logits), tuple(_joined(pieces) for pieces in zip(*parts, strict=True))
        )

    @contextmanager
    def recorded(self, layer: Layer) -> Iterator[list[Tensor]]:
        """What a layer gives in the passes that are made while the context is open.

        Yields
        ------
        list of Tensor
            One per pass, with its gradients, as the layer has its axes; `over_time` makes maps of
            clips of them.
        """
        given: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Any) -> Any:
            if (tensor := tensor_of(output)) is not None:
                given.append(tensor)
            # What comes next may work in place.
            return output.clone() if isinstance(output, Tensor) else None

        with module_of(readable(self.model), layer.name).register_forward_hook(keep):
            yield given

    def over_time(self, layer: Layer, given: Tensor, samples: int) -> Tensor:
        """Maps [B, D, F, T] of clips of `samples`, of what a layer gave of all their windows."""
        samples = self.resample.length(samples)
        return self.places(samples).side_by_side(layer.map(given), samples)

    def check(self) -> None:
        """Try the model on noise, and name the classes where nobody did.

        Raises
        ------
        UsageError
            Its scores are as many as there are no names for, differ from one time to the next, or
            have no gradient though it is said to be differentiable.
        """
        window = self.window or round(TRIAL_S * self.model_rate)
        n = -(-window * self.sample_rate // self.model_rate)
        noise = 0.1 * torch.randn(2, n, generator=torch.Generator().manual_seed(0))
        try:
            first, second = (self.logits(noise.to(self.device)).detach().cpu() for _ in range(2))
        except Exception as error:
            if (cause := raised(error)) is None:
                raise
            raise UsageError(
                f"The classifier fails on waveforms of shape [2, {n}] ({told(cause)}). Give a "
                "front_end that makes of them what it takes, its window_s, or a function that "
                "calls it."
            ) from cause
        given = len(self.classes)
        if not given:
            self.classes = tuple(f"class {i}" for i in range(first.shape[1]))
        elif given != first.shape[1]:
            raise UsageError(
                f"The classifier gives {first.shape[1]} score{'s' * (first.shape[1] > 1)} and has "
                f"{given} class name{'s' * (given > 1)}: give a name for each score, in their "
                "order."
            )
        if first.shape[1] == 1 and self.task is Task.SINGLE_LABEL:
            raise UsageError(
                "The classifier gives one score, which is for yes or no: give task='multi-label'."
            )
        p, q = self.probabilities(first), self.probabilities(second)
        if (most := float((p - q).abs().max())) > _SAME:
            raise UsageError(
                f"The classifier is not deterministic: the same sound's probabilities differ by "
                f"up to {most:.3g} from one time to the next. Switch off what is random or keeps "
                "state (dropout, noise, a recurrent state) and wrap it again."
            )
        if self.differentiable:
            self._check_gradient(noise[:1])

    def _check_gradient(self, noise: Tensor) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            x = noise.clone().to(self.device).requires_grad_()
            scores = self.logits(x)
            if scores.requires_grad:
                try:
                    (gradient,) = torch.autograd.grad(scores.sum(), x, allow_unused=True)
                except RuntimeError as error:
                    raise UsageError(
                        f"The classifier's gradient cannot be computed ({told(error)}): let it not "
                        "work in place, or give differentiable=False for methods that need none."
                    ) from error
                if gradient is not None:
                    return
        raise UsageError(
            "No gradient of the scores reaches the waveform: something on the way leaves torch "
            "(numpy, no_grad, a rounding). Give a front_end in torch, or differentiable=False "
            "for methods that need none."
        )


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(pieces)) if len(pieces) > 1 else pieces[0]

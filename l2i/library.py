"""The Python interface: explain any classifier, with nothing trained and nothing stored.

::

    clf = l2i.wrap(model, sample_rate=16000, classes=names, task="multi-label")
    e = l2i.explain(clf, "dog.wav", target="Dog")
    e.audio, e.removal                    # float32 [S]: they add up to e.input
    e.probabilities["Dog"].removal        # what the classifier says without the explanation
    e.save("out")                         # sounds, explanation.json, a page to listen to

    long = l2i.explain(clf, "night.wav")  # a file of more than a minute: a `Recording`
    long.save("night")                    # the same, and a table of its windows

In a notebook `e` as the last line of a cell is that page in small.

Over 300 lines: the interface that users read, with an example in each docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from l2i.dsp.audio import fit_length, read_part, resample
from l2i.errors import DataError, UsageError, need_positive
from l2i.explained import Component, Explained, Probabilities, write_explained
from l2i.explanation.apart import Gated, domain_of
from l2i.explanation.gates import without_training
from l2i.recording import WINDOW_S, Recording
from l2i.registry import class_index
from l2i.storage import local_place
from l2i.types import Classifier

__all__ = [
    "ExplainedRecording",
    "check_classifier",
    "clips_of",
    "explain",
    "explain_file",
    "targets_of",
]

MAX_SECONDS = 60.0
"""The longest sound that is explained as a whole: memory grows with its length, and an explanation
of minutes says little. Longer files are explained in windows, see `l2i.recording`."""
# As many clips are explained at once as have so many seconds: on a CPU more gain nothing.
_SECONDS_AT_ONCE = 20.0

Sound = str | Path | ArrayLike | Tensor


class ExplainedRecording(Recording):
    """Why a classifier says of a long file what it says: see `l2i.recording.Recording`."""

    def save(self, folder: str | Path) -> Path:
        """Explain all of it, and write what `Explained.save` writes, and ``windows.csv``; the
        folder. The sounds are 32-bit floats; the page has the most telling window.

        Raises
        ------
        UsageError
            It is an address, not a folder.
        DataError
            The file has changed, and cannot be read to its end.
        StoreError
            The folder cannot be written, or holds what a run gave.
        """
        folder = local_place(folder)
        write_explained([("", self)], folder, [""])
        return folder


def explain(
    classifier: Classifier,
    sound: Sound | Sequence[str | Path],
    target: str | int | Sequence[str | int | None] | None = None,
    *,
    sample_rate: int | None = None,
    method: str = "auto",
    on_clip: Callable[[int], None] | None = None,
    **settings: Any,
) -> Any:
    """Explain why a classifier says a class of a sound; nothing is trained before.

    Parameters
    ----------
    classifier : Classifier
        See `l2i.wrap`.
    sound : path, array or tensor
        A sound file, or several; samples [S]; of several clips [B, S], or a list of [S]. A file
        alone may be of any length: beyond a minute it is explained in windows.
    target : str or int, optional
        The class, by name or number; of several clips one each, if they differ. None: the one
        that the classifier finds most probable, of a long file in the mean of its windows.
    sample_rate : int, optional
        Hz, of arrays and tensors; by default the classifier's. Others are resampled.
    method : {'auto', 'gates', 'shapley'}
        ``gates`` needs gradients, ``shapley`` forward passes alone; see `l2i.explanation.gates`.
    on_clip : callable, optional
        Called with how many clips are done, or windows of a long file.
    **settings
        The method's own: ``components``, ``steps``, ``size``, ...

    Returns
    -------
    Explained, or a list of them where there are several clips, or ExplainedRecording
        The last for a file of more than a minute. It knows what the file is taken for; its windows
        are explained when they are asked for, or saved.

    Raises
    ------
    UsageError
        There is no such class or method.
    DataError
        A sound cannot be read, is too long, or is not a number.

    Examples
    --------
    >>> import l2i
    >>> hear = torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), torch.nn.Conv1d(1, 2, 64),
    ...                            torch.nn.AdaptiveMaxPool1d(1), torch.nn.Flatten())
    >>> e = l2i.explain(l2i.wrap(hear, 8000, ["a", "b"]), np.random.randn(8000), "a", steps=2)
    >>> bool(np.allclose(e.audio + e.removal, e.input, atol=1e-6))
    True
    """
    check_classifier(classifier)
    if isinstance(sound, str | Path):
        (one,) = targets_of(classifier, target, 1)
        return explain_file(
            classifier, Path(sound), one, method=method, on_clip=on_clip, **settings
        )
    way = without_training(classifier, method, **settings)
    clips, several = clips_of(classifier, sound, sample_rate)
    targets = targets_of(classifier, target, len(clips))
    # The network of a run needs so many samples: what is shorter ends in silence.
    lengths, least = [len(clip) for clip in clips], getattr(classifier, "min_samples", 1)
    clips = [fit_length(clip, max(len(clip), least)) for clip in clips]
    name = type(way).__name__.lower()
    explanations: list[Explained] = []
    for batch in _batches(clips, classifier.sample_rate):
        x = torch.from_numpy(np.stack([clips[i] for i in batch]))
        with torch.no_grad():
            logits = classifier.logits(x.to(classifier.device))
        if bool(logits.isnan().any()):
            raise DataError("The classifier's scores of this sound are NaN.")
        best = logits.argmax(1)
        wanted = [targets[i] for i in batch]
        classes = torch.tensor(
            [int(best[row]) if t is None else t for row, t in enumerate(wanted)],
            device=logits.device,
        )
        gated = way(x, classes)
        with torch.no_grad():
            probabilities = (
                classifier.probabilities(logits).cpu(),
                classifier.probabilities(classifier.logits(gated.audio)).cpu(),
                classifier.probabilities(classifier.logits(gated.removal)).cpu(),
            )
        shares = gated.apart.shares(gated.gates)
        for row, i in enumerate(batch):
            clip = x[row, : lengths[i]].numpy()
            explanations.append(
                _explained(classifier, clip, gated, shares, classes, probabilities, row, name)
            )
            if on_clip is not None:
                on_clip(len(explanations))
    return explanations if several else explanations[0]


def explain_file(
    classifier: Classifier,
    path: Path,
    target: str | int | None = None,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    window_s: float | None = None,
    method: str = "auto",
    on_clip: Callable[[int], None] | None = None,
    **settings: Any,
) -> Explained | ExplainedRecording:
    """`explain` of a file, or of a part of it.

    Parameters
    ----------
    start_s, duration_s : float
        The part; by default all of it.
    window_s : float, optional
        What is longer is explained in windows of so many seconds; by default what is longer than a
        minute, in windows of half a minute.
    """
    rate = classifier.sample_rate
    way = without_training(classifier, method, **settings)
    index = _class(classifier, target)
    longest = MAX_SECONDS if window_s is None else window_s
    # Somewhat more than is explained at once tells that there is more.
    most = longest + 1 if duration_s is None else min(duration_s, longest + 1)
    x = read_part(path, rate, start_s=start_s, duration_s=most)

    counter = count(1)

    def explained(x: NDArray[np.float32], target: str | int | None) -> Explained:
        explanation: Explained = explain(classifier, x, target, method=method, **settings)
        if on_clip is not None:
            on_clip(next(counter))
        return explanation

    if len(x) <= longest * rate:
        return explained(x, index)
    hop = (way.domain or domain_of(rate)).hop_length
    return ExplainedRecording.of(
        classifier,
        path,
        index,
        explained,
        hop=hop,
        start_s=start_s,
        duration_s=duration_s,
        window_s=window_s or WINDOW_S,
    )


def check_classifier(classifier: object) -> None:
    """Whether it is one.

    Raises
    ------
    UsageError
    """
    if not isinstance(classifier, Classifier):
        raise UsageError(
            f"A classifier is what l2i.wrap(...) gives, not {type(classifier).__name__}: wrap it "
            "with its sample rate and the names of its classes."
        )


def clips_of(
    classifier: Classifier, sound: Any, sample_rate: int | None
) -> tuple[list[NDArray[np.float32]], bool]:
    """Waveforms [S] at the classifier's rate, and whether several were meant."""
    rate = classifier.sample_rate
    if sample_rate is not None:
        need_positive("sample_rate", sample_rate, "Hz")
    if isinstance(sound, str | Path):
        return [_read(sound, rate)], False
    if isinstance(sound, Sequence) and sound and not isinstance(sound[0], Number):
        # One by one: they may be of several lengths.
        return [clip for one in sound for clip in clips_of(classifier, one, sample_rate)[0]], True
    if isinstance(sound, Tensor):
        sound = sound.detach().cpu()
        # numpy has no bfloat16.
        sound = (sound.float() if sound.is_floating_point() else sound).numpy()
    x = np.asarray(sound)
    if x.ndim not in (1, 2) or x.size == 0 or x.dtype.kind not in "fiu":
        raise DataError(
            f"A sound is a file, or samples [S] or [B, S], not {x.dtype} of shape {list(x.shape)}."
        )
    if x.dtype.kind in "iu":
        raise DataError(
            f"Samples are floats, usually in [-1, 1], not {x.dtype}: divide by full scale first."
        )
    each = [
        _checked(
            resample(np.ascontiguousarray(one, dtype=np.float32), sample_rate or rate, rate),
            rate,
            "The sound",
        )
        for one in np.atleast_2d(x)
    ]
    return each, x.ndim == 2


def _read(path: str | Path, rate: int) -> NDArray[np.float32]:
    # Somewhat more than is explained tells that there is more.
    return _checked(read_part(path, rate, duration_s=MAX_SECONDS + 1), rate, str(path))


def _checked(x: NDArray[np.float32], rate: int, what: str) -> NDArray[np.float32]:
    if len(x) > MAX_SECONDS * rate:
        raise DataError(
            f"{what} is longer than {MAX_SECONDS:g} s: explain a part of it, or a file, alone, "
            "which is explained in windows."
        )
    if not len(x):
        raise DataError(f"{what} is shorter than a sample at {rate} Hz.")
    if not np.isfinite(x).all():
        raise DataError(f"{what} has samples that are NaN or infinite.")
    return x


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def targets_of(classifier: Classifier, target: Any, n: int) -> list[int | None]:
    if isinstance(target, Tensor | np.ndarray):
        target = target.tolist()
    one = isinstance(target, str) or not isinstance(target, Iterable)
    many = [target] * n if one else list(target)
    if len(many) != n:
        clips, targets = _counted(n, "clip"), _counted(len(many), "target")
        verb = "is" if n == 1 else "are"
        raise UsageError(f"There {verb} {clips} and {targets}: give one, or one each.")
    return [_class(classifier, each) for each in many]


def _class(classifier: Classifier, target: str | int | None) -> int | None:
    return None if target is None else class_index(classifier.classes, target)


def _batches(clips: Sequence[NDArray[np.float32]], rate: int) -> Iterable[list[int]]:
    """Clips of one length side by side, in their order."""
    batch: list[int] = []
    for i, clip in enumerate(clips):
        room = max(1, int(_SECONDS_AT_ONCE * rate // len(clip)))
        if batch and (len(clips[batch[0]]) != len(clip) or len(batch) >= room):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _alone(gated: Gated, row: int, k: int, samples: int) -> Tensor:
    return gated.alone(row, k)[:samples]


def _explained(
    classifier: Classifier,
    clip: NDArray[np.float32],
    gated: Gated,
    both: tuple[Tensor, Tensor],
    classes: Tensor,
    probabilities: tuple[Tensor, Tensor, Tensor],
    row: int,
    method: str,
) -> Explained:
    apart, domain = gated.apart, gated.apart.domain
    samples, frames = len(clip), domain.n_frames(len(clip))
    shares, evidence = both
    order = [k for k in shares[row].argsort(descending=True).tolist() if shares[row, k] > 0]
    components = tuple(
        Component(
            k,
            float(shares[row, k]),
            float(evidence[row, k]),
            float(apart.w[row, :, k].argmax()) * domain.sample_rate / domain.n_fft,
            apart.w[row, :, k].cpu().numpy(),
            apart.activations[row, k, :frames].cpu().numpy(),
            gated.gates[row, k, :frames].cpu().numpy(),
            partial(_alone, gated, row, k, samples),
            float(shares[row, k]),
        )
        for k in order
    )
    audio = gated.audio[row, :samples].cpu().numpy()
    return Explained(
        input=clip,
        audio=audio,
        removal=clip - audio,
        sample_rate=classifier.sample_rate,
        target=classifier.classes[int(classes[row])],
        mask=gated.mask[row, :, :frames].cpu().numpy(),
        domain=domain,
        components=components,
        probabilities={
            name: Probabilities(*(float(p[row, c]) for p in probabilities))
            for c, name in enumerate(classifier.classes)
        },
        method=method,
        task=classifier.task,
    )

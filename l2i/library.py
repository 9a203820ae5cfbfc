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
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from l2i.dsp.audio import read_part, resample, write_audio
from l2i.dsp.spectrogram import Domain, common_gain, magnitude, stft
from l2i.errors import DataError, StoreError, UsageError
from l2i.explanation.gates import Gated, domain_of, without_training
from l2i.pages.listening import Media, MediaList, write_listening_page
from l2i.pages.page import escape, refuse_foreign
from l2i.pages.pictures import mask_picture, spectrogram_picture
from l2i.pages.sound import flac
from l2i.recording import TABLE, Recording
from l2i.registry import nearest
from l2i.storage import atomic_write_text, make_output, store_errors
from l2i.types import Classifier

__all__ = [
    "Component",
    "Explained",
    "ExplainedRecording",
    "Probabilities",
    "clips_of",
    "explain",
    "explain_file",
    "targets_of",
    "write_explained",
]

MAX_SECONDS = 60.0
"""The longest sound that is explained as a whole: memory grows with its length, and an explanation
of minutes says little. Longer files are explained in windows, see `l2i.recording`."""
# As many clips are explained at once as have so many seconds: on a CPU more gain nothing.
_SECONDS_AT_ONCE = 20.0
_SHOWN = 5
_FACTS = "explanation.json"
# The class must lose at least this share of its probability, and keep half of it.
_FALL = 0.2
_KEPT = 0.5

Sound = str | Path | ArrayLike | Tensor


class Probabilities(NamedTuple):
    """What the classifier says of one class: by the clip, by its explanation, without it."""

    input: float
    explanation: float
    removal: float


@dataclass(frozen=True)
class Component:
    """One spectral pattern of a clip.

    Attributes
    ----------
    number : int
    share : float
        Of the explanation, in [0, 1]; all shares add up to 1.
    evidence : float
        How much of the component is in the explanation, in [0, 1].
    peak_hz : float
        Where its spectrum is greatest.
    spectrum : float32 [F]
    activation, gate : float32 [T]
        How loud it is, and how much of that counts, in [0, 1].
    audio : float32 [S]
        What it contributes to the explanation.
    relevance : float
        For the class; where the method has none of its own, its share.
    """

    number: int
    share: float
    evidence: float
    peak_hz: float
    spectrum: NDArray[np.float32] = field(repr=False)
    activation: NDArray[np.float32] = field(repr=False)
    gate: NDArray[np.float32] = field(repr=False)
    audio: NDArray[np.float32] = field(repr=False)
    relevance: float


@dataclass(frozen=True)
class Explained:
    """Why a classifier says of a clip what it says.

    Attributes
    ----------
    input, audio, removal : float32 [S]
        The clip, the part that made the classifier say so, and what is left: the last two add up
        to the first, sample by sample.
    sample_rate : int
        Hz, of all three: the classifier's.
    target : str
        The class explained.
    mask : float32 [F, T]
        The linear gain in [0, 1] of each bin; `domain` says which bins.
    domain : Domain
    components : tuple of Component
        Those with the largest share of the explanation first.
    probabilities : dict of str to Probabilities
        For every class.
    method : str
    """

    input: NDArray[np.float32] = field(repr=False)
    audio: NDArray[np.float32] = field(repr=False)
    removal: NDArray[np.float32] = field(repr=False)
    sample_rate: int
    target: str
    mask: NDArray[np.float32] = field(repr=False)
    domain: Domain = field(repr=False)
    components: tuple[Component, ...] = field(repr=False)
    probabilities: dict[str, Probabilities] = field(repr=False)
    method: str

    @cached_property
    def kept(self) -> float:
        """The explanation's share of the clip's energy, of the spectrogram's bins, in [0, 1]."""
        size = np.square(self._size(self.input))
        whole = float(size.sum())
        return float((np.square(self.mask) * size).sum()) / whole if whole else 0.0

    @property
    def holds(self) -> bool:
        """Whether the class falls by a fifth or more without the explanation, and keeps half of
        its probability by the explanation alone."""
        p = self.probabilities[self.target]
        return p.removal <= (1 - _FALL) * p.input and p.explanation >= _KEPT * p.input

    @property
    def verdict(self) -> str:
        """One sentence: what the classifier says of both parts, and whether that bears it out."""
        p = self.probabilities[self.target]
        said = f"{self.target} {p.input:.1%}, alone {p.explanation:.1%}, without it {p.removal:.1%}"
        if not self.input.any():
            return f"The clip is silent: there is nothing to explain ({said})."
        if self.holds:
            return f"{said}: the explanation holds."
        if p.removal > (1 - _FALL) * p.input:
            why = f"removing it hardly lowers {self.target}"
        else:
            why = f"alone it is not taken for {self.target}"
        return f"{said}: {why}, this explanation does not hold."

    def __str__(self) -> str:
        return f"{self.verdict} {self.kept:.0%} of the energy is kept."

    def _size(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = magnitude(stft(torch.from_numpy(x[None]), self.domain))[
            0
        ].numpy()
        return found

    def likeliest(self, n: int = _SHOWN) -> dict[str, Probabilities]:
        """The classes that the classifier finds most probable, and the one explained."""
        order = sorted(self.probabilities, key=lambda name: -self.probabilities[name].input)
        return {name: self.probabilities[name] for name in dict.fromkeys([*order[:n], self.target])}

    def _media(self) -> Media:
        rate = self.sample_rate
        sounds = {"original": self.input, "explanation": self.audio, "removal": self.removal}
        sizes = {name: self._size(x) for name, x in sounds.items()}
        reference = max(float(size.max()) for size in sizes.values())
        pictures = {
            name: spectrogram_picture(size, rate, reference) for name, size in sizes.items()
        }
        pictures["mask"] = mask_picture(self.mask, rate, sizes["original"], reference)
        sounds |= {str(c.number): c.audio for c in self.components[:_SHOWN]}
        gain = common_gain(map(torch.from_numpy, sounds.values()))
        files = {name: flac(x * np.float32(gain), rate) for name, x in sounds.items()}
        return Media(rate, len(self.input) / rate, files, pictures)

    def facts(self) -> dict[str, Any]:
        """All that is known, as JSON has it: what ``explanation.json`` holds."""
        p = self.probabilities[self.target]
        likely = self.likeliest()
        return {
            "duration_s": len(self.input) / self.sample_rate,
            "sample_rate": self.sample_rate,
            "method": self.method,
            "class": self.target,
            "probability": {
                "original": p.input,
                "explanation": p.explanation,
                "removal": p.removal,
            },
            "holds": self.holds,
            "verdict": self.verdict,
            "kept": self.kept,
            "labels": [],
            "right": None,
            "decided": [next(iter(likely))],
            "components": [
                {
                    "component": c.number,
                    "relevance": c.relevance,
                    "evidence": c.evidence,
                    "peak_hz": c.peak_hz,
                }
                for c in self.components[:_SHOWN]
            ],
            "classifier": {name: q.input for name, q in likely.items()},
            "alone": {name: q.explanation for name, q in likely.items()},
            "without": {name: q.removal for name, q in likely.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``original.wav``, ``explanation.wav``, ``removal.wav``, ``explanation.json`` and
        ``index.html``, a page to listen to; the folder.

        Raises
        ------
        StoreError
            The folder cannot be written, or holds what a run gave.
        """
        folder = Path(folder)
        write_explained([("", self)], folder, [""])
        return folder

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Media]:
        """Write the sounds; what is known, what of that the page has, and its media."""
        sounds = {"original": self.input, "explanation": self.audio, "removal": self.removal}
        gain = np.float32(common_gain(map(torch.from_numpy, sounds.values())))
        for word, x in sounds.items():
            write_audio(folder / f"{word}.wav", x * gain, self.sample_rate)
        facts = {"name": name or self.target, **self.facts()}
        return facts, facts, self._media()

    def _repr_html_(self) -> str:
        media = self._media()

        def address(kind: str, data: bytes) -> str:
            return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

        picture = "position:absolute;inset:0;width:100%;height:100%;image-rendering:auto"
        spectrum = address("image/png", media.pictures["original"])
        mask = address("image/png", media.pictures["mask"])
        rows = "".join(
            f"<tr><td>{title}</td><td><audio controls preload='none' "
            f"src='{address('audio/flac', media.sounds[name])}'></audio></td></tr>"
            for name, title in (
                ("original", "input"),
                ("explanation", "explanation"),
                ("removal", "what is left"),
            )
        )
        return (
            f"<div><p>{escape(self)}</p><table>{rows}</table>"
            f"<div style='position:relative;max-width:640px;height:200px'>"
            f"<img alt='spectrogram' style='{picture}' src='{spectrum}'>"
            f"<img alt='mask' style='{picture}' src='{mask}'></div></div>"
        )


class ExplainedRecording(Recording):
    """Why a classifier says of a long file what it says: see `l2i.recording.Recording`."""

    def save(self, folder: str | Path) -> Path:
        """Explain all of it, and write what `Explained.save` writes, and ``windows.csv``; the
        folder. The sounds are 32-bit floats; the page has the most telling window.

        Raises
        ------
        DataError
            The file has changed, and cannot be read to its end.
        StoreError
            The folder cannot be written, or holds what a run gave.
        """
        folder = Path(folder)
        write_explained([("", self)], folder, [""])
        return folder

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Media]:
        """As `Explained.write`."""
        facts, best = self.write_sounds(folder)
        own: dict[str, Any] = best.explained.facts()
        telling = (
            f"the most telling of its {self.windows} windows, "
            f"{best.start_s:.0f} s to {best.end_s:.0f} s"
        )
        shown = {**own, "name": f"{name or self.path.name}: {telling}"}
        same = ("method", "labels", "right", "components")
        whole = {"name": name or self.target, **facts, **{k: own[k] for k in same}}
        return whole, shown, best.explained._media()


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
        A sound file, or several; samples [S], or of several clips [B, S]. A file alone may be of
        any length: beyond a minute it is explained in windows.
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
        Of the method: ``components``, ``steps``, ``size``, ...

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
    if isinstance(sound, str | Path):
        (one,) = targets_of(classifier, target, 1)
        return explain_file(
            classifier, Path(sound), one, method=method, on_clip=on_clip, **settings
        )
    way = without_training(classifier, method, **settings)
    clips, several = clips_of(classifier, sound, sample_rate)
    targets = targets_of(classifier, target, len(clips))
    name = type(way).__name__.lower()
    found: list[Explained] = []
    for batch in _batches(clips, classifier.sample_rate):
        x = torch.from_numpy(np.stack([clips[i] for i in batch]))
        with torch.no_grad():
            logits = classifier.logits(x.to(classifier.device))
        _finite(logits)
        best = logits.argmax(1)
        wanted = [targets[i] for i in batch]
        classes = torch.tensor(
            [int(best[row]) if t is None else t for row, t in enumerate(wanted)],
            device=logits.device,
        )
        gated = way(x, classes)
        with torch.no_grad():
            said = (
                classifier.probabilities(logits).cpu(),
                classifier.probabilities(classifier.logits(gated.audio)).cpu(),
                classifier.probabilities(classifier.logits(gated.removal)).cpu(),
            )
        shares = gated.shares()
        for row in range(len(batch)):
            found.append(_explained(classifier, x, gated, shares, classes, said, row, name))
            if on_clip is not None:
                on_clip(len(found))
    return found if several else found[0]


def explain_file(
    classifier: Classifier,
    path: Path,
    target: str | int | None = None,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    method: str = "auto",
    on_clip: Callable[[int], None] | None = None,
    **settings: Any,
) -> Explained | ExplainedRecording:
    """`explain` of a file, or of a part of it.

    Parameters
    ----------
    start_s, duration_s : float
        The part; by default all of it.
    """
    rate = classifier.sample_rate
    way = without_training(classifier, method, **settings)
    index = _class(classifier, target)
    # Somewhat more than is explained at once tells that there is more.
    most = MAX_SECONDS + 1 if duration_s is None else min(duration_s, MAX_SECONDS + 1)
    x = read_part(path, rate, start_s=start_s, duration_s=most)

    counter = count(1)

    def explained(x: NDArray[np.float32], target: str | int | None) -> Explained:
        found: Explained = explain(classifier, x, target, method=method, **settings)
        if on_clip is not None:
            on_clip(next(counter))
        return found

    if len(x) <= MAX_SECONDS * rate:
        return explained(x, index)
    hop = (way.domain or domain_of(rate)).hop_length
    return ExplainedRecording.of(
        classifier, path, index, explained, hop=hop, start_s=start_s, duration_s=duration_s
    )


def _finite(logits: Tensor) -> None:
    if bool(logits.isnan().any()):
        raise DataError("The classifier's scores of this sound are NaN.")


def clips_of(
    classifier: Classifier, sound: Any, sample_rate: int | None
) -> tuple[list[NDArray[np.float32]], bool]:
    """Waveforms [S] at the classifier's rate, and whether several were meant."""
    rate = classifier.sample_rate
    if isinstance(sound, Sequence) and sound and all(isinstance(s, str | Path) for s in sound):
        return [_read(s, rate) for s in sound], True
    if isinstance(sound, Tensor):
        sound = sound.detach().cpu().numpy()
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
    if not np.isfinite(x).all():
        raise DataError(f"{what} has samples that are NaN or infinite.")
    return x


def targets_of(classifier: Classifier, target: Any, n: int) -> list[int | None]:
    many = [target] * n if target is None or isinstance(target, str | int) else list(target)
    if len(many) != n:
        raise UsageError(f"There are {n} clips and {len(many)} targets: give one, or one each.")
    return [_class(classifier, each) for each in many]


def _class(classifier: Classifier, target: str | int | None) -> int | None:
    classes = classifier.classes
    if target is None:
        return None
    if isinstance(target, str):
        if target not in classes:
            like = nearest(target, list(classes))
            hint = f"; did you mean {like!r}?" if like else "."
            raise UsageError(f"The classifier knows no class {target!r}{hint}")
        return classes.index(target)
    if not 0 <= target < len(classes):
        raise UsageError(f"Class {target} is not one of the {len(classes)}, from 0.")
    return target


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


def _explained(
    classifier: Classifier,
    x: Tensor,
    gated: Gated,
    both: tuple[Tensor, Tensor],
    classes: Tensor,
    said: tuple[Tensor, Tensor, Tensor],
    row: int,
    method: str,
) -> Explained:
    domain = gated.domain
    shares, evidence = both
    order = [k for k in shares[row].argsort(descending=True).tolist() if shares[row, k] > 0]
    components = tuple(
        Component(
            k,
            float(shares[row, k]),
            float(evidence[row, k]),
            float(gated.w[row, :, k].argmax()) * domain.sample_rate / domain.n_fft,
            gated.w[row, :, k].cpu().numpy(),
            gated.activations[row, k].cpu().numpy(),
            gated.gates[row, k].cpu().numpy(),
            gated.alone(row, k).cpu().numpy(),
            float(shares[row, k]),
        )
        for k in order
    )
    audio = gated.audio[row].cpu().numpy()
    clip = x[row].numpy()
    return Explained(
        input=clip,
        audio=audio,
        removal=clip - audio,
        sample_rate=classifier.sample_rate,
        target=classifier.classes[int(classes[row])],
        mask=gated.mask[row].cpu().numpy(),
        domain=domain,
        components=components,
        probabilities={
            name: Probabilities(*(float(p[row, c]) for p in said))
            for c, name in enumerate(classifier.classes)
        },
        method=method,
    )


def write_explained(
    found: Iterable[tuple[str, Explained | ExplainedRecording]], out: Path, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Write explanations into a folder, each in one of its own, and a page to listen to all.

    Parameters
    ----------
    found : iterable of (str, Explained or ExplainedRecording)
        With the names of their folders. Each is written, and let go, before the next is asked for.
    out : Path
        Made for the first of them.
    names : sequence of str
        All that may come: that their folders are free is found out first. One alone may be called
        ``""``, and lies in `out` itself.

    Returns
    -------
    list of dict
        What each ``explanation.json`` holds.

    Raises
    ------
    StoreError
    """
    page = out / "index.html"
    refuse_foreign(page)
    for folder in (out / name for name in names):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _FACTS).is_file():
            raise StoreError(f"{folder} holds other things than an explanation: name another.")
    found_facts: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    media = MediaList()
    for name, e in found:
        with store_errors(out):
            make_output(out)
            folder = out / name
            folder.mkdir(exist_ok=True)
            facts, shown, seen = e.write(folder, name)
            if "windows" not in facts:
                (folder / TABLE).unlink(missing_ok=True)  # Of another sound that lay here.
            text = json.dumps(facts, indent=2, ensure_ascii=False)
            atomic_write_text(folder / _FACTS, f"{text}\n")
        found_facts.append(facts)
        clips.append(shown)
        media.append(seen)
    if clips:
        title = "Explanations" if len(clips) > 1 else f"Explanation: {clips[0]['class']}"
        with store_errors(out):
            write_listening_page(page, clips, media, title=title)
    return found_facts

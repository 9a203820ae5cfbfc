"""Recordings of minutes or hours, explained window by window in memory that does not grow.

A file is read as windows of half a minute, or of another length, each of which begins a tenth of
that before the last one ends. Each is explained by itself. Where two meet, one explanation fades
out while the other fades in, by weights that add up to one::

    E = sum_i f_i E_i      R = sum_i f_i R_i      sum_i f_i = 1

so that explanation and removal add up to the recording, sample by sample, where they do so in a
clip. What a window is explained for is one class of the whole recording. No more than a window is
held: sounds are written as they come.

Over 300 lines: one object, which reads, weighs and writes windows by the same bookkeeping.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.dsp.audio import read_part
from l2i.errors import DataError
from l2i.storage import atomic_path
from l2i.types import Classifier

__all__ = ["TABLE", "WINDOW_S", "Recording", "Window"]

WINDOW_S = 30.0
"""The length of a window, where nobody names another one; the last window may be shorter, though
no shorter than the overlap."""
# The share of a window from its begin to the end of the one before.
_OVERLAP = 0.1
TABLE = "windows.csv"
SOUNDS = ("original", "explanation", "removal")

# Beyond it, the header of a WAV file cannot tell how long the file is.
_LARGEST_WAV = 4 * 10**9


_NONE_HOLDS = {
    "mark": "no window holds",
    "text": "No window has an explanation that holds.",
    "void": True,
}


class Window(NamedTuple):
    """One window of a recording, explained.

    Attributes
    ----------
    start_s, end_s : float
        Seconds from where the file begins.
    explained : l2i.Explained
    """

    start_s: float
    end_s: float
    explained: Any


@dataclass(frozen=True)
class Recording:
    """A sound file that is too long for one explanation; made by `l2i.explain`.

    To iterate over it is to explain it, window by window; nothing is kept of a window that is done
    with. `write_sounds` keeps all that is to be heard in files.

    Attributes
    ----------
    path : Path
    sample_rate : int
        Hz: the classifier's.
    target : str
        The class explained.
    start, samples : int
        What of the file is explained, at `sample_rate`.
    probabilities : dict of str to float
        For every class, the mean over the windows.
    windows : int
        How many there are.
    """

    path: Path
    sample_rate: int
    target: str
    start: int
    samples: int
    probabilities: dict[str, float] = field(repr=False)
    windows: int
    _size: tuple[int, int] = field(repr=False)
    _explain: Callable[[NDArray[np.float32], str], Any] = field(repr=False)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        path: Path,
        target: int | None,
        explain: Callable[[NDArray[np.float32], str], Any],
        *,
        hop: int,
        start_s: float = 0.0,
        duration_s: float | None = None,
        window_s: float = WINDOW_S,
        least: int = 1,
    ) -> Self:
        """Listen to a file once from begin to end, which says what it is taken for.

        Parameters
        ----------
        classifier : Classifier
        path : Path
        target : int, optional
            The class; by default the one that is most probable over the whole of it: by the mean
            of its probability over the windows.
        explain : callable
            Samples [S] and a class's name to their explanation.
        hop : int
            Windows begin at multiples of it: frames of one lie on those of the next.
        start_s, duration_s : float
            What of the file.
        window_s : float
            Seconds of a window.
        least : int
            Samples that the classifier needs; a last window that has less is padded with silence.

        Raises
        ------
        DataError
            The file cannot be read to its end, or the classifier's answer is not a number.
        """
        rate = classifier.sample_rate
        window = max(2, round(window_s * rate / hop)) * hop
        overlap = max(1, round(_OVERLAP * window / hop)) * hop
        start = round(start_s * rate)
        most = None if duration_s is None else max(1, round(duration_s * rate))
        total, count, samples = torch.zeros(len(classifier.classes), dtype=torch.float64), 0, 0
        for first, x in _windows(path, rate, start, most, window, overlap):
            padded = np.pad(x, (0, max(0, least - len(x))))
            with torch.no_grad():
                logits = classifier.logits(torch.from_numpy(padded[None]).to(classifier.device))
                total += classifier.probabilities(logits)[0].cpu().double()
            count, samples = count + 1, first + len(x)
        mean = total / count
        if bool(mean.isnan().any()):
            raise DataError("The classifier's scores of this sound are NaN.")
        chosen = int(mean.argmax()) if target is None else target
        return cls(
            path,
            rate,
            classifier.classes[chosen],
            start,
            samples,
            dict(zip(classifier.classes, mean.tolist(), strict=True)),
            count,
            (window, overlap),
            explain,
        )

    @property
    def duration_s(self) -> float:
        """Length of what is explained."""
        return self.samples / self.sample_rate

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.duration_s:.0f} s, {self.windows} windows, in the mean "
            f"{self.target} {self.probabilities[self.target]:.1%}."
        )

    def __len__(self) -> int:
        return self.windows

    def __iter__(self) -> Iterator[Window]:
        for first, x in _windows(
            self.path, self.sample_rate, self.start, self.samples, *self._size
        ):
            yield self._window(first, x)

    def _window(self, first: int, x: NDArray[np.float32]) -> Window:
        ends = (self.start + first, self.start + first + len(x))
        begin, end = (n / self.sample_rate for n in ends)
        return Window(begin, end, self._explain(x, self.target))

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """As `l2i.Explained.write`; the page has the most telling window."""
        facts, best = self.write_sounds(folder)
        own: dict[str, Any] = best.explained.facts()
        telling = (
            f"the most telling of its {self.windows} windows, "
            f"{best.start_s:.0f} s to {best.end_s:.0f} s"
        )
        shown = {**own, "name": f"{name or self.path.name}: {telling}"}
        same = ("method", "labels", "right", "components")
        whole = {"name": name or self.target, **facts, **{k: own[k] for k in same}}
        return whole, shown, best.explained.media()

    def write_sounds(self, folder: Path) -> tuple[dict[str, Any], Window]:
        """Explain all of it into files: ``original.wav``, ``explanation.wav`` and ``removal.wav``,
        32-bit floats, which add up as they are; and ``windows.csv``, a line for each window.

        Parameters
        ----------
        folder : Path
            Is there. Files that are not whole are not left in it.

        Returns
        -------
        dict
            What is known of the whole: the class, its mean probabilities, ...
        Window
            The most telling one: where the explanation holds, and the class loses the most of its
            probability without it.

        Raises
        ------
        DataError, StoreError
        """
        rows: list[tuple[float, ...]] = []
        held, best, most = 0, None, (False, -2.0)
        with ExitStack() as stack:
            files = [self._file(stack, folder / f"{name}.wav") for name in SOUNDS]
            for window, sounds in self._faded():
                for file, sound in zip(files, sounds, strict=True):
                    file.write(sound)
                e = window.explained
                p = e.probabilities[self.target]
                rows.append((window.start_s, window.end_s, *p, e.kept))
                held += e.holds
                if best is None or (e.holds, p[0] - p[2]) > most:
                    best, most = window, (e.holds, p[0] - p[2])
            table = stack.enter_context(atomic_path(folder / TABLE))
            with open(table, "w", newline="", encoding="utf-8") as lines:
                out = csv.writer(lines)
                out.writerow(("start_s", "end_s", "probability", "alone", "without", "kept"))
                out.writerows([f"{value:.6g}" for value in row] for row in rows)
        assert best is not None
        means = np.array(rows)[:, 2:].mean(axis=0).tolist()
        facts = {
            "duration_s": self.duration_s,
            "sample_rate": self.sample_rate,
            "class": self.target,
            "probability": dict(zip(SOUNDS, means, strict=False)),
            "kept": means[3],
            "windows": len(rows),
            "windows_that_hold": held,
            "holds": held > 0,
            "warnings": [] if held else [_NONE_HOLDS],
            "window_s": self._size[0] / self.sample_rate,
            "overlap_s": self._size[1] / self.sample_rate,
            "shown": {"start_s": best.start_s, "end_s": best.end_s},
        }
        return facts, best

    def _file(self, stack: ExitStack, path: Path) -> Any:
        import soundfile

        # Entered first, left last: what is renamed is closed.
        temporary = stack.enter_context(atomic_path(path))
        kind = "RF64" if 4 * self.samples > _LARGEST_WAV else "WAV"
        file = soundfile.SoundFile(
            temporary, "w", self.sample_rate, 1, format=kind, subtype="FLOAT"
        )
        return stack.enter_context(file)

    def _faded(self) -> Iterator[tuple[Window, list[NDArray[np.float32]]]]:
        """Each window, and what it makes final [S] of the recording, its explanation and the
        removal."""
        overlap = self._size[1]
        rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)).astype(np.float32)
        before: list[NDArray[np.float32]] = []
        for number, (first, x) in enumerate(
            _windows(self.path, self.sample_rate, self.start, self.samples, *self._size), start=1
        ):
            window = self._window(first, x)
            parts = [window.explained.audio.copy(), window.explained.removal.copy()]
            for part, last in zip(parts, before, strict=False):
                part[:overlap] = last + rise * part[:overlap]
            end = len(x) if number == self.windows else len(x) - overlap
            before = [(1 - rise) * part[end:] for part in parts] if end < len(x) else []
            yield window, [x[:end], *(part[:end] for part in parts)]


def _windows(
    path: Path, rate: int, start: int, most: int | None, window: int, overlap: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First sample, from `start` on, and samples of each window; the last ends where the file does,
    or `most` samples. What two have in common is read once."""
    first, x = 0, np.zeros(0, np.float32)
    while True:
        have = first + len(x)
        wanted = window - len(x)
        if most is not None:
            wanted = min(wanted, most - have)
        # One more tells whether there is more.
        more = read_part(path, rate, start_s=(start + have) / rate, duration_s=(wanted + 1) / rate)
        x = np.concatenate([x, more[:wanted]])
        yield first, x
        if len(more) <= wanted or first + len(x) == most:
            return
        first += len(x) - overlap
        x = x[-overlap:]

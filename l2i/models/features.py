"""What the frozen classifier says of the training clips: computed once, kept in memory or on disk.

Per clip and view (a view is the clip, rotated in time, alone or with another one): logits, hidden
maps, which frames can be heard, W'S and |S|^2, which are all that the interpreter's training reads
(see `losses`). An epoch never runs the classifier.

Over 300 lines: one store in two places, whose bytes must agree.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from l2i.dsp.spectrogram import Domain, audible_frames, peak_normalise
from l2i.errors import StoreError
from l2i.models.heard import hear
from l2i.storage import atomic_write_text
from l2i.types import Classifier, Features

# A process that is killed loses what it computed in so many seconds.
_KEEP_S = 10.0


def memory_budget() -> int:
    """Bytes that kept arrays may take: a quarter of the memory that is free."""
    return psutil.virtual_memory().available // 4


def allocate(shape: tuple[int, ...], folder: Path, in_memory: bool) -> Tensor:
    """A float32 tensor, in memory or mapped from a file in `folder`, which has no name there and
    goes with the tensor, however the process ends."""
    if in_memory:
        return torch.empty(shape)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))


@dataclass(frozen=True)
class FeatureStore:
    """Kept outputs of N clips.

    Attributes
    ----------
    logits : Tensor [N, C]
    maps : tuple of Tensor [N, F_l, T_l, D_l]
        Channels last, so that a batch of rows needs no copy into that order.
    audible : Tensor [N, T], bool
        Frames in which there is something to hear.
    projected : Tensor [N, K, T]
        W'S.
    energy : Tensor [N]
        |S|^2.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]
    audible: Tensor
    projected: Tensor
    energy: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def frames(self) -> int:
        """T."""
        return self.audible.shape[1]

    def batch(self, rows: Tensor, device: torch.device) -> tuple[Features, Tensor, Tensor, Tensor]:
        """Features, audible frames [B, T], W'S [B, K, T] and |S|^2 [B] of some rows, on
        `device`."""
        maps = tuple(m[rows].to(device).permute(0, 3, 1, 2) for m in self.maps)
        return (
            Features(self.logits[rows].to(device), maps),
            self.audible[rows].to(device),
            self.projected[rows].to(device),
            self.energy[rows].to(device),
        )


class _Disk:
    """Arrays in files of a folder, and how many of their rows are computed; `about` is what these
    depend on and the folder's name does not say: rows that were computed otherwise are no use."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._mark = folder / "rows.json"
        self._about = dict(about)
        self._files: list[np.memmap] = []
        self._last = time.monotonic()

    def _path(self, number: int) -> Path:
        return self._folder / f"features-{number}.npy"

    def make(self, like: list[Tensor]) -> list[Tensor]:
        """New arrays, of types and shapes of these."""
        self._mark.unlink(missing_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = [
            np.lib.format.open_memmap(
                self._path(i), "w+", np.dtype(str(t.dtype)[6:]), tuple(t.shape)
            )
            for i, t in enumerate(like)
        ]
        return [torch.from_numpy(file) for file in self._files]

    def take_up(self) -> tuple[list[Tensor], int]:
        """The arrays that an earlier process has left, and its rows; none, and 0."""
        try:
            mark = json.loads(self._mark.read_text())
            if mark["about"] != self._about:
                return [], 0
            paths = [self._path(i) for i in range(mark["arrays"])]
            self._files = [np.lib.format.open_memmap(path, "r+") for path in paths]
            return [torch.from_numpy(file) for file in self._files], int(mark["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            return [], 0

    def keep(self, rows: int, *, now: bool = False) -> None:
        """So many rows are computed: written down now, or where the last time is long ago."""
        if self._files and (now or time.monotonic() - self._last >= _KEEP_S):
            for file in self._files:
                file.flush()
            document = {"about": self._about, "arrays": len(self._files), "rows": rows}
            atomic_write_text(self._mark, json.dumps(document) + "\n")
            self._last = time.monotonic()


def _rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Clips [B, S], each by its own number of samples."""
    return torch.stack([torch.roll(one, int(n)) for one, n in zip(x, turns, strict=True)])


def _silenced(x: Tensor, given: Tensor, length: Tensor, where: Tensor) -> Tensor:
    """Clips [B, S], of those given [B, 1] nothing but a stretch that holds the loudest sample.

    Its length [B, 1] is a share of the clip, and what leaves it at the clip's end re-enters at its
    start, as in a rotation; the loudest sample lies in it where [B, 1], in [0, 1), says.
    """
    samples = x.shape[1]
    many = (length * samples).round()
    start = x.abs().argmax(dim=1, keepdim=True) - (where * many).floor()
    left = (torch.arange(samples) - start) % samples < many
    return torch.where(left | ~given, x, 0.0)


def compute_features(
    classifier: Classifier,
    w: Tensor,
    domain: Domain,
    waveforms: np.ndarray,
    rows: np.ndarray,
    maps: tuple[str, ...],
    folder: Path,
    *,
    views: int = 1,
    mixed_db: float = 0.0,
    silenced: float = 0.0,
    generator: torch.Generator | None = None,
    batch_size: int = 16,
    on_clip: Callable[[int], None] | None = None,
) -> FeatureStore:
    """Run the frozen classifier over some clips, once.

    What does not fit into memory is in files in `folder`, where it is found again: a call that was
    interrupted goes on where it stopped, and ends with the same bits.

    Parameters
    ----------
    classifier : Classifier
    w : Tensor [F, K]
    domain : Domain
        The transform that W was made with.
    waveforms : float32 [N, S]
    rows : int64 [n]
        The clips wanted.
    maps : tuple of str
        Names of hidden layers.
    folder : Path
        For what does not fit into memory, of these very arguments alone.
    views : int
        Clip n of view v is row ``v * n_rows + n``; view 0 is the clip as it is, view v is rotated
        by v / views of its length.
    mixed_db : float
        Unless 0: in every view but the first each clip has another one of `rows` added, both
        peak-normalised and rotated at random, at a level drawn from 0 to so many dB below it. A
        classifier is sure of the clips it was trained on, and its outputs say hardly more than
        their labels; of mixtures it is as unsure as of clips it has never heard.
    silenced : float
        In every view but the first, of this share of the clips a stretch of a tenth to the whole,
        drawn at random with the loudest sample in it, is left; the rest is zeros.
    generator : torch.Generator, optional
        On the CPU; all that is random is drawn from it. Needed where `mixed_db` or `silenced` is
        not 0.
    on_clip : callable, optional
        Called with the number of clips done since the last call.
    """
    if (mixed_db or silenced) and generator is None:
        raise ValueError("what is drawn at random needs a generator")
    total = len(rows) * views
    disk = _Disk(
        folder,
        {
            "rows": total,
            "batch_size": batch_size,
            "device": classifier.device.type,
            "dtype": str(getattr(classifier, "dtype", torch.float32)),
        },
    )
    kept, at = disk.take_up()
    if at and on_clip is not None:
        on_clip(at)
    # A mixture is as loud as its first clip, where the classifier hears levels.
    levels = not hasattr(classifier, "features_of")
    clips = _views(waveforms, rows, views, mixed_db, silenced, generator, batch_size, at, levels)
    try:
        for x in clips:
            heard = hear(classifier, x, domain, maps)
            features, size = heard.features, heard.size
            audible = audible_frames(size)
            size.log1p_()
            some = [
                features.logits,
                *(m.permute(0, 2, 3, 1) for m in features.maps),
                audible,
                torch.matmul(w.T, size),
                size.square().sum(dim=(1, 2)),
            ]
            if not kept:
                like = [
                    torch.empty(total, *y.shape[1:], dtype=y.dtype, device="meta") for y in some
                ]
                fits = sum(y.nbytes for y in like) <= memory_budget()
                kept = (
                    [torch.empty_like(y, device="cpu") for y in like] if fits else disk.make(like)
                )
            for array, y in zip(kept, some, strict=True):
                array[at : at + len(x)] = y.cpu()
            at += len(x)
            disk.keep(at)
            if on_clip is not None:
                on_clip(len(x))
    except BaseException:
        with suppress(OSError, StoreError):
            disk.keep(at, now=True)
        raise
    disk.keep(at, now=True)
    if not kept:
        raise ValueError("no clips")
    logits, *arrays, audible, projected, energy = kept
    return FeatureStore(logits, tuple(arrays), audible, projected, energy)


def _views(
    waveforms: np.ndarray,
    rows: np.ndarray,
    views: int,
    mixed_db: float,
    silenced: float,
    generator: torch.Generator | None,
    batch_size: int,
    first: int,
    keeps_level: bool,
) -> Iterator[Tensor]:
    """Batches of clips [B, S] of all views, in order, from row `first` on.

    All is drawn of those before, too, so that those after are the same.
    """
    n, samples = len(rows), waveforms.shape[1]

    def read(which: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(waveforms[which]))

    for view in range(views):
        if view and mixed_db:
            others = rows[torch.randperm(n, generator=generator).numpy()]
            turns = torch.randint(samples, (2, n), generator=generator)
            gains = 10 ** (-mixed_db / 20 * torch.rand(n, 1, generator=generator))
        if view and silenced:
            chance, share, where = torch.rand(3, n, 1, generator=generator)
            given, length = chance < silenced, 0.1 + 0.9 * share
        for start in range(0, n, batch_size):
            if view * n + start < first:
                continue
            part = slice(start, start + batch_size)
            x = read(rows[part])
            if view and mixed_db:
                x = _rotated(peak_normalise(x), turns[0, part])
                y = _rotated(peak_normalise(read(others[part])), turns[1, part])
                x = x + gains[part] * y
                if keeps_level:
                    x = x * read(rows[part]).abs().amax(dim=1, keepdim=True)
            elif view:
                x = torch.roll(x, view * samples // views, dims=1)
            if view and silenced:
                x = _silenced(x, given[part], length[part], where[part])
            yield x

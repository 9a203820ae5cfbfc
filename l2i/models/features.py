"""What the frozen classifier says of the training clips: computed once, kept in memory or on disk.

Per clip and view (a view is the clip, rotated in time, alone or with another one): logits, hidden
maps, which frames can be heard, W'S and |S|^2, which are all that the interpreter's training reads
(see `losses`). An epoch never runs the classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from l2i.dsp.spectrogram import audible_frames, magnitude, peak_normalise
from l2i.models.classifier import FrozenClassifier
from l2i.types import Features

__all__ = ["FeatureStore", "allocate", "compute_features", "memory_budget"]


def memory_budget() -> int:
    """Bytes that kept arrays may take: a quarter of the memory that is free."""
    return psutil.virtual_memory().available // 4


def allocate(shape: tuple[int, ...], path: Path, in_memory: bool) -> Tensor:
    """A float32 tensor, in memory or mapped from a new file at `path`."""
    if in_memory:
        return torch.empty(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    return torch.from_numpy(np.lib.format.open_memmap(path, "w+", np.float32, shape))


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


def _rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Clips [B, S], each by its own number of samples."""
    return torch.stack([torch.roll(one, int(n)) for one, n in zip(x, turns, strict=True)])


def _silenced(x: Tensor, given: Tensor, length: Tensor, where: Tensor) -> Tensor:
    """Clips [B, S], of some nothing but a stretch that holds the loudest sample.

    Parameters
    ----------
    x : Tensor [B, S]
    given : Tensor [B, 1], bool
        Which clips.
    length : Tensor [B, 1]
        Of the stretch, as a share of the clip. What leaves it at the clip's end re-enters at its
        start, as in a rotation.
    where : Tensor [B, 1]
        How far into the stretch the loudest sample lies, in [0, 1).
    """
    samples = x.shape[1]
    many = (length * samples).round()
    start = x.abs().argmax(dim=1, keepdim=True) - (where * many).floor()
    left = (torch.arange(samples) - start) % samples < many
    return torch.where(left | ~given, x, 0.0)


def compute_features(
    classifier: FrozenClassifier,
    w: Tensor,
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

    Parameters
    ----------
    classifier : FrozenClassifier
    w : Tensor [F, K]
    waveforms : float32 [N, S]
    rows : int64 [n]
        The clips wanted.
    maps : tuple of {'512', '256', '128'}
    folder : Path
        For what does not fit into memory.
    views : int
        Clip n of view v is row ``v * n_rows + n``; view 0 is the clip as it is, view v is rotated
        by v / views of its length.
    mixed_db : float
        Unless 0: in every view but the first each clip has another one of `rows` added, both
        peak-normalised and rotated at random, at a level drawn from 0 to so many dB below it. Of
        the clips it was trained on a classifier is sure, and its outputs say hardly more than
        their labels; of mixtures it is as unsure as of clips it has never heard.
    silenced : float
        Of this share of the clips in every view but the first, a stretch of a tenth to the whole,
        drawn at random with the loudest sample in it, is left; the rest is zeros.
    generator : torch.Generator, optional
        On the CPU; all that is random is drawn from it. Needed where `mixed_db` or `silenced` is
        not 0.
    on_clip : callable, optional
        Called with the number of clips done since the last call.
    """
    if (mixed_db or silenced) and generator is None:
        raise ValueError("what is drawn at random needs a generator")
    n, total = len(rows), len(rows) * views
    store: FeatureStore | None = None
    at = 0
    samples = waveforms.shape[1]

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
            part = slice(start, start + batch_size)
            some = rows[part]
            x = read(some)
            if view and mixed_db:
                x = _rotated(peak_normalise(x), turns[0, part])
                y = _rotated(peak_normalise(read(others[part])), turns[1, part])
                x = x + gains[part] * y
            elif view:
                x = torch.roll(x, view * samples // views, dims=1)
            if view and silenced:
                x = _silenced(x, given[part], length[part], where[part])
            spectrum = classifier.spectrum(x)
            size = magnitude(spectrum)
            features = classifier.features(size, maps)
            audible = audible_frames(size)
            size.log1p_()
            projected = torch.matmul(w.T, size)
            if store is None:
                shapes = [(total, *m.permute(0, 2, 3, 1).shape[1:]) for m in features.maps]
                shapes += [(total, *projected.shape[1:])]
                need = sum(4 * int(np.prod(s)) for s in shapes)
                memory = need <= memory_budget()
                arrays = [
                    allocate(s, folder / f"features-{i}.npy", memory) for i, s in enumerate(shapes)
                ]
                store = FeatureStore(
                    torch.empty(total, features.logits.shape[1]),
                    tuple(arrays[:-1]),
                    torch.empty(total, projected.shape[2], dtype=torch.bool),
                    arrays[-1],
                    torch.empty(total),
                )
            end = at + len(some)
            store.logits[at:end] = features.logits.cpu()
            for kept, m in zip(store.maps, features.maps, strict=True):
                kept[at:end] = m.permute(0, 2, 3, 1).cpu()
            store.audible[at:end] = audible.cpu()
            store.projected[at:end] = projected.cpu()
            store.energy[at:end] = size.square().sum(dim=(1, 2)).cpu()
            at = end
            if on_clip is not None:
                on_clip(len(some))
    if store is None:
        raise ValueError("no clips")
    return store

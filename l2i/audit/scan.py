"""One pass over the clips: what speaks for each class that the classifier says of each.

A clip is heard once, explained once for each class that the classifier decides for, and its
explanation is judged once. What is kept of it is a row of less than a kilobyte, in files of some
hundred clips each, so that a pass over many clips takes no more memory than one over few, and goes
on where it was stopped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.audit.cues import Palette
from l2i.dsp.spectrogram import kept_energy, linear_gain
from l2i.errors import StoreError
from l2i.explanation import ExplanationMethod, Subject, audible, split_heard
from l2i.models.heard import hear
from l2i.storage import atomic_write_bytes, disk_errors

# Clips of one file.
SHARD = 128
TIMES = 16
"""Parts of a clip's duration that an explanation's energy is told for."""
_BATCH = 16


@dataclass(frozen=True)
class Rows:
    """Pairs [P] of a clip and a class that the classifier decides for.

    Attributes
    ----------
    clip : int64 [P]
        Its number; silent clips have no row.
    classes : int64 [P]
        The class explained.
    second : int64 [P]
        The class that is the most probable of the others, by the clip.
    probability, alone : float32 [P]
        The class's, from the clip and from the explanation alone.
    alone_as : int64 [P]
        The class that is most probable by the explanation alone.
    kept : float32 [P]
        The explanation's share of the clip's energy, in [0, 1].
    level : float32 [P, K]
        Each part's share of the clip's energy.
    evidence : float32 [P, K]
        Each part's share of the explanation's energy.
    when : float32 [P, `TIMES`]
        The share of the explanation's energy in each sixteenth of the clip.
    """

    clip: NDArray[np.int64]
    classes: NDArray[np.int64]
    second: NDArray[np.int64]
    probability: NDArray[np.float32]
    alone: NDArray[np.float32]
    alone_as: NDArray[np.int64]
    kept: NDArray[np.float32]
    level: NDArray[np.float32]
    evidence: NDArray[np.float32]
    when: NDArray[np.float32]

    @classmethod
    def joined(cls, some: Sequence[Rows]) -> Rows:
        """All of them, in order."""
        names = (field.name for field in fields(cls))
        return cls(**{name: np.concatenate([getattr(r, name) for r in some]) for name in names})

    def take(self, which: NDArray[np.bool_]) -> Rows:
        """Some of them."""
        return Rows(**{name: values[which] for name, values in vars(self).items()})

    def __len__(self) -> int:
        return len(self.clip)


def scan(
    subject: Subject,
    way: ExplanationMethod,
    palette: Palette,
    read: Callable[[slice], NDArray[np.float32]],
    count: int,
    folder: Path,
    on_clips: Callable[[int], None],
    share: tuple[int, int] = (0, 1),
) -> Rows:
    """Hear and explain all clips.

    Parameters
    ----------
    subject : Subject
    way : ExplanationMethod
    palette : Palette
        The parts that sounds are told apart into.
    read : callable
        Waveforms float32 [B, S] of the clips of a slice.
    count : int
        How many clips there are.
    folder : Path
        Files of rows are kept in it; those that are there are not made again.
    on_clips : callable
        Called with a number of clips after each file.
    share : (int, int)
        Which of how many shares of the files is made here, from 0; by default all.

    Returns
    -------
    Rows
        Those of the share.

    Raises
    ------
    StoreError
        A file of rows is damaged.
    """
    shards = []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, start, end in files_of(count, folder, share):
        if not path.exists():
            parts = [
                _rows(subject, way, palette, read(slice(at, min(at + _BATCH, end))), at)
                for at in range(start, end, _BATCH)
            ]
            whole = io.BytesIO()
            np.savez(whole, **vars(Rows.joined(parts)))
            with disk_errors(folder):
                atomic_write_bytes(path, whole.getvalue())
        shards.append(_load(path))
        on_clips(end - start)
    return Rows.joined(shards) if shards else _nothing(len(palette.parts))


def files_of(
    count: int, folder: Path, share: tuple[int, int] = (0, 1)
) -> list[tuple[Path, int, int]]:
    """The files of a pass, and the clips that each is about: from, to."""
    ends = [(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    own, shares = share
    return [(folder / f"clips-{a:08d}-{b:08d}.npz", a, b) for a, b in ends[own::shares]]


def _load(path: Path) -> Rows:
    try:
        with np.load(path) as arrays:
            return Rows(**arrays)
    except (OSError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise StoreError(
            f"{path} is damaged ({error}): remove it, and give the command again."
        ) from None


def _rows(
    subject: Subject, way: ExplanationMethod, palette: Palette, x: NDArray[np.float32], first: int
) -> Rows:
    clf = subject.classifier
    heard = hear(clf, torch.from_numpy(np.ascontiguousarray(x)), subject.domain, way.layers)
    decided = clf.decisions(heard.logits) & audible(heard.size).unsqueeze(1)
    which, classes = decided.nonzero(as_tuple=True)
    if not len(which):
        return _nothing(len(palette.parts))
    heard, own = heard.take(which), classes.unsqueeze(1)
    keys = [first + int(i) for i in which]
    mask = way(heard, classes, keys)

    def share(x: Tensor) -> NDArray[np.float32]:
        whole = x.sum(dim=1, keepdim=True)
        return torch.where(whole > 0, x / whole.clamp_min(1e-30), 0.0).float().cpu().numpy()

    def numbers(x: Tensor) -> NDArray[np.float32]:
        return x.float().cpu().numpy()

    with torch.inference_mode():
        gain = linear_gain(mask, heard.size, linear=way.linear)
        audio, _ = split_heard(heard, mask, linear=way.linear)
        alone = heard.judge(audio)
        power = heard.size.square()
        explained = power * gain.square()
        frames = explained.sum(dim=1)
        edges = torch.linspace(0, frames.shape[1], TIMES + 1).round().long().tolist()
        when = torch.stack([frames[:, a:b].sum(1) for a, b in pairwise(edges)], dim=1)
        taken = palette.take_apart(heard)
        return Rows(
            np.array(keys, np.int64),
            classes.cpu().numpy(),
            heard.logits.scatter(1, own, -torch.inf).argmax(dim=1).cpu().numpy(),
            numbers(clf.probabilities(heard.logits).gather(1, own)[:, 0]),
            numbers(clf.probabilities(alone).gather(1, own)[:, 0]),
            alone.argmax(dim=1).cpu().numpy(),
            numbers(kept_energy(gain, heard.size).nan_to_num(0.0)),
            share(palette.energies(taken, power)),
            share(palette.energies(taken, explained)),
            share(when),
        )


def _nothing(k: int) -> Rows:
    none, whole = np.zeros(0, np.float32), np.zeros(0, np.int64)
    many = np.zeros((0, k), np.float32)
    return Rows(
        whole, whole, whole, none, none, whole, none, many, many, np.zeros((0, TIMES), np.float32)
    )

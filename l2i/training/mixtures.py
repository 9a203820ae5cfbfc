"""Mixtures of the training clips, of which it is known what the classifier hears in each part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.errors import DataError
from l2i.models.heard import hear
from l2i.run.device import epoch_generator
from l2i.training.fitting import in_batches
from l2i.training.parts import Context

# What certifies that a part carries the class, and that the other one does not.
_THERE, _NOT_THERE = 0.5, 0.2
# A clip alone has another one this far below it, which is nothing.
_NOTHING_DB = 60.0
_SILENT = 1e-6


@dataclass(frozen=True)
class Mixing:
    """What a mixer is told; by default it mixes whole clips, all of them.

    Attributes
    ----------
    batch_size : int
    mixed_db : float
        The second clip is 0 to so many dB below the first.
    views : int
        Stretches of each clip, drawn once.
    crop_share : float
        Their length, as a share of the clip; no shorter than the classifier can hear.
    alone : float
        Share of clips that are not mixed.
    """

    batch_size: int
    mixed_db: float
    views: int = 1
    crop_share: float = 1.0
    alone: float = 0.0


@dataclass(frozen=True)
class Mixed:
    """Mixtures x = a + b, of which class c is explained; parts are of x scaled to its peak.

    `sure` is w: the classifier certifies that a carries c, and b does not; `mixed`, that there is
    any b.
    """

    x: Tensor  # [B, S]
    a: Tensor
    b: Tensor
    classes: Tensor  # [B], int64
    sure: Tensor  # [B], 0 or 1
    mixed: Tensor


class Mixer:
    """Mixtures of stretches of the clips, of which it is known what the classifier hears in them.

    A clip has a few stretches, drawn once, so that the classifier is asked about each once.

    Parameters
    ----------
    context : Context
    s : Mixing
    without : sequence of int
        Classes of the classifier: clips in which it hears one of them are left out.

    Raises
    ------
    DataError
        Fewer than two training clips are left.
    """

    def __init__(self, context: Context, s: Mixing, without: Sequence[int] = ()) -> None:
        self._classifier, self._sounds, self._s = context.classifier, context.sounds, s
        self._domain, self._device = context.domain, context.device
        samples = context.sounds.n_samples
        least = getattr(context.classifier, "min_samples", 1)
        self._length = min(samples, max(round(samples * s.crop_share), least))
        draw = epoch_generator(context.seed, "gates", "views")
        train, held = context.sounds.train, context.sounds.validate
        self._stretches = {
            "train": self._drawn(train, s.views, draw),
            "held": self._drawn(held if len(held) > 1 else train, 1, draw),
        }
        with context.progress.task("parts of mixtures", unit="clip") as bar:
            self._heard = {}
            for key, stretches in self._stretches.items():
                probabilities = []
                for some in np.array_split(np.arange(len(stretches)), -(-len(stretches) // 16)):
                    with torch.no_grad():
                        logits = self._classifier.logits(self._read(key, some).to(self._device))
                        probabilities.append(self._classifier.probabilities(logits).cpu())
                    bar.advance(len(some))
                self._heard[key] = torch.cat(probabilities)
        self._count = len(train)
        if without:
            self._leave_out(list(without))

    def _leave_out(self, classes: list[int]) -> None:
        """Take no training clip in which one of those classes is heard."""
        views = self._heard["train"].unflatten(0, (-1, self._count))
        clips = (views[:, :, classes] < _NOT_THERE).all(dim=2).all(dim=0).nonzero()[:, 0].tolist()
        if len(clips) < 2:
            raise DataError(
                f"{self._sounds.title} have {len(clips)} training clips in which the classifier "
                "hears none of parts.gates.without, and gates are learnt on mixtures of two."
            )
        rows = torch.arange(len(self._heard["train"])).view(-1, self._count)[:, clips].flatten()
        self._stretches["train"] = [self._stretches["train"][row] for row in rows.tolist()]
        self._heard["train"], self._count = self._heard["train"][rows], len(clips)

    @property
    def asked(self) -> list[int]:
        """Classes that training clips are asked for: the classifier hears them in one, or they are
        the likeliest of one in which it hears none.
        """
        heard = self._heard["train"] >= _THERE
        likeliest = self._heard["train"].argmax(1)[~heard.any(1)]
        return heard.any(0).index_fill(0, likeliest, True).nonzero()[:, 0].tolist()

    @property
    def batches(self) -> int:
        """Steps of an epoch: each training clip is the first of a mixture once."""
        return len(in_batches(torch.arange(self._count), self._s.batch_size))

    def _drawn(self, rows: np.ndarray, views: int, draw: torch.Generator) -> list[tuple[int, int]]:
        """Row and first sample of each stretch; clip n's view v is stretch ``v * len(rows) + n``.

        A few are drawn at random, and the one is taken that is loudest by half or more.
        """
        stretches = []
        for _ in range(views):
            for row in rows:
                x = np.asarray(self._sounds.waveforms[row])
                starts = torch.randint(len(x), (4,), generator=draw).tolist()
                levels = [float(np.square(_stretch(x, at, self._length)).mean()) for at in starts]
                good = [at for at, p in zip(starts, levels, strict=True) if p >= max(levels) / 4]
                stretches.append((int(row), good[0]))
        return stretches

    def _read(self, key: str, which: Any) -> Tensor:
        waves = self._sounds.waveforms
        chosen = [self._stretches[key][int(i)] for i in which]
        return torch.from_numpy(
            np.stack([_stretch(np.asarray(waves[row]), at, self._length) for row, at in chosen])
        )

    def shapes(self, layers: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """Channels and rows of the maps of some layers."""
        x = self._read("train", [0])
        maps = hear(self._classifier, x, self._domain, layers).features.maps
        return tuple((m.shape[1], m.shape[2]) for m in maps)

    def train(self, generator: torch.Generator) -> Iterator[Mixed]:
        """An epoch's mixtures, in batches."""
        n = self._count
        view = torch.randint(self._s.views, (n,), generator=generator) * n + torch.arange(n)
        order = view[torch.randperm(n, generator=generator)]
        for rows in in_batches(order, self._s.batch_size):
            yield self._mix("train", rows, generator)

    def validate(self, generator: torch.Generator, most: int = 64) -> Iterator[Mixed]:
        """Mixtures of clips that nothing is learnt from."""
        rows = torch.arange(len(self._stretches["held"]))[:most]
        for some in in_batches(rows, self._s.batch_size):
            yield self._mix("held", some, generator)

    def _mix(self, key: str, rows: Tensor, generator: torch.Generator) -> Mixed:
        probabilities, s, n = self._heard[key], self._s, len(rows)
        top = probabilities.argmax(dim=1)
        others = torch.randint(len(top), (n,), generator=generator)
        for _ in range(4):  # Two of one class cannot be told apart by the class.
            again = torch.randint(len(top), (n,), generator=generator)
            others = torch.where(top[others] == top[rows], again, others)
        db = s.mixed_db * torch.rand(n, generator=generator)
        alone = torch.rand(n, generator=generator) < s.alone
        gain = 10 ** (-torch.where(alone, _NOTHING_DB, db) / 20)
        clips = self._read(key, rows)
        first = _of_one_level(clips)
        second = _of_one_level(self._read(key, others)) * gain.unsqueeze(1)
        # For half of the mixtures the class of the quieter clip is asked for.
        swap = (torch.rand(n, generator=generator) < 0.5) & ~alone
        a = torch.where(swap.unsqueeze(1), second, first)
        b = torch.where(swap.unsqueeze(1), first, second)
        in_a = torch.where(swap.unsqueeze(1), probabilities[others], probabilities[rows])
        in_b = torch.where(swap.unsqueeze(1), probabilities[rows], probabilities[others])
        in_b = torch.where(alone.unsqueeze(1), 0.0, in_b)
        certain = (in_a >= _THERE) & (in_b <= _NOT_THERE)
        # One of those that are certain; where none is, the likeliest.
        likeliest = F.one_hot(in_a.argmax(1), in_a.shape[1])
        chance = torch.where(certain.any(1, keepdim=True), certain, likeliest).float()
        classes = torch.multinomial(chance, 1, generator=generator).squeeze(1)
        sure = certain.gather(1, classes.unsqueeze(1)).squeeze(1).float()
        x = a + b
        peak = x.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        # As loud as the first clip, for a classifier that hears levels.
        level = clips.abs().amax(dim=1, keepdim=True)
        parts = [y.to(self._device) for y in (x / peak * level, a / peak, b / peak)]
        mixed = (~alone).float()
        return Mixed(*parts, *(y.to(self._device) for y in (classes, sure, mixed)))


def _stretch(x: np.ndarray, start: int, length: int) -> np.ndarray:
    """What of a clip [S] begins there; what leaves it at its end re-enters at its start."""
    return np.concatenate([x[start : start + length], x[: max(0, start + length - len(x))]])


def _of_one_level(x: Tensor) -> Tensor:
    level = x.square().mean(dim=1, keepdim=True).sqrt()
    return x / level.clamp_min(_SILENT)

"""What methods share: those that explain a batch at once, and those that take clip after clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.heard import Heard


class AtOnce:
    """What methods share that explain all clips of a batch at once.

    One that inherits says what its mask is, of clips that are not silent.
    """

    parts: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    linear = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        """Nothing is needed."""

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T] of a class of each clip; whatever it is of silence."""
        raise NotImplementedError

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        return self.mask(heard, classes) * audible(heard.size).view(-1, 1, 1)


class ClipByClip:
    """What methods share that explain one clip after the other."""

    parts: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    linear = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.domain = subject.domain
        self.seed = settings.seed

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T], a linear gain; of silence, zero."""
        masks = []
        with torch.no_grad():
            for row, (c, key) in enumerate(zip(classes.tolist(), keys, strict=True)):
                one = heard.take(slice(row, row + 1))
                if bool(one.size.any()):
                    masks.append(self.explain(one, c, np.random.default_rng([self.seed, key])))
                else:
                    masks.append(torch.zeros_like(one.size[0]))
        return torch.stack(masks).float()

    def explain(self, one: Heard, c: int, draw: np.random.Generator) -> Tensor:
        """Mask [F, T] of class `c` of one clip that is not silent."""
        raise NotImplementedError

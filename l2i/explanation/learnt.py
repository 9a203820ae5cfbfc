"""What methods share whose masks one network has learnt to make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.heard import Heard

__all__ = ["LearntMask"]


class LearntMask:
    """Masks of a network, which is the method's only part.

    One that inherits says what mask the network makes.
    """

    parts: tuple[str, ...]
    linear = True
    needs_layers = True
    costly = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network: Any = subject.parts[self.parts[0]]
        self.layers: tuple[str, ...] = self.network.maps
        self.threshold = settings.threshold

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T] of clips; whatever it is of silence."""
        raise NotImplementedError

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        return self.mask(heard, classes) * audible(heard.size).view(-1, 1, 1)

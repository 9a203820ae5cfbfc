"""Gated L2I: gates on the components of the dictionary, read from what the classifier heard.

The dictionary W and the activations H of the sound say what is there; gates G, one per component
and frame, say what counts for the class asked for. They are read from the classifier's hidden maps
and from the class's own gradient, and from nothing else (see `l2i.models.gate_head`); how they are
learnt, `l2i.training.gates` says. The mask ``W (G * H) / W H`` is a linear gain: explanation and
removal add up to the input, sample by sample.

Dictionary, interpreter and its fidelity are those of L2I, beside whose published rule it stands:
one run has both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from l2i.explanation import MethodSettings, Subject, audible
from l2i.models.gated import Gating, Taken
from l2i.models.heard import Heard


class GatedL2I:
    """The method as one of several: see `l2i.explanation.ExplanationMethod`."""

    parts = ("dictionary", "interpreter", "gates")
    linear = True
    needs_layers = True
    needs_gradients = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.gating: Gating = subject.parts["gates"]
        self.w = self.gating.w
        self.layers = self.gating.layers

    def untrained(self, name: str) -> bool:
        """Whether no clip trained it for a class, for which it may hardly open."""
        return self.gating.untrained(name)

    @torch.inference_mode()
    def gates_of(self, heard: Heard, classes: Tensor) -> Tensor:
        """Gates [B, K, T] in [0, 1] of one class of each clip.

        Parameters
        ----------
        heard : Heard
            B clips, with the maps of `layers`.
        classes : Tensor [B], int64
        """
        return self.gating.gates(heard, classes)

    @torch.inference_mode()
    def explain(self, heard: Heard, classes: Tensor) -> tuple[Tensor, Taken, Tensor]:
        """Gates, what they multiply, and the mask [B, F, T], a linear gain; of silence, zero."""
        gates, taken = self.gates_of(heard, classes), self.gating.take_apart(heard)
        mask = self.gating.gain(taken, gates, heard.size)
        return gates, taken, mask * audible(heard.size).view(-1, 1, 1)

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T], a linear gain; of silence, zero."""
        return self.explain(heard, classes)[2]

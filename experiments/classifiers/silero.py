"""Silero's detector of speech, a TorchScript file, explained with nothing trained::

    pip install --no-deps silero-vad==6.2.3
    l2i explain talk.wav --classifier experiments/classifiers/silero.py:load --class speech

The network hears 32 ms at a time and keeps a state from one call to the next, so that the same
sound has another answer the second time. Here each clip begins from nothing. Gradients pass, though
TorchScript has no hooks: nothing between the waveform and the answer can be read, nor needs to be.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

import l2i

RATE, FRAME = 16000, 512


class Speech(nn.Module):
    """Clips [B, S] to the probability of speech in each frame [B, T, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        self.network.reset_states()
        x = nn.functional.pad(x, (0, -x.shape[1] % FRAME))
        frames = [self.network(frame, RATE) for frame in x.split(FRAME, dim=1)]
        return torch.stack(frames, dim=1)


def load() -> l2i.Classifier:
    """A clip's probability of speech is the greatest of its frames'."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ImportError("pip install --no-deps silero-vad==6.2.3")
    network = torch.jit.load(Path(spec.origin).parent / "data" / "silero_vad.jit")
    return l2i.wrap(
        Speech(network), RATE, ["speech"], "multi-label", outputs="probabilities", pool="max"
    )

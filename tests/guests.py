"""A classifier of another making, as a user's file has it, and sounds that it knows.

Three filters on raw samples, a low tone's, a high tone's and noise's, each followed to the end:
what it says can be seen from its weights. It hears levels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import l2i

RATE, SAMPLES = 8000, 8000
CLASSES = ["low", "high", "hiss"]


def load() -> l2i.Classifier:
    """The classifier."""
    t = torch.arange(64) / RATE
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    filters = torch.stack(
        [
            torch.sin(2 * torch.pi * 500 * t),
            torch.sin(2 * torch.pi * 2500 * t),
            0.7 * noise,
        ]
    )
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 3, 64, 16, bias=False),
        nn.ReLU(),
        nn.Conv1d(3, 4, 5, 4, padding=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3, bias=False),
    )
    with torch.no_grad():
        network[1].weight.copy_(filters.unsqueeze(1) / 8)
        network[3].weight.zero_()
        for k in range(3):
            network[3].weight[k, k] = 0.2
        network[7].weight.copy_(torch.eye(3, 4) * 40)
    return l2i.wrap(network, RATE, CLASSES)


def sounds(n: int = 12) -> np.ndarray:
    """Clips [n, S], float32: a low tone, a high tone, noise, and again, of many levels."""
    draw = np.random.default_rng(1)
    t = np.arange(SAMPLES) / RATE
    clips = []
    for i in range(n):
        level = 0.2 + 0.6 * draw.random()
        tones = np.sin(2 * np.pi * 500 * t), np.sin(2 * np.pi * 2500 * t)
        x = (*tones, 0.4 * draw.standard_normal(len(t)))[i % 3]
        gate = (t > 0.1 + 0.3 * draw.random()) & (t < 0.8)
        clips.append(level * x * gate)
    return np.stack(clips).astype(np.float32)

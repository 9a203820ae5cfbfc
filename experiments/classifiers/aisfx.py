"""aiSFX, 79 categories of sound effects without names, explained with nothing trained::

    pip install --no-deps aisfx==0.1.2
    l2i explain fire.ogg --classifier experiments/classifiers/aisfx.py:load --class "class 30"

Its network takes a spectrogram and the name of a head, and answers with a tuple; so there is a
front-end in torch, for gradients, and a module that asks for one head. The package ships no names.
By what they say of ESC-10, class 30 is fire, 4 animals, 14 clocks, 70 voices, 55 rain, 71 water.
Its checkpoint is a pickle, which can run code when it is loaded: it is the package's own.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import librosa
import torch
from torch import Tensor, nn

import l2i

RATE, FRAME, HOP, BANDS, FRAMES = 44100, 2048, 1024, 96, 100
HEAD = "soundlyTrain"


class LogMel(nn.Module):
    """Windows of 2.3 s [N, 103424] to patches [N, 100, 96]: log of the mel power, time first."""

    def __init__(self) -> None:
        super().__init__()
        mel = torch.from_numpy(
            librosa.filters.mel(sr=RATE, n_fft=FRAME, n_mels=BANDS, htk=True, norm=None)
        )
        self.register_buffer("mel", (mel / mel.sum(1, keepdim=True)).T.contiguous())
        self.register_buffer("window", torch.hann_window(FRAME, periodic=False))

    def forward(self, x: Tensor) -> Tensor:
        power = torch.fft.rfft(x.unfold(1, FRAME, HOP) * self.window).abs().square()
        return (1 + 1e4 * (power @ self.mel)).log10() / 9.4578


class OneHead(nn.Module):
    """Patches [N, 100, 96] to the logits [N, 79] of one of nine heads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        _, logits = self.network(patches, HEAD)
        return logits


def load() -> l2i.Classifier:
    """A clip's probability of a category is the mean over windows every 1.2 s."""
    network = nn.Sequential(LogMel(), OneHead(_network()))
    return l2i.wrap(
        network.eval(),
        RATE,
        window_s=(FRAME + (FRAMES - 1) * HOP) / RATE,
        hop_s=FRAMES // 2 * HOP / RATE,
    )


def _network() -> nn.Module:
    try:
        models = Path(str(distribution("aisfx").locate_file("aisfx/models")))
    except PackageNotFoundError:
        raise ImportError("pip install --no-deps aisfx==0.1.2") from None
    # The one module that needs torch alone: the package itself wants pinned versions of others.
    spec = importlib.util.spec_from_file_location("aisfx_cnn2d", models / "cnn2d.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights, heads = torch.load(models / "checkpoint.pth", "cpu", weights_only=False)
    network = module.CrossNet(module.EmbeddingNet("max", 3, 1, 64), heads, "cpu")
    network.load_state_dict(weights)
    return network

"""The networks of the method's authors, as their files describe them: names, order, arithmetic.

Slow and plain, after the description of the published checkpoints and nothing of the package, so
that what is imported can be held against it. Everything is seeded, and batch norms have
statistics that a mistake would show in.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE_RATE = 44100
_WIDTHS = [16, 16, 0, 32, 32, 0, 64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 0]


class Netx(nn.Module):
    """layer1 ... layer18, and layer19 for AudioSet's classes, which nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        inner = 1
        for number, width in enumerate(_WIDTHS, start=1):
            if width == 0:
                self.add_module(f"layer{number}", nn.MaxPool2d(2))
                continue
            block = nn.Sequential(
                nn.Conv2d(inner, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
            )
            self.add_module(f"layer{number}", block)
            inner = width
        self.layer18 = nn.Sequential(nn.Conv2d(512, 1024, 2), nn.BatchNorm2d(1024), nn.ReLU())
        self.layer19 = nn.Sequential(nn.Conv2d(1024, 527, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """[B, 1, T, 128] to the map with 1024 channels, and those with 512, 256 and 128."""
        maps = {}
        for number in range(1, 19):
            x = getattr(self, f"layer{number}")(x)
            if number in (11, 14, 16):
                maps[x.shape[1]] = x
        return x, maps


class Classifier(nn.Module):
    """``netx.*``, ``layer.0.*``, ``fc.*``."""

    def __init__(self, classes: int, head: int) -> None:
        super().__init__()
        self.netx = Netx()
        self.layer = nn.Sequential(nn.Conv2d(1024, head, 1), nn.ReLU())
        self.fc = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits [B, C] and hidden maps, frames first."""
        y, maps = self.netx(x)
        y = self.layer(y)
        y = F.max_pool2d(y, y.shape[2:]).flatten(1)
        return self.fc(y), maps


class Interpreter(nn.Module):
    """conv1 ... conv8, in the published order."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(512, 256, 3, padding=1)
        self.conv4 = nn.Conv1d(256, components, 5, padding=2)
        self.conv5 = nn.Conv1d(components, components, 5, padding=2)
        self.conv6 = nn.Conv2d(256, 256, (4, 1))
        self.conv7 = nn.Conv2d(512, 128, 3, padding=1)
        self.conv8 = nn.Conv2d(128, 128, (4, 1), stride=(4, 1))

    def forward(self, maps: dict[int, Tensor], frames: int) -> Tensor:
        """Hidden maps, frames first, to activations [B, K, T]."""

        def up(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=(1, 2), mode="bilinear", align_corners=True)

        x1, x2, x3 = (maps[channels].transpose(2, 3) for channels in (512, 256, 128))
        short = x1.shape[3]
        a = F.avg_pool2d(F.relu(self.conv1(up(x2[..., : 2 * short]))), (2, 1))
        b = up(F.relu(self.conv7(up(x1))))
        c = F.relu(self.conv8(x3[..., : 4 * short]))
        y = up(torch.cat((a, b, c), dim=1))
        y = up(F.relu(self.conv2(y)))
        y = F.relu(self.conv6(y))
        y = F.interpolate(y, size=(1, frames), mode="bilinear", align_corners=True).flatten(2)
        return F.relu(self.conv5(F.relu(self.conv4(y))))


class Head(nn.Module):
    """Gated attention over time, and Theta."""

    def __init__(self, components: int, classes: int, width: int) -> None:
        super().__init__()
        self.attention_V = nn.Sequential(nn.Linear(components, width), nn.Tanh())
        self.attention_U = nn.Sequential(nn.Linear(components, width), nn.ReLU())
        self.attention_weights = nn.Linear(width, 1)
        self.fc1 = nn.Linear(components, classes, bias=False)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Activations [B, K, T] to z [B, K] and logits [B, C]."""
        z = []
        for clip in h:  # [K, T]
            frames = clip.T
            score = self.attention_weights(self.attention_V(frames) * self.attention_U(frames))
            weight = torch.exp(score[:, 0] - score.max())
            z.append((clip * (weight / weight.sum())).sum(dim=1))
        pooled = torch.stack(z)
        return pooled, self.fc1(pooled)


class Dictionary(nn.Module):
    """``W`` [513, K], of which some values are below zero."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(513, components))

    def columns(self) -> Tensor:
        """Rectified, each column of unit length."""
        w = self.W.detach().numpy().astype(np.float64)
        w = np.maximum(w, 0)
        return torch.from_numpy(w / np.sqrt((w**2).sum(axis=0))).float()


class Model:
    """All four parts, and the file they are published in."""

    def __init__(
        self, classes: int, *, components: int = 6, head: int = 12, width: int = 5, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.f = Classifier(classes, head)
        self.H = Interpreter(components)
        self.h = Head(components, classes, width)
        self.W = Dictionary(components)
        for module in self.f.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.7, 1.6)
                nn.init.normal_(module.bias, std=0.2)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.4, 1.8)
                module.num_batches_tracked.fill_(7)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in self.H.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.normal_(self.h.attention_weights.weight, std=2.0)
        for part in (self.f, self.H, self.h, self.W):
            part.eval().requires_grad_(False)

    def content(self) -> dict[str, Any]:
        """What is saved: tensors, and the notes beside them."""
        return {
            "f_state_dict": self.f.state_dict(),
            "H_state_dict": self.H.state_dict(),
            "h_state_dict": self.h.state_dict(),
            "W_state_dict": self.W.state_dict(),
            "last_weights": "5, 0.5, 0.4",
            "train_info": np.arange(12, dtype=np.float64).reshape(3, 4),
            "test_info": [np.float64(0.5), [np.array([1, 2]), 3.0]],
            "NMF-Component initializing file": "initW.npy",
        }

    def front_end(self, waveform: np.ndarray) -> Tensor:
        """Waveform [S] to log-mel [1, 1, T, 128], by librosa."""
        x = waveform / np.abs(waveform).max()
        size = np.abs(librosa.stft(x, n_fft=1024, hop_length=512))
        mel = librosa.feature.melspectrogram(
            S=size, sr=SAMPLE_RATE, n_fft=1024, hop_length=512, n_mels=128
        )
        db = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=80.0)
        return torch.from_numpy(db.T.astype(np.float32))[None, None]

    def __call__(self, waveform: np.ndarray) -> dict[str, Tensor]:
        """All it says of one clip: logits, maps, activations, z, the interpreter's logits."""
        mel = self.front_end(waveform)
        logits, maps = self.f(mel)
        activations = self.H(maps, mel.shape[2])
        pooled, interpreter_logits = self.h(activations)
        return {
            "logits": logits,
            **{f"map {channels}": y.transpose(2, 3) for channels, y in maps.items()},
            "activations": activations,
            "z": pooled,
            "interpreter logits": interpreter_logits,
        }


def clip(seconds: float, number: int = 0, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """A sound that changes in time and frequency, float32 [S]."""
    rng = np.random.default_rng(number)
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    x = np.sin(2 * np.pi * (300 + 900 * (number + 1) * t) * t) * np.exp(-2 * (t % 0.4))
    return (0.3 * x + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def hollow(state: Any) -> Any:
    """The same tensors by name and shape, all of one value: a file of a few kilobytes."""
    if isinstance(state, Tensor) and state.is_floating_point():
        return torch.full((1,), 0.01).expand(state.shape)
    if isinstance(state, dict):
        return OrderedDict((name, hollow(value)) for name, value in state.items())
    return state


def save(content: Any, path: Path, legacy: bool = False) -> Path:
    """As torch saves since 1.6, or as it did before."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path

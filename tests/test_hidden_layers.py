"""`l2i.models.layers`: which hidden layers can be read, which axes they have, and what is read.

Networks whose map is known, rearranged in every way that real ones have it: the map stays the same.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.errors import UsageError
from l2i.models.axes import Layer
from l2i.models.layers import Found, choose
from l2i.models.windows import Places

RATE = 8000
CHANNELS, ROWS = 12, 8


class Rearranged(nn.Module):
    """A known map [B, 12, 8, T], and the same with other axes, as the word says."""

    def __init__(self, axes: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.axes = axes
        self.conv = nn.Conv2d(1, CHANNELS, 5, 2, padding=2)
        self.rearranged = nn.Identity()
        self.token = nn.Parameter(torch.randn(2, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(32)
        y = torch.stft(x, 32, 64, window=window, return_complex=True).abs()[:, :16]
        y = self.conv((y + 1e-3).log().unsqueeze(1)).relu()
        self.rearranged(_rearrange(y, self.axes, self.token))
        return y.mean((2, 3))


def _rearrange(y: Tensor, axes: str, token: Tensor) -> Tensor:
    """From [B, D, F, T] to what a word says, written out by hand."""
    if "(" not in axes:
        return y.permute(["BDFT".index(a) for a in axes.split()])
    leading = int(axes[axes.index("+") + 1]) if "+" in axes else 0
    y = y.transpose(2, 3) if "(T" in axes else y
    tokens = y.flatten(2).transpose(1, 2)  # [B, N, D]
    tokens = torch.cat([token[:leading].expand(len(y), -1, -1), tokens], 1)
    order = [a[0] for a in axes.replace("(F8 T)", "(").replace("(T F8)", "(").split()]
    return tokens.permute(["B(D".index(a) for a in order])


WORDS = [
    "B D F T",
    "B D T F",
    "B T F D",
    "B F T D",
    "D B F T",
    "T B F D",
    "B (F8 T) D",
    "B (F8 T)+1 D",
    "B (F8 T)+2 D",
    "B (T F8) D",
    "B (T F8)+1 D",
    "B D (F8 T)+2",
    "(T F8)+2 B D",
]


@pytest.mark.parametrize("axes", WORDS)
def test_a_rearranged_map_is_the_same(axes: str) -> None:
    """Read by its word, it is what the convolution gave."""
    clf = l2i.wrap(Rearranged(axes), RATE)
    x = 0.1 * torch.randn(3, 3 * RATE // 2)
    features = clf.features(x, [f"rearranged={axes}"])
    window = torch.hann_window(32)
    y = torch.stft(x, 32, 64, window=window, return_complex=True).abs()[:, :16]
    wanted = clf.model.conv((y + 1e-3).log().unsqueeze(1)).relu().detach()
    assert wanted.shape == (3, CHANNELS, ROWS, 94)
    torch.testing.assert_close(features.maps[0], wanted)
    torch.testing.assert_close(features.logits, clf.logits(x))


@pytest.mark.parametrize("axes", WORDS)
def test_axes_are_found(axes: str) -> None:
    """By the sounds alone, from the shape's numbers nothing can be told: [B, 94, 12] or so."""
    clf = l2i.wrap(Rearranged(axes), RATE)
    hidden = {f.layer.name: f for f in clf.layers()}["rearranged"]
    assert hidden.layer == Layer("rearranged", axes)
    assert (hidden.channels, hidden.rows, hidden.frames) == (CHANNELS, ROWS, 63)


class Steps(nn.Module):
    """A sequence in time without rows, with a token that hears all of it."""

    def __init__(self, axes: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.axes = axes
        self.conv = nn.Conv1d(1, 6, 64, 64)
        self.steps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.unsqueeze(1)).relu()  # [B, 6, T]
        if "+1" in self.axes:
            y = torch.cat([y.mean(2, keepdim=True), y], 2)
        order = self.axes.replace("(T)+1", "T").split()
        self.steps(y.permute(["BDT".index(a) for a in order]))
        return y.mean(2)


@pytest.mark.parametrize("axes", ["B D T", "B T D", "T B D", "B (T)+1 D", "B D (T)+1"])
def test_a_map_without_rows(axes: str) -> None:
    """One row; a token that hears everything is left out."""
    clf = l2i.wrap(Steps(axes), RATE)
    hidden = {f.layer.name: f for f in clf.layers()}["steps"]
    assert str(hidden.layer) == f"steps={axes}"
    x = torch.randn(2, 4096)
    conv, steps = clf.features(x, ["conv=B D T", "steps"]).maps
    assert steps.shape == (2, 6, 1, 64)
    torch.testing.assert_close(steps, conv.relu())


@pytest.mark.parametrize("seed", range(8))
def test_no_grid_where_there_is_none(seed: int) -> None:
    """Frames of a deep network, in number 100, are no rows of 25 or 20; and what they are pooled to
    has no time."""
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Tanh()) for _ in range(9)]
    first = [nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 4, 80, 80)]
    end = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)]
    clf = l2i.wrap(nn.Sequential(*first, *blocks, *end), RATE)
    assert {f.layer.axes for f in clf.layers()} == {"B D T"}
    assert [f.layer.name for f in clf.chosen_layers()] == ["4", "7", "10"]


@pytest.mark.parametrize(
    "give",
    [
        lambda y: (y, None),
        lambda y: [None, y, y[:1]],
        lambda y: {"hidden": y},
        lambda y: SimpleNamespace(last_hidden_state=y, attentions=None),
    ],
)
def test_where_the_map_is(give: Any) -> None:
    """In a tuple, a list, a dict, an object."""
    y = torch.randn(2, 5, 7)
    torch.testing.assert_close(Layer("a", "B T D").map(give(y)), y.transpose(1, 2).unsqueeze(2))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("blocks.5", r"'blocks.5' names no layer and its axes: write NAME=AXES"),
        ("=B D T", "names no layer and its axes"),
        ("a=B D", r"'B D' are no axes of a: give 'B D F T'"),
        ("a=B D F", "'B D F' are no axes"),
        ("a=B D D T", "are no axes"),
        ("a=B D F T N", "are no axes"),
        ("a=B (F T)+2 D", r"'B \(F T\)\+2 D' are no axes of a: .*5 rows"),
        ("a=B (F0 T) D", "are no axes"),
        ("a=B (F5 T) D T", "are no axes"),
    ],
)
def test_wrong_words(word: str, sentence: str) -> None:
    """One sentence, that says how to write it."""
    with pytest.raises(UsageError, match=sentence):
        Layer.parse(word)


def test_words_are_written_one_way() -> None:
    """A layer is its word and back."""
    for axes in [*(" ".join(p) for p in itertools.permutations("BDFT")), "B (T F12)+2 D"]:
        layer = Layer.parse(f" blocks.5 =  {axes.replace(' ', '  ')} ")
        assert str(layer) == f"blocks.5={axes}" and Layer.parse(str(layer)) == layer


class Many(nn.Module):
    """A shared ReLU, a layer in place, one that is never run, one without time, a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 16, 16)
        self.second = nn.Conv1d(4, 4, 1)
        self.relu = nn.ReLU()
        self.idle = nn.Conv1d(1, 1, 1)
        self.list = nn.ModuleList([nn.Identity()])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(x.unsqueeze(1)))
        y = self.second(y)
        y.mul_(0)
        return self.head(self.list[0](self.relu(y)).mean(2))


@pytest.fixture(scope="module")
def many() -> Any:
    """Wrapped."""
    torch.manual_seed(0)
    return l2i.wrap(Many(), RATE)


def test_candidates(many: Any) -> None:
    """What is run once and has time, in order."""
    assert [f.layer.name for f in many.layers()] == ["conv", "second"]


def test_maps_are_copies(many: Any) -> None:
    """What the network works in place afterwards changes nothing that was read."""
    x = torch.randn(1, 1600)
    conv, second = many.features(x, ["conv", "second"]).maps
    torch.testing.assert_close(second[:, :, 0], many.model.second(conv[:, :, 0].relu()).detach())
    assert second.any()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("cnov", r"no layer 'cnov' in Many; did you mean 'conv'\?"),
        ("cnov=B D T", r"did you mean 'conv'\?"),
        ("zzzzzzz", "no layer 'zzzzzzz' in Many, which has conv, second, relu"),
        ("head", r"No axis of the layer head was found to be time: .*'head=B D F T'"),
        ("relu=B D T", "relu is run 2 times in a forward pass"),
        ("idle=B D T", "idle is run not at all"),
        ("head=B D T", r"head gives the shape \[1, 3\], which has not the axes 'B D T'"),
        ("conv=B (F7 T) D", "conv gives 4 tokens, which are not 0 and then 7 rows"),
        ("conv=D B T", "conv gives 4 maps of 1 clips"),
    ],
)
def test_layers_that_cannot_be_read(many: Any, word: str, sentence: str) -> None:
    """One sentence each; no hook stays behind."""
    with pytest.raises(UsageError, match=sentence):
        many.features(torch.randn(1, 1600), [word])
    assert not any(m._forward_hooks for m in many.model.modules())


class Few(nn.Module):
    """Takes two clips at most, as what is converted from other formats may."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise RuntimeError("two at most")
        return self.conv(x.unsqueeze(1)).mean(2)


def test_a_model_that_takes_few_clips() -> None:
    """Its layers are not found, which is said; with their axes they are read."""
    clf = l2i.wrap(Few(), RATE)
    with pytest.raises(UsageError, match=r"several clips at once \(RuntimeError: two at most\)"):
        clf.layers()
    x = torch.randn(1, 80)
    (y,) = clf.features(x, ["conv=B D T"]).maps
    torch.testing.assert_close(y.mean((2, 3)), clf.logits(x))


class Still(nn.Module):
    """Nothing in it follows time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.square().mean(1, keepdim=True))


def test_no_layer_at_all() -> None:
    """Said, with the methods that need none."""
    clf = l2i.wrap(Still(), RATE)
    assert clf.layers() == ()
    with pytest.raises(UsageError, match=r"No hidden layer was found.*'gates', or 'shapley'"):
        clf.chosen_layers()


def test_models_without_hooks() -> None:
    """TorchScript and black boxes: said in a sentence; their logits are there all the same."""
    script = l2i.wrap(torch.jit.script(Still()), RATE)
    box = l2i.wrap(lambda x: x[:, :3], RATE)
    x = torch.randn(2, 100)
    for clf, what, method in ((script, "TorchScript", "gates"), (box, "a black box", "shapley")):
        for ask in (clf.layers, clf.chosen_layers, lambda c=clf: c.features(x, ["linear=B D T"])):
            with pytest.raises(
                UsageError, match=rf"layers of {what} cannot be read.*take [^']*'{method}'"
            ):
                ask()
        features = clf.features(x)
        assert features.maps == ()
        torch.testing.assert_close(features.logits, clf.logits(x))


def test_a_part_that_is_torchscript() -> None:
    """The parts beside it can be read, and it cannot."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 3, 8, 8), torch.jit.script(nn.ReLU()), Mean()
    )
    clf = l2i.wrap(model, RATE)
    assert [f.layer.name for f in clf.layers()] == ["1"]
    with pytest.raises(UsageError, match="of TorchScript cannot be read"):
        clf.features(torch.randn(1, 800), ["2=B D T"])


class Mean(nn.Module):
    """Over time."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


# --- windows ------------------------------------------------------------------------------------


class Samples(nn.Module):
    """Its map is the waveform, once and negated: what is read can be told sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.both = nn.Identity()
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        self.both(torch.stack([x, -x], 1))
        return x[:, :3] * self.weight


@pytest.mark.parametrize(
    ("samples", "window", "hop"),
    [(100, 40, 20), (100, 40, 40), (95, 40, 10), (30, 40, 40), (101, 40, 13), (160, 40, 39)],
)
def test_windows_lie_side_by_side(samples: int, window: int, hop: int) -> None:
    """Whether they overlap or not, and though the last one is padded: it is the clip again."""
    clf = l2i.wrap(Samples(), RATE, window_s=window / RATE, hop_s=hop / RATE)
    x = torch.randn(2, samples)
    features = clf.features(x, ["both=B D T"])
    torch.testing.assert_close(features.maps[0], torch.stack([x, -x], 1).unsqueeze(2))
    torch.testing.assert_close(features.logits, clf.logits(x))


def test_of_overlapping_windows_the_middle_is_kept() -> None:
    """Windows of 4 frames, each frame numbered, 2 apart: the first keeps its beginning, the last
    its end, and between them each gives the two in the middle."""
    maps = torch.arange(12.0).view(3, 1, 1, 4)  # Frames 0-3, 4-7, 8-11.
    places = Places((0, 200, 400), 400, 400)
    kept = places.side_by_side(maps, 800).flatten()
    assert kept.tolist() == [0, 1, 2, 5, 6, 9, 10, 11]
    # A clip that ends in the middle of the last window.
    assert places.side_by_side(maps, 600).flatten().tolist() == [0, 1, 2, 5, 6, 9]
    # A window that is padded to twice its length: what is padding is left out.
    padded = Places((0,), 400, 800)
    assert padded.side_by_side(maps[:1], 400).flatten().tolist() == [0, 1]
    # A window apart from the others leaves a gap, which has the nearest frame.
    apart = Places((0, 600), 400, 400)
    assert apart.side_by_side(maps[:2], 1000).flatten().tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 6, 7]


def test_few_windows_at_a_time() -> None:
    """A long clip, and many short ones, are heard in parts, and nothing else changes."""
    clf = l2i.wrap(Samples(), RATE, window_s=40 / RATE, check=True)
    for clips, samples in ((1, 40 * 150), (150, 40), (50, 40 * 3)):
        x = torch.randn(clips, samples)
        clf.model.most = 0
        features = clf.features(x, ["both=B D T"])
        assert 0 < clf.model.most <= 64
        torch.testing.assert_close(features.maps[0][:, 0, 0], x)
        torch.testing.assert_close(features.logits, clf.logits(x))


def test_the_model_is_left_as_it_was() -> None:
    """In training and learning; it is heard in evaluation, and no gradient is kept."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 3, 8, 8), nn.Dropout(0.5), Mean()
    ).train()
    clf = l2i.wrap(model, RATE)
    x = torch.randn(2, 800, requires_grad=True)
    one, dropped = clf.features(x, ["1", "2"]).maps
    torch.testing.assert_close(one, dropped)
    assert not one.requires_grad and one.is_contiguous()
    assert model.training and model[2].training and model[1].weight.requires_grad
    assert not any(m._forward_hooks for m in model.modules())


def test_maps_of_half_precision() -> None:
    """Are float32."""
    clf = l2i.wrap(Samples().half(), RATE)
    (y,) = clf.features(torch.randn(1, 100), ["both=B D T"]).maps
    assert y.dtype == torch.float32


# --- which are taken ----------------------------------------------------------------------------


def _layer(name: str, rows: int, frames: int, kind: str = "Block") -> Found:
    return Found(Layer(name, "B D F T"), kind, 8, rows, frames)


def _names(*layers: Found, count: int = 3) -> list[str]:
    return [f.layer.name for f in choose(layers, count)]


def test_the_last_of_each_size_is_taken() -> None:
    """The last three sizes count; sizes that differ by rounding are one."""
    network = [
        _layer("conv1", 32, 64),
        _layer("relu1", 32, 64),
        _layer("conv2", 16, 32),
        _layer("relu2", 16, 32),
        _layer("conv3", 8, 16),
        _layer("relu3", 8, 15),
        _layer("conv4", 4, 8),
    ]
    assert _names(*network) == ["relu2", "relu3", "conv4"]
    assert _names(*network, count=1) == ["conv4"]
    assert _names(*network[:2]) == ["conv1", "relu1"]
    assert _names(*network[:2], _layer("2", 33, 66, "ZeroPad2d")) == ["conv1", "relu1"]
    assert _names() == []


def test_of_a_transformer_blocks_are_taken() -> None:
    """A third and two thirds of the way, and the end; not what lies inside of them."""
    blocks = [
        f
        for i in range(12)
        for f in (_layer(f"layers.{i}.attention", 5, 50), _layer(f"layers.{i}", 5, 50))
    ]
    network = [_layer("embed", 5, 50), *blocks]
    assert _names(*network) == ["layers.3", "layers.7", "layers.11"]
    assert _names(*network, _layer("norm", 5, 50, "LayerNorm")) == ["layers.3", "layers.7", "norm"]
    # A number alone makes no block: it has to have a neighbour.
    alone = [_layer("0.a", 9, 50), _layer("0.b", 5, 50), _layer("0", 5, 50)]
    assert _names(*alone) == ["0.a", "0.b", "0"]

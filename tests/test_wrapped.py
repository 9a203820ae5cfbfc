"""`l2i.models.wrapped`: what real classifiers do differently, behind one interface."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.errors import DataError, UsageError
from l2i.types import Classifier

RATE = 8000


class Scores(nn.Module):
    """Three scores of a waveform [B, S], known on paper: 1, 2 and 3 times its first sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x[:, :1] * self.weight)


def _clip(*first: float, n: int = RATE) -> Tensor:
    x = torch.zeros(len(first), n)
    x[:, 0] = torch.tensor(first)
    return x


def test_a_module_is_left_as_it_was_found() -> None:
    """In training, its weights learning, no gradient of theirs, no hook; also where it fails."""
    model = nn.Sequential(Scores(), nn.Dropout(0.9))
    model[0].weight.requires_grad_(True)
    clf = l2i.wrap(model, RATE, ["a", "b", "c"])
    assert isinstance(clf, Classifier) and clf.differentiable
    x = _clip(0.5).requires_grad_()
    torch.testing.assert_close(clf.logits(x), torch.tensor([[0.5, 1.0, 1.5]]))
    clf.logits(x).sum().backward()
    assert x.grad is not None and float(x.grad[0, 0]) == 6.0
    assert model.training and model[1].training and model[0].weight.requires_grad
    assert model[0].weight.grad is None and not model._forward_hooks
    with pytest.raises(UsageError):
        clf.logits(torch.zeros(3))
    assert model.training and model[0].weight.requires_grad


class _Named(NamedTuple):
    embedding: Tensor
    scores: Tensor


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (lambda y: {"logits": y, "loss": 0}, None),
        (lambda y: SimpleNamespace(logits=y), None),
        (lambda y: [y], None),
        (lambda y: (torch.zeros(2, 7), y), 1),
        (lambda y: _Named(torch.zeros(2, 7), y), "scores"),
        (lambda y: {"scores": y}, "scores"),
        (lambda y: {"scores": y}, lambda y: y["scores"]),
    ],
)
def test_where_the_scores_are(answer: Any, output: Any) -> None:
    """In a tuple, a named one, a dict, an object: found, or named by the user."""

    class Model(Scores):
        def forward(self, x: Tensor) -> Any:
            return answer(super().forward(x))

    clf = l2i.wrap(Model(), RATE, ["a", "b", "c"], output=output)
    torch.testing.assert_close(clf.logits(_clip(1.0)), torch.tensor([[1.0, 2.0, 3.0]]))


def test_probabilities_become_logits() -> None:
    """Their softmax or sigmoid is what the model said; 0 and 1 are finite."""
    p = torch.tensor([[0.0, 0.25, 0.75]])
    clf = l2i.wrap(lambda x: p.expand(len(x), -1).numpy(), RATE, outputs="probabilities")
    torch.testing.assert_close(clf.probabilities(clf.logits(_clip(1.0))), p, atol=1e-6, rtol=0)
    many = l2i.wrap(
        lambda x: np.tile([1.0, 0.2], (len(x), 1)),
        RATE,
        task="multi-label",
        outputs="probabilities",
    )
    probabilities = many.probabilities(many.logits(_clip(1.0)))
    torch.testing.assert_close(probabilities, torch.tensor([[1.0, 0.2]]), atol=1e-6, rtol=0)
    assert many.classes == ("class 0", "class 1") and not many.differentiable


def test_windows_are_pooled() -> None:
    """Cut into windows, the last padded; mean or greatest, of logits or of probabilities."""
    x = torch.zeros(2, 10)
    x[0, 0], x[0, 4], x[0, 8] = 1.0, 2.0, 3.0  # The third window has two samples.
    given = {"window_s": 4 / RATE, "check": False, "task": "multi-label"}
    names = ["a", "b", "c"]
    mean = l2i.wrap(Scores(), RATE, names, pool_on="logits", **given)
    torch.testing.assert_close(mean.logits(x)[0], torch.tensor([2.0, 4.0, 6.0]))
    most = l2i.wrap(Scores(), RATE, names, pool="max", **given)
    torch.testing.assert_close(most.logits(x)[0], torch.tensor([3.0, 6.0, 9.0]), atol=1e-3, rtol=0)
    p = l2i.wrap(Scores(), RATE, names, **given)
    wanted = (
        torch.tensor([[1.0], [2.0], [3.0]]).mul(torch.tensor([1.0, 2.0, 3.0])).sigmoid().mean(0)
    )
    torch.testing.assert_close(p.probabilities(p.logits(x))[0], wanted)
    overlapping = l2i.wrap(Scores(), RATE, names, hop_s=2 / RATE, pool_on="logits", **given)
    # Windows from 0, 2, 4 and 6: of a clip of ten samples none is padded.
    torch.testing.assert_close(overlapping.logits(x)[0, 0], torch.tensor(3 / 4))


def test_scores_per_frame_are_pooled() -> None:
    """[B, T, C], or classes before frames, as convolutions have them."""
    for swap in (False, True):

        class Framewise(Scores):
            def forward(self, x: Tensor, swap: bool = swap) -> Tensor:
                y = x[:, :2, None] * self.weight
                return y.transpose(1, 2) if swap else y

        clf = l2i.wrap(Framewise(), RATE, ["a", "b", "c"], pool_on="logits")
        x = torch.zeros(1, 100)
        x[0, :2] = torch.tensor([1.0, 2.0])
        torch.testing.assert_close(clf.logits(x), torch.tensor([[1.5, 3.0, 4.5]]))


def test_one_score_is_yes_or_no() -> None:
    """[B] or [B, 1], with a sigmoid."""
    clf = l2i.wrap(lambda x: x[:, 0], RATE, ["speech"], task="multi-label")
    torch.testing.assert_close(clf.logits(_clip(0.3)), torch.tensor([[0.3]]))
    with pytest.raises(UsageError, match=r"one score.*task='multi-label'"):
        l2i.wrap(lambda x: x[:, 0], RATE, ["speech"])


def test_a_model_of_half_precision() -> None:
    """Hears in its own; answers in float32."""
    clf = l2i.wrap(Scores().half(), RATE, ["a", "b", "c"])
    assert clf.logits(_clip(0.5)).dtype == torch.float32


def test_torchscript() -> None:
    """A compiled module is a module: gradients pass, and it stays as it was."""
    model = torch.jit.script(Scores().train())
    clf = l2i.wrap(model, RATE, ["a", "b", "c"])
    x = _clip(0.5).requires_grad_()
    clf.logits(x).sum().backward()
    assert x.grad is not None and float(x.grad[0, 0]) == 6.0


class _Numpy(Scores):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.detach().numpy()))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sample_rate": 0}, "sample_rate 0 must be above 0 Hz"),
        ({"sample_rate": "16000"}, "sample_rate '16000' must be above 0 Hz, and a finite number"),
        ({"window_s": float("nan")}, "window_s nan must be above 0 s, and a finite number"),
        ({"classes": ["a", "b"]}, "gives 3 scores and has 2 class names"),
        ({"task": "both"}, "'both' is neither"),
        ({"pool": "median"}, "pool 'median' is neither"),
        ({"hop_s": 1.0}, "give window_s, too"),
        ({"window_s": 0.0}, "window_s 0.0 must be above 0 s"),
        ({"window_s": 1e-6}, "shorter than a sample"),
        ({"model": nn.Dropout(0.5).train(), "front_end": lambda x: x}, "gives 8000 scores"),
        ({"model": lambda x: np.random.rand(len(x), 3) * 9}, "not deterministic: .* differ by"),
        ({"model": _Numpy()}, "No gradient of the scores reaches the waveform.*front_end"),
        ({"model": lambda x: {"a": 1}}, "answers with a dict of a, .*output='logits'"),
        ({"model": lambda x: (x, x)}, "answers with tuple of 2"),
        ({"model": lambda x: x[0]}, r"answers 2 clips with the shape \[8000\]"),
        ({"model": nn.Linear(5, 3)}, r"fails on waveforms of shape \[2, 8000\] \(RuntimeError: "),
        ({"output": "nothing"}, "has no part output='nothing'"),
        ({"threshold": 1.0}, "threshold 1.0 is no probability: give one above 0 and below 1"),
        ({"threshold": [0.5, -0.1, 0.5]}, "is no probability"),
        ({"threshold": [0.5, 0.5]}, "2 thresholds for 3 classes: give one for all, or one for"),
        ({"threshold": []}, "0 thresholds for 3 classes"),
        ({"threshold": "half"}, "threshold 'half' is no probability"),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], sentence: str) -> None:
    """One sentence each, before anything is explained, that says what to give instead."""
    words = {"model": Scores(), "sample_rate": RATE, "classes": ["a", "b", "c"], **given}
    with pytest.raises(UsageError, match=sentence):
        l2i.wrap(**words)


def test_a_clip_too_short_for_the_network() -> None:
    """It is said, with what to do; and a window does it."""
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 2, 64), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    with pytest.raises(DataError, match=r"fails on a clip of 10 samples .*: give a"):
        l2i.explain(l2i.wrap(network, RATE), np.ones(10, np.float32))
    e = l2i.explain(l2i.wrap(network, RATE, window_s=0.1), np.ones(10, np.float32), steps=1)
    assert e.audio.shape == (10,)


def test_a_length_that_the_network_does_not_take() -> None:
    """It was tried on a second; of what is longer it is said what to do."""
    network = nn.Sequential(nn.Linear(RATE, 2))
    with pytest.raises(DataError, match=r"fails on a clip of 16000 .*window_s=1,"):
        l2i.wrap(network, RATE).logits(torch.ones(1, 2 * RATE))
    assert l2i.wrap(network, RATE, window_s=1.0).logits(torch.ones(1, 2 * RATE)).shape == (1, 2)


class InPlace(nn.Module):
    """Works on what it is given, the waveform itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 0.5
        return torch.stack([x.mean(1), x[:, 0]], dim=1)


def in_place(x: Any) -> Any:
    x *= 0.0
    return x


@pytest.mark.parametrize(
    "words",
    [
        {"model": InPlace()},
        {"model": Scores(), "front_end": in_place},
        {"model": lambda x: in_place(x)[:, :2]},
    ],
    ids=["module", "front end", "array"],
)
def test_a_clip_is_not_the_models_to_change(words: dict[str, Any]) -> None:
    """What is explained is the clip as it was given, whatever the classifier does to its input."""
    clf = l2i.wrap(sample_rate=RATE, **words)
    x = torch.ones(2, RATE)
    first, second = clf.logits(x), clf.logits(x)
    assert bool((x == 1).all()) and first.equal(second)


def test_a_gradient_that_in_place_work_forbids() -> None:
    """It is said what forbids it; as a black box the model is taken."""

    class Rooted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            root = (x + 2).sqrt()
            root += 1
            return root[:, :2]

    with pytest.raises(UsageError, match=r"gradient cannot be computed .*differentiable=False"):
        l2i.wrap(Rooted(), RATE)
    assert not l2i.wrap(Rooted(), RATE, differentiable=False).differentiable


@pytest.mark.parametrize("classes", ["abc", {0: "a", 1: "b", 2: "c"}, ["a", "b", "a"]])
def test_what_is_no_list_of_names(classes: Any) -> None:
    """A text would be a name for each letter, and of two classes of one name one could be asked."""
    with pytest.raises(UsageError, match="give a list of names, all different"):
        l2i.wrap(Scores(), RATE, classes)


def test_decisions() -> None:
    """The best class alone, or every class from its threshold on, one for all or one each."""
    logits = torch.tensor([[0.0, 1.0, 2.0], [-1.0, -2.0, -3.0]])
    one = l2i.wrap(Scores(), RATE, ["a", "b", "c"])
    assert one.decisions(logits).tolist() == [[False, False, True], [True, False, False]]
    half = l2i.wrap(Scores(), RATE, task="multi-label")
    assert half.decisions(logits).tolist() == [[True, True, True], [False, False, False]]
    # sigmoid(-1) = 0.27, sigmoid(1) = 0.73, sigmoid(2) = 0.88
    low = l2i.wrap(Scores(), RATE, task="multi-label", threshold=0.2)
    assert low.decisions(logits).tolist() == [[True, True, True], [True, False, False]]
    each = l2i.wrap(Scores(), RATE, task="multi-label", threshold=[0.2, 0.8, 0.85], check=False)
    assert each.decisions(logits).tolist() == [[True, False, True], [True, False, False]]
    torch.testing.assert_close(each.thresholds, torch.tensor([0.2, 0.8, 0.85]))


def test_scores_that_are_no_numbers() -> None:
    """A front-end that takes the log of silence, say."""
    clf = l2i.wrap(Scores(), RATE, ["a", "b", "c"], front_end=torch.log, check=False)
    with pytest.raises(DataError, match="scores are NaN"):
        clf.logits(_clip(-1.0))


class _Bands(nn.Module):
    """Energies of two bands of a sound at 8 kHz: below 1 kHz, and from 1 to 4 kHz."""

    def forward(self, x: Tensor) -> Tensor:
        power = torch.fft.rfft(x).abs().square()
        edge = power.shape[1] // 4
        low, high = power[:, :edge], power[:, edge:]
        return torch.stack([low.mean(1), high.mean(1)], 1).add(1e-9).log()


def test_a_model_at_another_rate() -> None:
    """What it is given is resampled: it says what it says of the sound at its own rate, does not
    hear what is above, is differentiable, and its windows are as long as they are."""
    t, own = (torch.arange(2 * rate) / rate for rate in (2 * RATE, RATE))
    for hz in (300, 2500):
        x, at_8k = (torch.sin(2 * torch.pi * hz * time)[None] for time in (t, own))
        wrapped = l2i.wrap(_Bands(), 2 * RATE, ["low", "high"], "multi-label", model_rate=RATE)
        logits, wanted = wrapped.logits(x), l2i.wrap(_Bands(), RATE, ["low", "high"]).logits(at_8k)
        loud = wanted.argmax(1)
        assert abs(float(logits[0, loud] - wanted[0, loud])) < 0.05 and logits.argmax(1) == loud
    above = torch.sin(2 * torch.pi * 6000 * t)[None]
    assert float(wrapped.logits(above).max()) < float(logits.max()) - 8
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(wrapped.logits(x)[0, 1], x)
    assert gradient.shape == x.shape and bool(gradient.any())
    given: list[int] = []

    def count(x: Tensor) -> Tensor:
        given.append(x.shape[1])
        return x

    windows = l2i.wrap(
        _Bands(),
        2 * RATE,
        ["low", "high"],
        model_rate=RATE,
        window_s=0.5,
        hop_s=0.25,
        front_end=count,
    )
    assert windows.logits(x).shape == (1, 2) and set(given) == {4000}


def test_maps_of_a_model_at_another_rate() -> None:
    """They cover the clip from its beginning to its end."""
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 4, 16, 16),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    clf = l2i.wrap(network, 2 * RATE, ["a", "b"], model_rate=RATE)
    features = clf.features(torch.randn(1, 2 * RATE), ["2=B D T"])
    assert features.maps[0].shape == (1, 4, 1, 500)
    assert len(clf.layers()) > 0
    with pytest.raises(UsageError, match="model_rate -1 must be above 0 Hz"):
        l2i.wrap(network, RATE, ["a", "b"], model_rate=-1)


@pytest.mark.parametrize("classes", [{"a", "b", "c"}, 3])
def test_names_without_an_order(classes: Any) -> None:
    """A set is in another order in each process, and a number has no names."""
    with pytest.raises(UsageError, match="give a list of names, all different"):
        l2i.wrap(Scores(), RATE, classes)


def test_names_in_an_array() -> None:
    """As pandas and numpy have them."""
    assert l2i.wrap(Scores(), RATE, np.array(list("abc"))).classes == ("a", "b", "c")


def test_one_sample_is_no_samples() -> None:
    """Too short for a window of the model's."""

    def hear(x: np.ndarray) -> np.ndarray:
        if x.shape[1] < 9:
            raise ValueError("too short")
        return np.zeros((len(x), 3))

    with pytest.raises(DataError, match=r"a clip of 1 sample \("):
        l2i.wrap(hear, RATE).logits(torch.zeros(1, 1))

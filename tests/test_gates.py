"""`l2i.explanation.gates`: explanations of one clip, whose right answer is known on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.errors import UsageError
from l2i.explanation.apart import domain_of
from l2i.explanation.gates import Gates, Shapley, without_training
from l2i.models.answers import log_odds
from l2i.types import Task

RATE, SAMPLES = 8000, 8000
LOW, HIGH = 500.0, 2000.0


class TwoTones(nn.Module):
    """Hears two bands: a class's logit grows with the energy around its tone."""

    def forward(self, x: Tensor) -> Tensor:
        power = torch.fft.rfft(x).abs().square() / x.shape[1] ** 2
        hz = torch.fft.rfftfreq(x.shape[1], 1 / RATE)
        bands = [(power[:, (hz - tone).abs() < 150].sum(1) + 1e-8).log() for tone in (LOW, HIGH)]
        return torch.stack(bands, 1) + 8.0


def _tone(hz: float, level: float = 0.3) -> Tensor:
    return level * torch.sin(2 * math.pi * hz * torch.arange(SAMPLES) / RATE)


def _energy(x: Tensor, hz: float) -> Tensor:
    """A clip's [S], around a tone."""
    power = torch.fft.rfft(x).abs().square()
    return power[(torch.fft.rfftfreq(len(x), 1 / RATE) - hz).abs() < 150].sum()


@pytest.fixture(scope="module")
def mixed() -> Tensor:
    """Both tones, for a while at once, and a little noise; and silence."""
    noise = 0.003 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0))
    t = torch.arange(SAMPLES) / SAMPLES
    # What always sounds together is one pattern to any dictionary of the clip alone.
    low, high = _tone(LOW) * (t < 0.6), _tone(HIGH) * (t > 0.4)
    return torch.stack([low + high + noise, torch.zeros(SAMPLES)])


def _classifier(black_box: bool = False) -> l2i.models.wrapped.Wrapped:
    names = ["low", "high"]
    if black_box:
        return l2i.wrap(lambda x: TwoTones()(torch.from_numpy(x)), RATE, names, "multi-label")
    return l2i.wrap(TwoTones(), RATE, names, "multi-label")


@pytest.mark.parametrize("black_box", [False, True])
def test_the_tone_that_was_heard_is_the_explanation(mixed: Tensor, black_box: bool) -> None:
    """The tone of the class asked for is kept and the other is not; both
    parts add up to the clip, sample by sample; silence is explained by silence."""
    clf = _classifier(black_box)
    way = without_training(clf, components=6)
    assert isinstance(way, Shapley if black_box else Gates)
    for c, own, other in ((0, LOW, HIGH), (1, HIGH, LOW)):
        e = way(mixed, torch.tensor([c, c]))
        assert float((e.audio + e.removal - mixed).abs().max()) < 1e-6
        kept = _energy(e.audio[0], own) / _energy(mixed[0], own)
        leaked = _energy(e.audio[0], other) / _energy(mixed[0], other)
        assert kept > 0.9 and leaked < 0.1
        assert bool((e.mask >= 0).all()) and bool((e.mask <= 1).all())
        p = clf.probabilities(clf.logits(torch.stack([mixed[0], e.audio[0], e.removal[0]])))[:, c]
        assert p[1] > 0.9 * p[0] and p[2] < 0.2 * p[0]
        assert not e.audio[1].any() and not e.mask[1].any()
        shares, evidence = e.apart.shares(e.gates)
        assert float(shares[0].sum()) == pytest.approx(1.0, abs=1e-5)
        assert bool((evidence >= 0).all()) and bool((evidence <= 1 + 1e-6).all())
        # A component's own sounds add up to the explanation, as far as masks are sums.
        alone = sum(e.alone(0, k) for k in range(6))
        torch.testing.assert_close(alone, e.audio[0], atol=1e-4, rtol=0)


class Rooted(TwoTones):
    """The same of frames, with magnitudes as many write them: a root without a derivative at 0."""

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.view_as_real(torch.fft.rfft(x.unfold(1, 400, 200)))
        power = parts.square().sum(3).sqrt().square().mean(1) / 400**2
        hz = torch.fft.rfftfreq(400, 1 / RATE)
        bands = [(power[:, (hz - tone).abs() < 150].sum(1) + 1e-8).log() for tone in (LOW, HIGH)]
        return torch.stack(bands, 1) + 8.0


def test_a_front_end_without_a_gradient_in_silence(mixed: Tensor) -> None:
    """A pause of zeros gives no gradient that is a number: the rest of the clip is explained."""
    clip = mixed[:1].clone()
    clip[:, SAMPLES // 2 :] = 0
    x = clip.clone().requires_grad_()
    clf = l2i.wrap(Rooted(), RATE, ["low", "high"], "multi-label", check=False)
    clf.logits(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isnan().any())
    e = Gates(clf, components=6)(clip, torch.tensor([0]))
    assert bool(torch.isfinite(e.audio).all())
    p = clf.probabilities(clf.logits(torch.cat([clip, e.audio, e.removal])))[:, 0]
    assert p[1] > 0.9 * p[0] and p[2] < 0.3 * p[0]


def test_a_clips_gates_do_not_hang_on_its_neighbours(mixed: Tensor) -> None:
    """The same alone and in a batch."""
    way = Gates(_classifier(), components=4, steps=6)
    both = way(mixed, torch.tensor([0, 1]))
    alone = way(mixed[:1], torch.tensor([0]))
    torch.testing.assert_close(both.mask[:1], alone.mask, atol=2e-3, rtol=0)


def test_log_odds() -> None:
    """log(p / (1 - p)) of both tasks, where a probability would be 1 to rounding as well."""
    logits = torch.tensor([[40.0, 1.0, 0.0], [0.2, -1.0, 0.5]])
    p = logits[1].softmax(0)[2]
    odds = log_odds(logits, torch.tensor([0, 2]), Task.SINGLE_LABEL)
    assert float(odds[1]) == pytest.approx(float((p / (1 - p)).log()), abs=1e-6)
    assert float(odds[0]) == pytest.approx(40 - math.log(math.e + 1), abs=1e-5)
    assert log_odds(logits, torch.tensor([0, 2]), Task.MULTI_LABEL).tolist() == [40.0, 0.5]


def test_shapley_values_on_paper() -> None:
    """A game in which each player adds what it is worth: its value is that, whatever else plays;
    all of them add up to what all are worth."""
    worth = torch.tensor([3.0, 0.0, -1.0, 0.5, 2.0])

    class Additive(Shapley):
        def _worth(self, heard: object, classes: object, sets: Tensor) -> Tensor:
            return 7.0 + sets @ worth

    class Heard:
        activations = torch.zeros(1, 5, 4)

    game = Additive(_classifier(), coalitions=64)._values(Heard(), torch.tensor([0]))  # type: ignore[arg-type]
    torch.testing.assert_close(game, worth, atol=2e-3, rtol=0)


def test_what_cannot_be_asked() -> None:
    """One sentence each."""
    black = _classifier(black_box=True)
    with pytest.raises(UsageError, match=r"no gradients, which method 'gates' needs.*'shapley'"):
        Gates(black)(torch.zeros(1, SAMPLES), torch.tensor([0]))
    with pytest.raises(UsageError, match="no method 'lime'"):
        without_training(black, "lime")
    with pytest.raises(UsageError, match="'shapley' has no setting 'steps'; it has: domain"):
        without_training(black, steps=3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_windows_are_about_64_ms(rate: int) -> None:
    """At any rate; frames overlap fourfold."""
    domain = domain_of(rate)
    assert 0.045 < domain.n_fft / rate < 0.095 and domain.hop_length * 4 == domain.n_fft


@pytest.mark.parametrize(
    ("method", "how", "sentence"),
    [
        ("gates", {"components": 0}, "components = 0 must be a number, 1 or more"),
        ("shapley", {"components": 1}, "components = 1 must be a number, 2 or more"),
        ("gates", {"steps": "a"}, "steps = 'a' must be a number"),
        ("gates", {"steps": 2.5}, "steps = 2.5 must be a whole number"),
        ("gates", {"size": float("nan")}, "size = nan must be a number"),
        ("gates", {"learning_rate": True}, "learning_rate = True must be a number"),
    ],
)
def test_settings_have_bounds(method: str, how: dict[str, object], sentence: str) -> None:
    """One sentence, before anything is heard; numbers of numpy are numbers."""
    with pytest.raises(UsageError, match=sentence):
        without_training(_classifier(), method, **how)
    without_training(_classifier(), "gates", components=np.int64(3), size=np.float32(2))

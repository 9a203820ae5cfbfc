"""Every explanation method: masks one can use, whatever makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import UsageError
from l2i.explanation import METHODS, ExplanationMethod, MethodSettings, Subject, make_method
from l2i.explanation.gates import without_training
from l2i.models.attributes import Attributes
from l2i.models.chunks import ChunkSelector
from l2i.models.classifier import FrozenClassifier
from l2i.models.dictionary import unit_columns
from l2i.models.gate_head import GateHead
from l2i.models.gated import Gating
from l2i.models.general import GeneralInterpreter
from l2i.models.heard import Heard, hear
from l2i.models.interpreter import Interpreter
from l2i.models.mask_decoder import MaskDecoder
from l2i.models.players import ShapleyHead
from l2i.models.quantised import QuantisedMask
from l2i.models.time_domain import TimeDomainMask
from l2i.models.vgg import VGG
from l2i.training.class_dictionary import ClassBlocks
from l2i.training.interpreter import layers_of
from l2i.types import Classifier, Task

SETTINGS = SpectrogramSettings(8000, n_fft=256, hop_length=64)
SAMPLES = 9000  # 141 frames.
COMPONENTS, CLASSES = 7, 3


@pytest.fixture(autouse=True)
def _few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a mask must be does not depend on how often the classifier is asked."""
    monkeypatch.setattr("l2i.explanation.perturbation._Perturbation.questions", 16)
    monkeypatch.setattr("l2i.explanation.perturbation.Extremal.steps", 3)
    monkeypatch.setattr("l2i.explanation.wavelets.Wam.copies", 3)
    monkeypatch.setattr("l2i.explanation.refined._STEPS", 2)
    few: dict[str, dict[str, Any]] = {
        "gates": {"steps": 3, "components": 8},
        "shapley": {"coalitions": 16, "components": 8},
    }
    monkeypatch.setattr(
        "l2i.explanation.gates.without_training",
        lambda classifier, name, **given: without_training(classifier, name, **few[name], **given),
    )


# Where no unit, component or channel speaks for the class, nothing is kept.
MAY_KEEP_NOTHING = {
    *("l2i", "random", "gradcam", "gates", "shapley", "slime", "lime", "audiolime", "rise"),
    *("flint", "amortised-shapley", "refined-gates"),
}

# What holds of any network is asked: the share of the published channels.
WIDTH = 0.0625
# They enter the built-in classifier at a hidden map, and refuse any other.
BUILT_IN_ALONE = {"iba"}

each_method = pytest.mark.parametrize("name", sorted(METHODS))
each_pair = pytest.mark.parametrize(
    ("name", "which"),
    [
        (name, which)
        for name in sorted(METHODS)
        for which in ("subject", "other")
        if which == "subject" or name not in BUILT_IN_ALONE
    ],
)


def _vgg() -> FrozenClassifier:
    """Random weights, on which no method can rely."""
    torch.manual_seed(3)
    network = VGG(CLASSES, head=8, width=WIDTH).eval()
    return FrozenClassifier(network, SETTINGS, ["a", "b", "c"], Task.SINGLE_LABEL)


def _raw() -> Classifier:
    """A network on raw samples, which hears levels."""
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 8, 64, 8),
        nn.ReLU(),
        nn.Conv1d(8, 8, 16, 4),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )
    return l2i.wrap(network, 8000, ["a", "b", "c"], "multi-label")


@pytest.fixture(scope="module")
def subject() -> Subject:
    """The built-in classifier, with a dictionary and an interpreter."""
    torch.manual_seed(5)
    w = unit_columns(torch.rand(SETTINGS.n_bins, COMPONENTS))
    interpreter = Interpreter(COMPONENTS, CLASSES, width=WIDTH).eval().requires_grad_(False)
    return _learnt(_vgg(), {"dictionary": w, "interpreter": interpreter})


def _learnt(classifier: Classifier, parts: dict[str, Any]) -> Subject:
    """Parts, and networks of random weights that other methods learn beside them."""
    layers = layers_of(classifier)
    maps = classifier.features(torch.zeros(1, SAMPLES), layers).maps
    head = GateHead(COMPONENTS, tuple((m.shape[1], m.shape[2]) for m in maps), width=16)
    parts["class-dictionary"] = ClassBlocks(parts["dictionary"], torch.arange(COMPONENTS) % CLASSES)
    parts["gates"] = Gating(head.eval().requires_grad_(False), layers, parts["dictionary"])
    return _with_decoders(Subject(classifier, SETTINGS.domain, parts))


def _with_decoders(subject: Subject) -> Subject:
    """And a mask decoder of its layers, of random weights."""
    maps = layers_of(subject.classifier)
    features = subject.classifier.features(torch.zeros(1, SAMPLES), maps).maps
    torch.manual_seed(7)
    decoder = MaskDecoder(
        maps=maps,
        channels=[m.shape[1] for m in features],
        n_bins=SETTINGS.n_bins,
        sample_rate=SETTINGS.sample_rate,
        width=16,
    )
    quantised = QuantisedMask(
        maps=maps[-1:],
        channels=features[-1].shape[1],
        n_classes=CLASSES,
        n_bins=SETTINGS.n_bins,
        sample_rate=SETTINGS.sample_rate,
        codes=12,
    )
    attributes = Attributes(
        maps=maps,
        channels=[m.shape[1] for m in features],
        n_classes=CLASSES,
        n_bins=SETTINGS.n_bins,
        sample_rate=SETTINGS.sample_rate,
        attributes=6,
        width=8,
    )
    selector = ChunkSelector(
        n_classes=CLASSES,
        n_bins=SETTINGS.n_bins,
        sample_rate=SETTINGS.sample_rate,
        hop_length=SETTINGS.hop_length,
        share=0.2,
        width=8,
        piece_s=0.25,
    )
    waveforms = TimeDomainMask(
        maps=maps,
        channels=[m.shape[1] for m in features],
        filters=8,
        kernel=32,
        width=8,
        blocks=1,
        within=1,
        along=1,
        heads=2,
        chunk=50,
        alpha=0.75,
    )
    players = ShapleyHead(
        maps=maps,
        shapes=[(m.shape[1], m.shape[2]) for m in features],
        components=COMPONENTS,
        objects=4,
        times=2,
        width=8,
    )
    for network in (decoder, quantised, attributes, selector, waveforms, players):
        network.eval().requires_grad_(False)
    learnt = {
        "mask-decoder": decoder,
        "audio-mask-decoder": decoder,
        "quantised-mask": quantised,
        "attributes": attributes,
        "chunk-selector": selector,
        "time-domain-mask": waveforms,
        "shapley-values": players,
    }
    return replace(subject, parts={**subject.parts, **learnt})


@pytest.fixture(scope="module")
def other() -> Subject:
    """Another classifier, with a general interpreter of its layers."""
    classifier = _raw()
    torch.manual_seed(6)
    w = unit_columns(torch.rand(SETTINGS.n_bins, COMPONENTS))
    maps = layers_of(classifier)
    shapes = tuple(
        (m.shape[1], m.shape[2]) for m in classifier.features(torch.zeros(1, SAMPLES), maps).maps
    )
    interpreter = GeneralInterpreter(COMPONENTS, CLASSES, maps=maps, shapes=shapes)
    interpreter.eval().requires_grad_(False)
    return _learnt(classifier, {"dictionary": w, "interpreter": interpreter})


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Noise, a chirp, silence, a click: [4, S]."""
    g = torch.Generator().manual_seed(0)
    t = torch.arange(SAMPLES) / 8000
    click = torch.zeros(SAMPLES)
    click[4000] = 1.0
    noise = 0.1 * torch.randn(SAMPLES, generator=g)
    chirp = torch.sin(2 * torch.pi * (200 + 800 * t) * t) + 0.01 * noise
    return torch.stack([noise, chirp, torch.zeros(SAMPLES), click])


def _method(name: str, subject: Subject) -> ExplanationMethod:
    return make_method(name, subject, MethodSettings(threshold=0.1, seed=1))


def _heard(method: ExplanationMethod, subject: Subject, x: Tensor) -> Heard:
    """Clips, and for an oracle their parts: what sounds in the first half, and in the last."""
    heard = hear(subject.classifier, x, subject.domain, method.layers)
    if not getattr(method, "knows_parts", False):
        return heard
    scaled = x / x.abs().amax(1, keepdim=True).clamp_min(1e-9)
    first = scaled * (torch.arange(SAMPLES) < SAMPLES // 2)
    return replace(heard, parts=(first, scaled - first))


def _mask(
    method: ExplanationMethod, subject: Subject, x: Tensor, classes: list[int], keys: Sequence[int]
) -> Tensor:
    heard = _heard(method, subject, x)
    return method(heard, torch.tensor(classes), keys)


@each_pair
def test_masks_are_shares(
    name: str, which: str, clips: Tensor, request: pytest.FixtureRequest
) -> None:
    """Masks of the spectrogram's shape, in [0, 1], not NaN; silence is explained by nothing, and
    something of a sound is kept, unless nothing that the method knows speaks for the class."""
    subject = request.getfixturevalue(which)
    mask = _mask(_method(name, subject), subject, clips, [0, 1, 2, 0], [5, 6, 7, 8])
    shape = (4, SETTINGS.n_bins, SETTINGS.n_frames(SAMPLES))
    assert mask.shape == shape and mask.dtype == torch.float32
    assert not mask.requires_grad
    assert bool((mask >= 0).all()) and bool((mask <= 1).all())
    assert not mask[2].any()
    if name not in MAY_KEEP_NOTHING:
        assert all(mask[i].any() for i in (0, 1, 3))


@each_pair
def test_a_mask_does_not_depend_on_its_neighbours(
    name: str, which: str, clips: Tensor, request: pytest.FixtureRequest
) -> None:
    """Alone, in another order, or in a batch: the same mask, random ones too."""
    subject = request.getfixturevalue(which)
    method = _method(name, subject)
    classes, keys = [0, 1, 2, 0], [5, 6, 7, 8]
    together = _mask(method, subject, clips, classes, keys)
    order = [3, 1, 0, 2]
    turned = _mask(
        method, subject, clips[order], [classes[i] for i in order], [keys[i] for i in order]
    )
    torch.testing.assert_close(turned, together[order], atol=2e-4, rtol=0)
    alone = _mask(method, subject, clips[1:2], classes[1:2], keys[1:2])
    torch.testing.assert_close(alone, together[1:2], atol=2e-4, rtol=0)


@each_method
def test_gain_and_polarity_change_nothing(name: str, subject: Subject, clips: Tensor) -> None:
    """A clip that is softer, or upside down, has the same mask where the classifier hears it the
    same."""
    method = _method(name, subject)
    first = _mask(method, subject, clips[:2], [0, 1], [1, 2])
    for factor in (0.25, -1.0):
        other = _mask(method, subject, factor * clips[:2], [0, 1], [1, 2])
        torch.testing.assert_close(other, first, atol=5e-3 if name == "gates" else 1e-3, rtol=0)


@each_pair
def test_the_classifier_is_left_as_it_was(
    name: str, which: str, clips: Tensor, request: pytest.FixtureRequest
) -> None:
    """Same weights, same logits, no gradient, no hook left behind; nor is torch's own generator
    moved. It works on spectrograms made for inference, too."""
    subject = request.getfixturevalue(which)
    clf: Any = subject.classifier
    network = clf.network if hasattr(clf, "network") else clf.model
    before = {k: v.clone() for k, v in network.state_dict().items()}
    logits = clf.logits(clips)
    state = torch.get_rng_state()
    method = _method(name, subject)
    with torch.inference_mode():
        heard = _heard(method, subject, clips)
    method(heard, torch.tensor([0, 1, 2, 0]), [1, 2, 3, 4])
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    for module in network.modules():
        assert not module._forward_hooks and not module._backward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(clf.logits(clips), logits)


@pytest.mark.parametrize("name", sorted(BUILT_IN_ALONE))
def test_a_classifier_that_cannot_be_entered(name: str, other: Subject) -> None:
    """One sentence, before anything is explained."""
    with pytest.raises(UsageError, match="cannot be run from one on"):
        _method(name, other)


def test_random_has_as_many_components_as_l2i(
    subject: Subject, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And, from another key, other ones."""
    counted: list[Tensor] = []

    def soft_mask(w: Tensor, h: Tensor, selected: Tensor) -> Tensor:
        counted.append(selected)
        return torch.zeros(len(h), w.shape[0], h.shape[2])

    for module in ("listen_to_interpret", "baselines"):
        monkeypatch.setattr(f"l2i.explanation.{module}.soft_mask", soft_mask)
    for name, keys in (("l2i", range(4)), ("random", range(4)), ("random", range(10, 14))):
        method = make_method(name, subject, MethodSettings(threshold=0.0, seed=1))
        _mask(method, subject, clips, [0, 1, 2, 0], list(keys))
    mine, drawn, others = counted
    assert mine.any()
    assert torch.equal(mine.sum(1), drawn.sum(1)) and torch.equal(mine.sum(1), others.sum(1))
    assert not torch.equal(drawn, others)


def test_integrated_gradients_add_up(subject: Subject) -> None:
    """Completeness, on a smooth toy: the attributions sum to the logit's distance from
    silence's, and each bin has its own part of it."""
    from l2i.explanation.baselines import IntegratedGradients

    method = IntegratedGradients(subject, MethodSettings())
    method.forward = lambda size: torch.stack(  # type: ignore[assignment]
        [size.sum((1, 2)), size.pow(3).sum((1, 2)), size[:, 0, 0]], dim=1
    )
    size = torch.rand(1, 5, 6)
    attribution = method.attribute(size, 1)
    torch.testing.assert_close(attribution.float(), size[0] ** 3, atol=1e-4, rtol=0)


def test_occlusion_of_a_toy_finds_its_patch(subject: Subject) -> None:
    """A classifier that hears one bin: the patch around it, and nothing else."""
    from l2i.explanation.baselines import Occlusion

    method = Occlusion(subject, MethodSettings())
    method.forward = lambda size: size[:, 40, 70:71].repeat(1, 3)  # type: ignore[assignment]
    size = torch.ones(1, SETTINGS.n_bins, 141)
    attribution = method.attribute(size, 0)
    bins, frames = -(-SETTINGS.n_bins // 8), round(0.25 * 8000 / 64)
    expected = torch.zeros_like(attribution)
    row, column = 40 // bins * bins, 70 // frames * frames
    expected[row : row + bins, column : column + frames] = 1.0
    torch.testing.assert_close(attribution, expected)

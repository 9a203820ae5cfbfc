"""Gated L2I: what gates make of a sound, what they read, and what they learn."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.config import own_classifier_preset
from l2i.dsp.spectrogram import Domain, SpectrogramSettings
from l2i.errors import DataError, DeviceError, UsageError
from l2i.explanation import make_method, split_audio
from l2i.explanation.gated import GatedL2I
from l2i.explanation.refined import RefinedGates
from l2i.models.answers import log_odds, objective
from l2i.models.classifier import FrozenClassifier
from l2i.models.dictionary import unit_columns
from l2i.models.gate_head import GateHead, gate
from l2i.models.gated import Taken, activations_of, split_sounds
from l2i.models.heard import class_gradients, hear
from l2i.models.vgg import VGG
from l2i.run.device import epoch_generator
from l2i.run.progress import Progress
from l2i.trained import Fitted
from l2i.training import gates as gates_module
from l2i.training import teacher as teacher_module
from l2i.training.gates import GatesSettings
from l2i.training.mixtures import Mixer
from l2i.training.parts import PARTS, Context, Sounds, learn, parts_of
from l2i.types import Task
from tests.guests import CLASSES, RATE, SAMPLES, load, sounds

FEW = {"components": 6, "iterations": 5, "n_fft": 256, "hop_length": 128}
GATES = {
    "warm_epochs": 12,
    "epochs": 12,
    "batch_size": 6,
    "width": 32,
    "crop_share": 1.0,
    "closing": 1.0,
}


# --- a sound and gates --------------------------------------------------------------------------


def test_activations_of_what_the_dictionary_explains() -> None:
    """They are exact for spectra that do not overlap; silence has none."""
    w = torch.tensor([[1.0, 0.0], [0.0, 0.6], [0.0, 0.8]])
    h = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]])
    torch.testing.assert_close(activations_of(w @ h, w), h, atol=1e-6, rtol=1e-5)


def test_more_updates_explain_more() -> None:
    """Multiplicative updates never explain less."""
    g = torch.Generator().manual_seed(0)
    w, s = unit_columns(torch.rand(20, 6, generator=g)), torch.rand(2, 20, 9, generator=g)
    left = [float((s - w @ activations_of(s, w, n)).square().sum()) for n in (0, 1, 5, 20, 80)]
    assert left == sorted(left, reverse=True) and left[0] > 1.1 * left[-1]


def test_the_mask_of_gates() -> None:
    """Two components share a bin 3 to 1: gates of 1 and 0 leave 3/4 of it; all open, all that is
    explained; shut, nothing; what nothing explains belongs to no explanation."""
    w = torch.tensor([[0.6, 0.6], [0.8, 0.0], [0.0, 0.0]])
    h = torch.tensor([[[3.0], [1.0]]])
    taken = Taken(w, h, w @ h)
    one = torch.tensor([[[1.0], [0.0]]])
    torch.testing.assert_close(taken.mask(one)[0, :, 0], torch.tensor([0.75, 1.0, 0.0]))
    assert taken.mask(torch.ones_like(h))[0, :, 0].tolist() == [1.0, 1.0, 0.0]
    assert taken.mask(torch.zeros_like(h)).abs().max() == 0
    shares, evidence = taken.shares(torch.tensor([[[0.5], [1.0]]]))
    # Loud are 3 * 1.4 and 1 * 0.6; half of the first counts, all of the second.
    torch.testing.assert_close(shares[0], torch.tensor([2.1, 0.6]) / 2.7)
    torch.testing.assert_close(evidence[0], torch.tensor([0.5, 1.0]))


def test_a_gate_can_shut_and_open_again() -> None:
    """It reaches 0 and 1, and has a gradient there."""
    x = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
    y = gate(x)
    assert y.tolist() == [0.0, 0.5, 1.0]
    y.sum().backward()
    assert x.grad is not None and (x.grad > 0.01).all()


# --- what the class is asked by -----------------------------------------------------------------


def test_the_gradient_of_a_class_on_paper() -> None:
    """Logits are the mean over frames of C m: each frame's gradient is C over the frames."""
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Conv1d(1, 2, 4, 4, bias=False)
            self.out = nn.Linear(2, 2, bias=False)
            self.out.weight.data = weight

        def forward(self, x: Tensor) -> Tensor:
            values: Tensor = self.out(self.maps(x.unsqueeze(1)).mean(2))
            return values

    clf = l2i.wrap(Net(), 8000, ["a", "b"])
    layer = "maps=B D T"
    heard = hear(clf, torch.randn(3, 400), Domain(8000, 64, 16), [layer])
    classes = torch.tensor([0, 1, 0])
    (gradient,) = class_gradients(heard, [layer], heard.features.maps, classes)
    torch.testing.assert_close(gradient, weight[classes] / 100)


def test_the_built_in_classifier_is_asked_from_the_map_on() -> None:
    """And gives what a backward pass through all of it gives."""
    torch.manual_seed(0)
    settings = SpectrogramSettings(8000, n_fft=256, hop_length=64)
    clf = FrozenClassifier(VGG(3, head=8).eval(), settings, "abc", Task.SINGLE_LABEL)
    x = torch.randn(2, 9000)
    names = {"128": "layer11", "256": "layer14", "512": "layer16"}
    heard = hear(clf, x, settings.domain, list(names))
    classes = torch.tensor([2, 0])
    kept: list[Tensor] = []
    handles = [
        clf.network.get_submodule(f"netx.{layer}").register_forward_hook(
            lambda _m, _i, y: kept.append(y)
        )
        for layer in names.values()
    ]
    logits = clf.logits(x.requires_grad_())
    for handle in handles:
        handle.remove()
    whole = torch.autograd.grad(logits.gather(1, classes.view(-1, 1)).sum(), kept)
    gradients = class_gradients(heard, list(names), heard.features.maps, classes)
    for gradient, all_of_it in zip(gradients, whole, strict=True):
        torch.testing.assert_close(gradient, all_of_it.mean(dim=(2, 3)), rtol=1e-4, atol=1e-9)


def test_a_layer_beside_the_way_is_refused() -> None:
    """Its gradient is nobody's."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beside = nn.Conv1d(1, 2, 4, 4)
            self.out = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.beside(x.unsqueeze(1))
            values: Tensor = self.out(x.square().mean(1, keepdim=True))
            return values

    clf = l2i.wrap(Net(), 8000)
    heard = hear(clf, torch.randn(1, 400), Domain(8000, 64, 16), ["beside=B D T"])
    with pytest.raises(UsageError, match="not on the"):
        class_gradients(heard, ["beside=B D T"], heard.features.maps, torch.tensor([0]))


def test_the_head_reads_the_class() -> None:
    """Maps of any rates; the length of the gradient does not count, its direction does."""
    torch.manual_seed(0)
    head = GateHead(5, ((4, 20), (8, 1)), width=16)
    maps, ask = (torch.rand(2, 4, 20, 40), torch.rand(2, 8, 1, 10)), torch.randn(2, 8)
    with torch.no_grad():
        first = head(maps, (ask,), 100)
        assert first.shape == (2, 5, 100)
        torch.testing.assert_close(head(maps, (100 * ask,), 100), first)
        assert (head(maps, (-ask,), 100) - first).abs().max() > 1e-3


def test_the_head_reads_the_class_at_each_depth() -> None:
    """Where a map is asked, too, the direction of the gradient counts."""
    torch.manual_seed(0)
    head = GateHead(5, ((4, 20), (8, 1)), width=16, depths=2)
    maps, ask = (torch.rand(2, 4, 20, 40), torch.rand(2, 8, 1, 10)), torch.randn(2, 8)
    finer = torch.randn(2, 4)
    with torch.no_grad():
        first = head(maps, (finer, ask), 100)
        torch.testing.assert_close(head(maps, (100 * finer, ask), 100), first)
        assert (head(maps, (-finer, ask), 100) - first).abs().max() > 1e-3


# --- mixtures -----------------------------------------------------------------------------------


def _context(x: np.ndarray, clf: l2i.Classifier | None = None) -> Context:
    clf = load() if clf is None else clf
    rows = np.arange(len(x))
    told = Sounds(x, rows[:-3], rows[-3:])
    domain = Domain(RATE, 256, 128)
    quiet = Progress(quiet=True)
    return Context(clf, domain, told, 0, clf.device, torch.float32, quiet)


def test_labels_play_no_part(tmp_path: Path) -> None:
    """Dictionary, interpreter and gates learn from the classifier alone: with other labels their
    weights are the same. The dictionary of each class, which is learnt from labels, is another."""
    context = _context(sounds(9))
    parts = [*parts_of("gated-l2i"), PARTS["class-dictionary"]]
    few: dict[str, dict[str, Any]] = {
        "dictionary": {"components": 6, "iterations": 3},
        "interpreter": {**own_classifier_preset("interpreter"), "epochs": 1, "batch_size": 3},
        "gates": {"epochs": 1, "warm_epochs": 1, "batch_size": 3, "width": 8},
        "class-dictionary": {"each": 2, "iterations": 3},
    }
    settings = {part.name: part.settings.model_validate(few[part.name]) for part in parts}

    def learnt(labels: list[tuple[int, ...]]) -> dict[str, dict[str, torch.Tensor]]:
        told = replace(context.sounds, classes=tuple(CLASSES), labels=labels)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            files = learn(parts, settings, replace(context, sounds=told), Path(folder))[1]
        return {name: tensors for name, (tensors, _) in files.items()}

    one, other = learnt([(0,), (1,), (2,)] * 2), learnt([(1,), (0,), (0,), (2,), (2,), (1,)])
    for name in ("dictionary", "interpreter", "gates"):
        assert one[name].keys() == other[name].keys()
        assert all(torch.equal(one[name][key], other[name][key]) for key in one[name]), name
    blocks = (weights["class-dictionary"] for weights in (one, other))
    assert not all(torch.equal(a, b) for a, b in zip(*(w.values() for w in blocks), strict=True))


def test_mixtures() -> None:
    """They are the sum of their parts, as loud as their first clip; the classifier hears the class
    in the one and not in the other, where that is said to be sure; the same seed, the same."""
    context = _context(sounds())
    mixer = Mixer(context, GatesSettings(batch_size=4, crop_share=0.6, views=2))
    clf = context.classifier
    mixtures = list(mixer.train(epoch_generator(0, "gates", 1)))
    again = list(mixer.train(epoch_generator(0, "gates", 1)))
    assert sum(len(m.x) for m in mixtures) == 9 and len(mixtures) == mixer.batches
    sure = 0
    for one, other in zip(mixtures, again, strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.classes, other.classes)
        assert one.x.shape[1] == round(0.6 * SAMPLES)
        peak = one.x.abs().amax(1, keepdim=True)
        torch.testing.assert_close(one.x / peak, one.a + one.b, atol=1e-5, rtol=0)
        for n in one.sure.nonzero()[:, 0].tolist():
            c = int(one.classes[n])
            # This classifier hears levels: parts as they were heard, before they were mixed.
            assert clf.logits(one.a[n : n + 1])[0].argmax() == c
            sure += 1
        alone = one.mixed == 0
        assert (one.b[alone].abs().amax(1) < 0.01).all()
    assert sure >= 1


def test_one_clip_cannot_be_mixed() -> None:
    """Said before anything is trained."""
    from l2i.training.gates import GATES as PART

    context = _context(sounds(4))
    one = replace(context.sounds, train=context.sounds.train[:1])
    with pytest.raises(DataError, match="one training clip"):
        PART.check(GatesSettings(), one, context.domain)


def test_a_class_to_leave_out_that_there_is_not() -> None:
    """Is refused by `check`, before anything is learnt, with the nearest one."""
    settings = {"without": ["lwo"]}
    with pytest.raises(UsageError, match="knows no class 'lwo'; did you mean 'low'"):
        l2i.fit(load(), sounds(8), method="gated-l2i", **FEW, **{**GATES, **settings})


def test_a_class_that_no_mixture_has() -> None:
    """Clips in which it is heard are left out, and it is never asked for."""
    context = _context(sounds())
    settings = GatesSettings(batch_size=4, views=2)
    c = context.classifier.classes.index("low")
    every, fewer = Mixer(context, settings), Mixer(context, settings, [c])
    assert fewer.batches < every.batches
    assert set(every.asked) - set(fewer.asked) == {c}
    for epoch in range(3):
        for mixed in fewer.train(epoch_generator(0, "gates", epoch)):
            assert not (mixed.classes == c).any()
            for part in (mixed.a, mixed.b):
                heard = context.classifier.probabilities(context.classifier.logits(part))
                assert (heard.argmax(1) != c).all()
    with pytest.raises(DataError, match="gates are learnt on mixtures of two"):
        Mixer(context, settings, range(len(context.classifier.classes)))


def test_presets_and_settings() -> None:
    """A preset is the weights that are not set."""
    evidence, source = GatesSettings(), GatesSettings(preset="source")
    assert evidence.weights()["energy"] > source.weights()["energy"]
    assert source.weights()["separate"] > evidence.weights()["separate"]
    assert GatesSettings(lambda_size=0.7).weights()["size"] == 0.7


def test_a_class_that_no_clip_trained(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named when training begins; its explanation says so, and that of another does not."""
    few = {"epochs": 1, "warm_epochs": 0, "crop_share": 0.5, "views": 1, "without": ["low"]}
    gates = {**GATES, **few}
    fitted = l2i.fit(load(), sounds(24), method="gated-l2i", progress=True, **FEW, **gates)
    told = capsys.readouterr()
    assert "No clip trains the gates for 1 of 3 classes" in told.out + told.err
    low, high = sounds(2)
    assert fitted.explain(high, "high").untrained is False
    (text,) = (doubt.text for doubt in fitted.explain(low, "low").doubts if "trained" in doubt.mark)
    assert "low" in text and "--method refined-gates" in text
    refined = replace(fitted, method="refined-gates").explain(low, "low")
    assert refined.holds and not refined.warnings


def test_a_number_format_that_the_device_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is refused before anything is learnt."""
    monkeypatch.setattr("l2i.run.device.cpu_has_bfloat16", lambda: False)
    lacks = {**GATES, "precision": "bfloat16"}
    with pytest.raises(DeviceError, match="no bfloat16"):
        l2i.fit(load(), sounds(8), method="gated-l2i", progress=True, **FEW, **lacks)
    told = capsys.readouterr()
    assert "dictionary" not in told.out + told.err


# --- learning -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """The method, fitted to two tones and noise, whose filters one can read."""
    return l2i.fit(load(), sounds(24), method="gated-l2i", **FEW, **GATES)


def test_what_is_learnt(fitted: Fitted) -> None:
    """Where two tones sound at once, the explanation of either has that tone; explanation and
    removal add up to the clip, sample by sample."""
    t = np.arange(SAMPLES) / RATE
    tones = [0.4 * np.sin(2 * np.pi * f * t).astype(np.float32) for f in (500, 2500)]
    for c, name in enumerate(CLASSES[:2]):
        e = fitted.explain(tones[0] + tones[1], name)
        np.testing.assert_allclose(e.audio + e.removal, e.input, atol=1e-6)
        own, other = (float(np.dot(e.audio, x) / np.dot(x, x)) for x in (tones[c], tones[1 - c]))
        assert own > 0.6 and other < 0.3, (name, own, other)
        p = e.probabilities[name]
        assert p.removal < p.input - 0.2 and p.explanation > p.input
        assert sum(k.share for k in e.components) == pytest.approx(1, abs=1e-4)
        assert all(0 <= k.evidence <= 1 for k in e.components)
        assert e.components[0].audio.shape == e.input.shape


def test_figures_of_both_rules(fitted: Fitted) -> None:
    """Its own, the published rule's beside them, and the interpreter's fidelity."""
    figures = l2i.evaluate(fitted, sounds(6)).set_index("figure")["value"]
    assert 0 <= figures["fidelity_top1"] <= 1
    assert figures["ff_mean"] > figures["published_ff_mean"]


def test_a_class_that_is_not_there(fitted: Fitted) -> None:
    """Is explained by next to nothing."""
    low = sounds(1)[0]
    assert fitted.explain(low, "low").kept > 5 * fitted.explain(low, "high").kept


def test_it_is_kept_and_loaded(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With its dictionary and its interpreter."""
    path = tmp_path_factory.mktemp("kept") / "gates.l2i"
    fitted.save(path)
    again, x = l2i.load(path, load()), sounds(2)[1]
    np.testing.assert_array_equal(again.explain(x).audio, fitted.explain(x).audio)
    assert set(again.history) == {"dictionary", "interpreter", "gates"}


def test_the_classifier_is_what_is_read(fitted: Fitted) -> None:
    """With the classifier's weights shuffled, the same head opens other gates."""
    torch.manual_seed(0)
    clf = load()
    for weight in clf.model.parameters():  # type: ignore[attr-defined]
        flat = weight.data.flatten()
        weight.data = flat[torch.randperm(len(flat))].view_as(weight)
    x = torch.from_numpy(sounds(3))
    gates = []
    for one in (fitted.subject.classifier, clf):
        way = GatedL2I(replace(fitted.subject, classifier=one), fitted.settings)
        heard = hear(one, x, fitted.subject.domain, way.layers)
        gates.append(way.gates_of(heard, torch.tensor([0, 1, 2])))
    rank = np.corrcoef(*(g.flatten().argsort().argsort().numpy() for g in gates))[0, 1]
    assert rank < 0.8


def test_gates_are_shut_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where the first of both figures is lost; not at all, where the first step loses it."""
    steps = gates_module._SHIFTS

    def stops(*figures: tuple[float, float]) -> float:
        """Figures as trained, and after each step; further on they are as good as at first."""

        def judge(_teacher: object, _held: object, shift: float = 0.0) -> dict[str, float]:
            at = 0 if not shift else 1 + steps.index(shift)
            fall, fid_in = figures[at] if at < len(figures) else figures[0]
            return {"fall": fall, "fid_in": fid_in}

        held = (None, None, None, torch.zeros(40))
        monkeypatch.setattr(gates_module, "_held", lambda *_: [held])
        monkeypatch.setattr(gates_module, "_figures", judge)
        return gates_module._closed(None, None, 0, 0.8)  # type: ignore[arg-type]

    assert stops((0.5, 1.0), (0.45, 1.0), (0.41, 0.99), (0.39, 1.0)) == steps[1]
    assert stops((0.5, 1.0), (0.5, 0.99), (0.5, 0.97)) == steps[0]
    assert stops((0.5, 1.0), (0.3, 1.0)) == 0.0
    assert stops((0.5, 1.0)) == min(steps)


def test_how_far_gates_are_shut(tmp_path: Path) -> None:
    """Less is kept, the tone stays in the explanation; the shift is kept and loaded."""
    few = {**FEW, **GATES, "warm_epochs": 2, "epochs": 2, "closing": 0.2}
    fitted = l2i.fit(load(), sounds(24), method="gated-l2i", **few)
    gating = fitted.subject.parts["gates"]
    assert gating.shift < 0
    subject = replace(
        fitted.subject, parts={**fitted.subject.parts, "gates": replace(gating, shift=0.0)}
    )
    t = np.arange(SAMPLES) / RATE
    x = sum(0.4 * np.sin(2 * np.pi * f * t).astype(np.float32) for f in (500, 2500))
    e = fitted.explain(x, "low")
    assert 0 < e.kept < replace(fitted, subject=subject).explain(x, "low").kept
    fitted.save(tmp_path / "shut.l2i")
    again = l2i.load(tmp_path / "shut.l2i", load())
    assert again.subject.parts["gates"].shift == gating.shift
    np.testing.assert_array_equal(again.explain(x, "low").audio, e.audio)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gates", "clip"),
        ("mask", "log"),
        ("activations", "network"),
        ("certified", False),
        ("dictionary", "learnt"),
    ],
)
def test_other_gates(name: str, value: Any, tmp_path: Path) -> None:
    """Those of the ablations: they do what they say, and are kept and loaded."""
    few = {**FEW, **GATES, "warm_epochs": 1, "epochs": 1, name: value}
    fitted = l2i.fit(load(), sounds(9), method="gated-l2i", **few)
    x = sounds(2)[1]
    e = fitted.explain(x)
    np.testing.assert_allclose(e.audio + e.removal, e.input, atol=1e-6)
    fitted.save(tmp_path / "kept.l2i")
    again = l2i.load(tmp_path / "kept.l2i", load())
    np.testing.assert_array_equal(again.explain(x).audio, e.audio)

    way = GatedL2I(again.subject, again.settings)
    heard = hear(again.classifier, torch.from_numpy(x[None]), again.subject.domain, way.layers)
    gates, taken = way.gates_of(heard, torch.tensor([0])), way.gating.take_apart(heard)
    assert (gates.std(dim=2).max() < 1e-6) == (name == "gates")
    plain = taken.mask(gates)
    gain = way.gating.gain(taken, gates, heard.size)
    assert torch.equal(gain, plain) == (name != "mask")
    if name == "mask":
        wanted = (plain * heard.size.log1p()).expm1()
        torch.testing.assert_close(gain * heard.size, wanted, rtol=1e-3, atol=1e-4)
    own = activations_of(heard.size.log1p(), way.w)
    assert torch.equal(taken.activations, own) == (name != "activations")
    # The one that was given stays for the interpreter, whatever gates make of it.
    given = again.subject.parts["dictionary"]
    torch.testing.assert_close(way.w.norm(dim=0), torch.ones(len(way.w.T)))
    assert torch.equal(way.w, given) == (name != "dictionary") and (way.w >= 0).all()


@pytest.mark.parametrize(
    ("name", "value", "left"), [("explained", 16 / 25, 0), ("overlap", 0, 0.36)]
)
def test_what_a_learnt_dictionary_must_not_lose(name: str, value: float, left: float) -> None:
    """On paper: of S = (3, 4) the first column alone has H = 3 and leaves (0, 4), 16 of 25; two of
    cosine 0.6 leave nothing, and overlap by 2 * 0.36 / 2. A step by its gradient lessens a term."""
    w = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    s = torch.tensor([[[3.0], [4.0]]])

    def term(w: Tensor) -> Tensor:
        h = activations_of(s, w, updates=200)
        terms = teacher_module._of_dictionary(Taken(w, h, w @ h), s)
        return terms[name]

    assert float(term(w[:, :1])) == pytest.approx(value)
    assert float(term(w)) == pytest.approx(left, abs=1e-3)
    moved = (w + torch.tensor([[0.0, 0.3], [0.0, -0.5]])).requires_grad_()
    before = term(moved)
    before.backward()
    assert moved.grad is not None
    assert float(term(moved.detach() - 1e-2 * moved.grad)) < float(before.detach())


@pytest.mark.parametrize("warm", [True, False])
def test_what_a_learnt_dictionary_is_weighed_by(warm: bool) -> None:
    """Its own terms count alike in all epochs; of the others one alone, and then all."""
    teacher = teacher_module.Teacher.__new__(teacher_module.Teacher)
    teacher.weights = GatesSettings().weights()
    weights = {k: teacher.weight(k, warm=warm) for k in ("explained", "overlap", "separate", "out")}
    assert weights["explained"] == 5.0 and weights["overlap"] == 0.01
    assert (weights["separate"], weights["out"]) == ((1.0, 0.0) if warm else (0.2, 1.0))


def test_relevance_with_a_linear_mask(fitted: Fitted) -> None:
    """As few components as the classifier needs, none where all of them are not enough."""
    way = make_method("l2i-linear", fitted.subject, fitted.settings)
    clf = fitted.subject.classifier
    x = torch.from_numpy(sounds(2))
    heard = hear(clf, x, fitted.subject.domain, way.layers)
    classes = torch.tensor([0, 1])
    mask = way(heard, classes, [0, 1])
    parts = split_audio(heard.spectrum, mask, heard.domain, SAMPLES, heard.size, linear=True)
    p = [
        clf.probabilities(z).gather(1, classes.view(-1, 1))[:, 0]
        for z in (heard.logits, *(heard.judge(part) for part in parts))
    ]
    assert (p[1] >= 0.9 * p[0]).all() and (p[2] <= 0.5 * p[0]).all()


def test_refined_gates(fitted: Fitted) -> None:
    """On mixtures, a few steps from the gates that were learnt make the objective less; parts still
    add up to the clip, and no gradient is left at the network."""
    x = torch.from_numpy(sounds(6))
    x = x + 0.5 * x.roll(1, 0)
    clf, told = fitted.subject.classifier, fitted.settings
    trained = make_method("gated-l2i", fitted.subject, told)
    refined = make_method("refined-gates", fitted.subject, told)
    heard = hear(clf, x, fitted.subject.domain, trained.layers)
    classes = heard.logits.argmax(1)
    whole = log_odds(heard.logits, classes, clf.task)

    def loss(mask: Tensor) -> Tensor:
        logits = heard.judge(split_sounds(heard, mask), [*range(6)] * 2)
        z = log_odds(logits, classes.repeat(2), clf.task)
        kept = (mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2))
        return objective(z[:6], z[6:], whole, kept, size=8.0, margin=3.0)

    before, after = (loss(way(heard, classes, range(6))) for way in (trained, refined))
    assert (after < before).all()
    assert after.mean() < before.mean() - 0.5
    assert isinstance(refined, RefinedGates)
    assert all(p.grad is None for p in refined.gating.head.parameters())
    e = replace(fitted, method="refined-gates").explain(x[0].numpy())
    np.testing.assert_allclose(e.audio + e.removal, e.input, atol=1e-6)
    assert sum(k.share for k in e.components) == pytest.approx(1, abs=1e-4)


def test_refined_gates_that_were_trained_for_all_that_convinces(fitted: Fitted) -> None:
    """They keep more than those for as little as convinces, and are surer than the mixture."""
    x = torch.from_numpy(sounds(6))
    x = x + 0.5 * x.roll(1, 0)
    clf, own = fitted.subject.classifier, fitted.subject.parts["gates"]
    inside, kept = [], []
    for preset in ("evidence", "source"):
        parts = {**fitted.subject.parts, "gates": replace(own, preset=preset)}
        way = RefinedGates(replace(fitted.subject, parts=parts), fitted.settings)
        heard = hear(clf, x, fitted.subject.domain, way.layers)
        classes = heard.logits.argmax(1)
        mask = way(heard, classes, range(6))
        logits = heard.judge(split_sounds(heard, mask)[:6])
        inside.append(log_odds(logits, classes, clf.task))
        kept.append((mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2)))
    assert kept[1].mean() > kept[0].mean() and inside[1].mean() > inside[0].mean()
    assert (inside[1] > log_odds(heard.logits, classes, clf.task)).all()


def test_refined_gates_of_one_sound_among_several(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where classes do not exclude each other, size counts little of one that is there, and as
    before of one that is absent."""
    x = torch.from_numpy(sounds(3))
    weights = []

    def told(*args: Tensor, size: float, **more: float) -> Tensor:
        weights.append((float(args[2]) > 0, size))
        return objective(*args, size=size, **more)

    monkeypatch.setattr("l2i.explanation.refined.objective", told)
    model = load().model  # type: ignore[attr-defined]
    # Where a tone sounds, the other tone's logit is above zero, too, if only just.
    model[7].bias = torch.nn.Parameter(torch.full((3,), -1.0))
    for task, there in (("multi-label", 1.0), ("single-label", 8.0)):
        clf = l2i.wrap(model, RATE, CLASSES, task)
        way = RefinedGates(replace(fitted.subject, classifier=clf), fitted.settings)
        heard = hear(clf, x, fitted.subject.domain, way.layers)
        for classes in (heard.logits.argmax(1), heard.logits.argmin(1)):
            way(heard, classes, range(3))
        assert set(weights) == {(True, there), (False, 8.0)}, task
        weights.clear()


def test_no_gradients_no_gates() -> None:
    """Said, with what to take instead."""
    clf = l2i.wrap(lambda x: np.stack([x.mean(1), x.std(1)], 1), RATE, ["a", "b"])
    with pytest.raises(UsageError, match=r"gradients|layers"):
        l2i.fit(clf, sounds(6), method="gated-l2i", **FEW)

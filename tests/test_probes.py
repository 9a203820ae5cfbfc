"""Figures that cannot be had by keeping everything, on toys whose answers are known on paper.

Clips are two tones, the loud one 6.02 dB above the other: four fifths of the energy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from l2i.dsp.spectrogram import SpectrogramSettings, kept_energy
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject, make_method, split_audio
from l2i.metrics import METRICS
from l2i.metrics.curves import SHARES, ByEnergy
from l2i.metrics.encoding import read_from
from l2i.metrics.sensitivity import (
    cosine_distance,
    faithfulness_correlation,
    rank_correlation,
    ssim,
    tiles,
)
from l2i.models.answers import log_odds
from l2i.models.classifier import FrozenClassifier
from l2i.models.heard import Heard, hear
from l2i.models.losses import fidelity_loss
from l2i.models.vgg import VGG
from l2i.recipes.measuring.evaluator import _masked, tuned_on_masks
from l2i.recipes.measuring.judging import judge_absent, judge_masks, mean_scores
from l2i.recipes.measuring.probed import Encoding
from l2i.recipes.measuring.probes import (
    Attributions,
    Case,
    Completeness,
    Curves,
    Evaluator,
    OnSome,
    SpectrogramProtocol,
    of_class,
)
from l2i.recipes.measuring.reexplained import Absent, Contrast, Randomised, Stability, shuffled
from l2i.recipes.measuring.truth import Part, Scene, judge_scenes, predicted
from l2i.run.progress import Progress
from l2i.types import Task
from tests.toys import BANDS, SAMPLES, SETTINGS, ToneClassifier, tone, tone_subject

LOUD, SOFT = [2, 8], [5, 1]
TOLD = MethodSettings()


def _clips() -> Tensor:
    return torch.stack([tone(a) + 0.5 * tone(b) for a, b in zip(LOUD, SOFT, strict=True)])


def _case(method: str, subject: Subject | None = None, waveform: Tensor | None = None) -> Case:
    subject = subject or tone_subject()
    explain = make_method(method, subject, TOLD)
    x = _clips() if waveform is None else waveform
    heard = hear(subject.classifier, x, subject.domain, explain.layers)
    classes = heard.logits.argmax(1)
    keys = tuple(range(len(x)))
    mask = explain(heard, classes, keys)
    return Case(heard, classes, mask, explain, keys, tuple(f"clip {k}" for k in keys))


def _mask(case: Case, bands: Sequence[int]) -> Case:
    """The same case, explained by the three bins of a band."""
    mask = torch.zeros_like(case.mask)
    for row, band in enumerate(bands):
        mask[row, 3 * band : 3 * band + 3] = 1.0
    return replace(case, mask=mask)


def test_every_figure_of_a_probe_is_a_metric() -> None:
    """So that the table says what it is."""
    probes = (
        Curves,
        Attributions,
        Completeness,
        Stability,
        Contrast,
        Absent,
        SpectrogramProtocol,
        Evaluator,
    )
    names = [name for probe in probes for name in probe.names]
    names += Randomised("full", tone_subject(), TOLD).names
    assert len(names) == len(set(names))
    assert set(names) <= set(METRICS)


class _Open(ToneClassifier):
    """Its front-end can be passed by."""

    def logits_of(self, size: Tensor) -> Tensor:
        logits: Tensor = self.features_of(size).logits
        return logits


# --- at a stated size -------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 10**6]), st.sampled_from(SHARES))
def test_any_share_of_the_energy_is_met(seed: int, levels: int, share: float) -> None:
    """By masks of one value, of a few, and of all different ones; for every clip apart; and what
    is kept whole is more important than what is not kept."""
    g = torch.Generator().manual_seed(seed)
    mask = (torch.rand(2, 6, 7, generator=g) * levels).floor() / levels
    size = torch.rand(2, 6, 7, generator=g)
    gain = ByEnergy(mask, size).gain(share)
    np.testing.assert_allclose(kept_energy(gain, size).numpy(), share, atol=1e-6)
    for m, x in zip(mask, gain, strict=True):
        whole, none = m[x > 1 - 1e-6], m[x < 1e-6]
        assert not len(whole) or not len(none) or whole.min() >= none.max()


def test_rounding_is_no_order() -> None:
    """Masks that differ by rounding alone cut nothing in two; a hundredth of a thousandth does not
    vanish in a mask of small values."""
    mask = torch.ones(1, 1, 4)
    mask[0, 0, :2] += 1e-7
    gain = ByEnergy(mask, torch.ones(1, 1, 4)).gain(0.5)
    np.testing.assert_allclose(gain.numpy(), 0.5**0.5, rtol=1e-6)
    small = torch.tensor([[[1.0, 3e-7, 2e-7, 1e-7]]])
    gain = ByEnergy(small, torch.ones(1, 1, 4)).gain(0.5)
    np.testing.assert_allclose(gain.numpy(), [[[1, 1, 0, 0]]], atol=1e-6)


def test_a_mask_of_ones_gains_nothing_at_any_size() -> None:
    """What it takes, and what it leaves, is the clip, softer, which a classifier that scales its
    input hears as the clip: no fall; both curves are y but for their ends, silence, where every
    class is as likely."""
    case = _case("full")
    figures = Curves()(case)
    for name in ("ff_at_10", "ff_at_25", "ff_at_50", "sufficiency", "comprehensiveness"):
        np.testing.assert_allclose(figures[name], 0, atol=1e-5, err_msg=name)
    for name in ("fid_in_at_10", "fid_in_at_25", "fid_in_at_50"):
        assert figures[name].tolist() == [1, 1]
    y = of_class(case.heard.classifier, case.heard.logits, case.classes)
    lost = (y - 1 / BANDS) / 2
    np.testing.assert_allclose(figures["insertion"], y - 0.01 * lost, atol=1e-5)
    np.testing.assert_allclose(figures["deletion"], y - 0.05 * lost, atol=1e-5)


def test_the_tone_of_the_class_is_all_that_counts() -> None:
    """Its band's mask: at any size up to its four fifths the explanation is that tone alone. Half
    of the energy gone, the tone has (1 - sqrt(0.5 / 0.8)) = 0.21 of its amplitude, below the other
    one's half: the fall is that of the other decision. The other tone's mask has the opposite."""
    right = Curves()(_mask(_case("full"), LOUD))
    wrong = Curves()(_mask(_case("full"), SOFT))
    case = _case("full")
    alone = ToneClassifier().logits(torch.stack([tone(a) for a in LOUD])).softmax(1)
    p = alone[torch.arange(2), torch.tensor(LOUD)].numpy()
    y = of_class(case.heard.classifier, case.heard.logits, case.classes)
    np.testing.assert_allclose(right["sufficiency"], y - p, atol=0.01)
    assert right["fid_in_at_10"].tolist() == [1, 1] and wrong["fid_in_at_10"].tolist() == [0, 0]
    assert (right["ff_at_50"] > 0.5 * y).all()
    assert (wrong["ff_at_10"] < 0.01).all()
    assert (right["insertion_less_deletion"] > wrong["insertion_less_deletion"] + 0.2).all()
    assert (right["comprehensiveness"] > 0).all() and (wrong["comprehensiveness"] < 0).all()


def test_area_of_a_straight_line() -> None:
    """From 0 to 1 it is a half, on our shares, which are not evenly spaced at the start."""
    assert np.trapezoid(SHARES, SHARES) == pytest.approx(0.5)


# --- tile by tile -----------------------------------------------------------------------------


def test_tiles_cover_the_clip() -> None:
    """Eight by eight, each of a band and a piece of time; low bands have fewer bins."""
    t = tiles(101, SETTINGS.domain)
    assert t.shape == (33, 101) and t.unique().tolist() == list(range(64))
    assert (t[:, 0].diff() >= 0).all() and (t[0].diff() >= 0).all()
    first, last = ((t[:, 0] == n).sum() for n in (0, 56))
    assert first < last


def test_infidelity_is_captums() -> None:
    """The same sets, the same attributions, the same classifier, as a function of the tiles that
    are there."""
    captum = pytest.importorskip("captum.metrics")
    case = _case("l2i").take([0])
    figures = Attributions(seed=3)(case)
    heard, c = case.heard, int(case.classes[0])
    tile = tiles(heard.size.shape[2], heard.domain)
    kept = (case.gain * heard.size)[0].square()
    share = torch.stack([kept[tile == n].sum() for n in range(64)]) / heard.size.square().sum()
    rng = np.random.default_rng([3, 0])
    sets = torch.zeros(50, 64)
    for row in sets:
        row[rng.permutation(64)[:12]] = 1.0

    def forward(there: Tensor) -> Tensor:
        spectra = heard.take([0] * len(there))
        audio, _ = split_audio(
            spectra.spectrum, there[:, tile], heard.domain, heard.n_samples, linear=True
        )
        return heard.classifier.logits(audio).softmax(1)[:, c]

    wanted = captum.infidelity(
        forward,
        lambda inputs: (sets, inputs - sets),
        torch.ones(1, 64),
        share.unsqueeze(0),
        n_perturb_samples=50,
        max_examples_per_batch=50,
        normalize=True,
    )
    assert figures["infidelity"][0] == pytest.approx(wanted.item(), rel=1e-3)
    a, d = sets @ share, forward(torch.ones(1, 64)) - forward(1 - sets)
    wanted = np.corrcoef(a.numpy(), d.numpy())[0, 1]
    assert figures["faithfulness_correlation"][0] == pytest.approx(wanted, abs=1e-4)


def test_the_right_tone_says_what_its_removal_does() -> None:
    """The correlation of its mask is higher than that of the other tone's, which is negative: the
    class is surer without the other tone."""
    right = Attributions(0)(_mask(_case("full"), LOUD))
    wrong = Attributions(0)(_mask(_case("full"), SOFT))
    assert (right["faithfulness_correlation"] > 0.7).all()
    assert (wrong["faithfulness_correlation"] < 0).all()
    assert (right["infidelity"] < wrong["infidelity"]).all()
    assert np.isnan(faithfulness_correlation(np.ones((1, 3)), np.arange(3.0)[None])).all()


# --- relevances that add up -------------------------------------------------------------------


def test_shapley_values_add_up_to_the_clip() -> None:
    """By construction, but for what no component explains; were each of them twice as large, the
    gap would be what the clip has over silence, on top."""
    case = _case("shapley")
    own = Completeness()(case)["completeness_gap"]
    assert (own < 0.05).all()
    explain: Any = case.explain

    class Boastful:
        worth = explain.worth

        def relevances_of(self, *heard: Any) -> Tensor:
            twice: Tensor = 2 * explain.relevances_of(*heard)
            return twice

    gap = Completeness()(replace(case, explain=Boastful()))["completeness_gap"]
    # In silence all eleven classes are as likely.
    wanted = log_odds(case.heard.logits, case.classes, Task.SINGLE_LABEL) + math.log(BANDS - 1)
    np.testing.assert_allclose(gap, wanted.numpy(), atol=0.1)
    assert (wanted > 1).all()


def test_gradients_of_a_linear_logit_add_up() -> None:
    """A logit that is a sum of log magnitudes is the sum of their gradients' shares, exactly. A
    method of masks alone has no such figure."""
    pytest.importorskip("captum")
    subject = replace(tone_subject(), classifier=_Open())
    gap = Completeness()(_case("integrated-gradients", subject))["completeness_gap"]
    np.testing.assert_allclose(gap, 0, atol=1e-3)
    assert np.isnan(Completeness()(_case("full"))["completeness_gap"]).all()


# --- explained again --------------------------------------------------------------------------


def test_max_sensitivity_is_captums() -> None:
    """With the same noise."""
    captum = pytest.importorskip("captum.metrics")
    case = _case("saliency").take([0])
    probe = Stability(seed=1)
    x = case.heard.waveform
    noise = torch.cat([probe._noise(case, n) for n in range(10)])
    wanted = captum.sensitivity_max(
        lambda inputs: tuple(
            torch.cat([case.again(one.unsqueeze(0))[0] for one in sounds]) for sounds in inputs
        ),
        x,
        perturb_func=lambda inputs: tuple(
            one + 0.02 * x.norm() * noise[: len(one)] for one in inputs
        ),
        n_perturb_samples=10,
    )
    sensitivity = probe(case)["max_sensitivity"][0]
    assert sensitivity > 1e-4
    assert sensitivity == pytest.approx(wanted.item(), rel=1e-3)


def test_what_does_not_hang_on_the_sound_is_stable() -> None:
    """A mask of ones, whatever is heard; L2I's mask of a steady tone is the same softer, and
    rotated but for the seam."""
    full = Stability(0)(_case("full"))
    np.testing.assert_allclose(full["max_sensitivity"], 0)
    np.testing.assert_allclose(full["gain_change"], 0)
    np.testing.assert_allclose(full["shift_change"], 0, atol=1e-12)
    assert full["stability_10"].tolist() == [1, 1]
    own = Stability(0)(_case("l2i"))
    np.testing.assert_allclose(own["gain_change"], 0, atol=1e-5)
    np.testing.assert_allclose(own["shift_change"], 0, atol=1e-5)


def test_what_changes_with_the_moment_is_rotated_back() -> None:
    """A burst's mask follows it; one that stays where it was has nothing in common with it."""
    burst = torch.zeros(1, SAMPLES)
    burst[0, 160:480] = tone(4)[160:480]

    class Loudest:
        layers = ()
        linear = True

        def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
            frames = heard.size.square().sum(1, keepdim=True)
            return (frames > 0.1 * frames.amax(2, keepdim=True)).float().expand(heard.size.shape)

    class First(Loudest):
        def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
            mask = torch.zeros(heard.size.shape)
            mask[:, :, :20] = 1.0
            return mask

    base = _case("full", waveform=burst)
    for kind, change in ((Loudest, 0.0), (First, 1.0)):
        mask = kind()(base.heard, base.classes, (0,))
        case = replace(base, mask=mask, explain=kind())
        assert Stability(0)(case)["shift_change"][0] == pytest.approx(change, abs=1e-6)


def test_decisions_that_change_are_no_instability() -> None:
    """Where the class is no longer said, the mask owes nothing: not defined."""
    two = (tone(2) + 0.98 * tone(5)).unsqueeze(0)
    case = _case("l2i", waveform=two)

    class Fickle(ToneClassifier):
        def decisions(self, logits: Tensor) -> Tensor:
            return torch.zeros_like(logits, dtype=torch.bool)

    heard = replace(case.heard, classifier=Fickle())
    figures = Stability(0)(replace(case, heard=heard))
    assert all(np.isnan(values).all() for values in figures.values())


def test_another_class_has_another_explanation() -> None:
    """L2I's mask of the next class is the other tone's, which shares no bin. A mask of ones is the
    same for all."""
    own = Contrast()(_case("l2i"))
    np.testing.assert_allclose(own["contrast_next"], 1.0)
    np.testing.assert_allclose(own["contrast_absent"], 1.0)
    full = Contrast()(_case("full"))
    np.testing.assert_allclose(full["contrast_next"], 0.0, atol=1e-12)


class _Sure(ToneClassifier):
    """Both tones are there, and no other one is."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return (2 * (logits - 3)).sigmoid()


def test_nothing_is_kept_for_what_is_absent() -> None:
    """L2I's toy keeps what leaks into a band, at most; a mask of ones keeps all, and is closed for
    no class. The class drawn is the clip's own affair, and never the one explained; where no class
    is that improbable, nothing is said."""
    subject = replace(tone_subject(), classifier=_Sure())
    own, full = (Absent(0)(_case(method, subject)) for method in ("l2i", "full"))
    assert (own["absent_kept"] < 0.01).all() and own["absent_closed"].tolist() == [1, 1]
    np.testing.assert_allclose(full["absent_kept"], 1.0)
    assert full["absent_closed"].tolist() == [0, 0]
    case = _case("l2i", subject)
    asked: list[list[int]] = []
    for seed in range(40):
        one = Absent(seed)(case.take([1]))
        assert one["absent_kept"] == Absent(seed)(case)["absent_kept"][1]
        judge_absent(
            case.heard,
            case.classes,
            case.keys,
            seed,
            lambda rows, classes: asked.append(classes.tolist()) or case.mask[rows],  # type: ignore
            linear=False,
        )
    for row, (loud, soft) in enumerate(zip(LOUD, SOFT, strict=True)):
        assert {classes[row] for classes in asked} == set(range(BANDS)) - {loud, soft}

    class Unsure(ToneClassifier):
        def probabilities(self, logits: Tensor) -> Tensor:
            return torch.full_like(logits, 0.02)

    none = Absent(0)(_case("l2i", replace(tone_subject(), classifier=Unsure())))
    assert all(np.isnan(values).all() for values in none.values())


# --- a classifier that has forgotten all ------------------------------------------------------


class _Weighted(ToneClassifier):
    """Its logits are the toy's, times weights that can be forgotten."""

    def __init__(self) -> None:
        self.network = nn.Linear(BANDS, BANDS, bias=False)
        with torch.no_grad():
            self.network.weight.copy_(torch.eye(BANDS))

    def features_of(self, spectrum: Tensor, maps: Sequence[str] = ()) -> Any:
        features = super().features_of(spectrum, maps)
        return type(features)(self.network(features.logits).detach(), features.maps)


class _ByWeights:
    """A method that reads the classifier's weights, and nothing else."""

    parts = ()
    layers = ()
    linear = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network = subject.classifier.network  # type: ignore[attr-defined]

    def gates_of(self, heard: Heard, classes: Tensor) -> Tensor:
        return self.network.weight[classes].detach().unsqueeze(2)

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        gates = self.gates_of(heard, classes).abs().clamp(0, 1)
        return gates.repeat_interleave(3, dim=1).expand(heard.size.shape).clone()


def _weighted() -> Subject:
    return replace(tone_subject(), classifier=_Weighted())


def test_shuffled_weights_are_the_same_weights() -> None:
    """In another order, that of the seed; the classifier itself is as it was; a black box has none
    to shuffle."""
    clf = _Weighted()
    weights = [shuffled(clf, seed).network.weight for seed in (0, 0, 1)]  # type: ignore
    assert torch.equal(clf.network.weight, torch.eye(BANDS))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    for w in weights:
        assert torch.equal(w.flatten().sort().values, torch.eye(BANDS).flatten().sort().values)
        assert not torch.equal(w, clf.network.weight)
    assert shuffled(ToneClassifier(), 0) is None


def test_a_method_that_reads_no_weight_is_found_out() -> None:
    """L2I's toy hears the spectrogram and its own head alone: the masks are the same, whatever the
    classifier has forgotten, while another clip's, and another class's, have another band. One
    band of eleven against another: ranks correlate by -1/10, on paper."""
    figures = Randomised("l2i", _weighted(), TOLD)(_case("l2i", _weighted()))
    np.testing.assert_allclose(figures["randomised"], 1.0)
    np.testing.assert_allclose(figures["randomised_ssim"], 1.0)
    np.testing.assert_allclose(figures["randomised_control"], -0.1, atol=1e-6)
    np.testing.assert_allclose(figures["randomised_class"], -0.1, atol=1e-6)
    assert "randomised_gates" not in figures


def test_a_method_that_reads_the_weights_forgets_with_them() -> None:
    """Its masks fall to the control's level or to no order at all; and so do its gates, which are
    asked for since it has them."""
    word = f"{__name__}:_ByWeights"
    subject = _weighted()
    probe = Randomised(word, subject, TOLD)
    assert "randomised_gates" in probe.names
    figures = probe(_case(word, subject))
    assert (figures["randomised"] < 0.7).all()
    np.testing.assert_allclose(figures["randomised_control"], -0.1, atol=1e-6)
    np.testing.assert_allclose(figures["randomised_gates_class"], -0.1, atol=1e-6)
    assert (figures["randomised_gates"] < 0.7).all()


def test_a_black_box_cannot_forget() -> None:
    """It is not said to be read, nor not to be."""
    figures = Randomised("full", tone_subject(), TOLD)(_case("full"))
    assert all(np.isnan(values).all() for values in figures.values())


def test_ssim_of_pictures_on_paper() -> None:
    """1 of itself; of a picture and its negative below 0, of noise and other noise near 0."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 40, 40, generator=g)
    assert ssim(a, a).item() == pytest.approx(1.0)
    assert ssim(a, 1 - a).item() < -0.5
    assert abs(ssim(a, b).item()) < 0.1


def test_ranks_and_cosines_at_the_ends() -> None:
    """Equal values share a rank, as in scipy; masks of nothing are alike."""
    from scipy.stats import spearmanr

    g = torch.Generator().manual_seed(1)
    a, b = ((4 * torch.rand(1, 50, generator=g)).floor() for _ in range(2))
    wanted = spearmanr(a[0], b[0]).statistic
    assert rank_correlation(a, b)[0] == pytest.approx(wanted, abs=1e-12)
    zero = torch.zeros(1, 2, 2)
    assert cosine_distance(zero, zero).item() == 0
    assert cosine_distance(zero, zero + 1).item() == 1


# --- another classifier, another protocol -----------------------------------------------------


def test_a_classifier_that_was_not_in_the_loop() -> None:
    """The same classifier has the same figures, by whatever order of classes; one that is deaf to
    the explained bands never agrees, and nothing is said of it."""
    case = _case("l2i")
    own = judge_masks(case.heard, case.classes, case.mask, linear=False)

    class Turned(ToneClassifier):
        classes = tuple(reversed(ToneClassifier.classes))

        def features_of(self, spectrum: Tensor, maps: Sequence[str] = ()) -> Any:
            features = super().features_of(spectrum, maps)
            return type(features)(features.logits.flip(1), features.maps)

    for other in (ToneClassifier(), Turned()):
        figures = Evaluator(other, case.heard.classifier)(case)
        assert figures["agreed"].tolist() == [1, 1]
        np.testing.assert_allclose(figures["other_ff"], own["ff_mean"], atol=1e-6)
        np.testing.assert_allclose(figures["other_fid_in"], own["fid_in"])
        assert mean_scores(figures, ["transfer"], 0)[0]["transfer"] == pytest.approx(1.0)

    class Deaf(ToneClassifier):
        def features_of(self, spectrum: Tensor, maps: Sequence[str] = ()) -> Any:
            features = super().features_of(spectrum, maps)
            logits = features.logits.clone()
            logits[:, LOUD] = 0.0
            return type(features)(logits, features.maps)

    figures = Evaluator(Deaf(), case.heard.classifier)(case)
    assert figures["agreed"].tolist() == [0, 0] and np.isnan(figures["other_ff"]).all()


def test_a_classifier_at_home_with_masks() -> None:
    """Fine-tuned, it says of masked clips more of what it says of the whole, which is what it
    learns; the same seed gives the same one, and the classifier is as it was."""
    settings = SpectrogramSettings(8000, n_fft=256, hop_length=64)
    torch.manual_seed(0)
    network = VGG(3, head=8, width=0.25).eval()
    clf = FrozenClassifier(network, settings, ["a", "b", "c"], Task.SINGLE_LABEL)
    x = torch.randn(6, 8200, generator=torch.Generator().manual_seed(1))
    before = clf.logits(x)
    tuned = [
        tuned_on_masks(
            clf,
            deepcopy(network),
            x.numpy(),
            np.arange(6),
            seed=0,
            progress=Progress(quiet=True),
            epochs=10,
        )
        for _ in range(2)
    ]
    assert torch.equal(clf.logits(x), before)
    masked = torch.cat([_masked(clf, x, np.random.default_rng(n)) for n in range(4)])
    target = before.repeat(4, 1)
    # What cannot be had is the entropy of what is asked for.
    least = fidelity_loss(target, target, clf.task).item()
    answers = (c.logits(masked) for c in (clf, *tuned))
    losses = [fidelity_loss(target, answer, clf.task).item() - least for answer in answers]
    assert losses[1] == losses[2] < 0.7 * losses[0]


def test_an_evaluator_of_another_kind() -> None:
    """Another rate, or other classes: one sentence."""

    class Slow(ToneClassifier):
        sample_rate = 8000

    class Foreign(ToneClassifier):
        classes = ("a",) * BANDS

    for kind, sentence in ((Slow, "8000 Hz"), (Foreign, "no class in common")):
        with pytest.raises(UsageError, match=sentence):
            Evaluator(kind(), ToneClassifier())


def test_turning_down_counts_as_removal_of_spectrograms_alone() -> None:
    """Half of everything: as audio explanation and removal are the clip again, brought to full
    scale; the spectrogram's classifier hears logits of log(1 + A / 2), which are lower."""
    subject = replace(tone_subject(), classifier=_Open())
    case = _case("full", subject)
    case = replace(case, mask=0.5 * case.mask, explain=make_method("gates", subject, TOLD))
    assert case.explain.linear
    audio = judge_masks(case.heard, case.classes, case.mask, linear=True)
    np.testing.assert_allclose(audio["ff_mean"], 0, atol=1e-5)
    figures = SpectrogramProtocol()(case)
    logs = (case.heard.size / 2).log1p().unflatten(1, (BANDS, 3)).sum(2).mean(2).softmax(1)
    y = case.heard.logits.softmax(1)
    fall = (y - logs).gather(1, case.classes.unsqueeze(1))[:, 0].numpy()
    np.testing.assert_allclose(figures["spectrogram_ff_mean"], fall, atol=1e-6)
    assert (fall > 0.01).all()
    assert figures["spectrogram_fid_in"].tolist() == [1, 1]
    # A classifier that has no such input has no such figure.
    assert all(np.isnan(v).all() for v in SpectrogramProtocol()(_case("full")).values())


# --- masks without sound ----------------------------------------------------------------------


def test_a_mask_that_writes_the_class_is_read() -> None:
    """Clips of all classes' tones at once, in other levels: a mask of a tile that stands for the
    class is read in every clip, and that of ones in none; the control has heard the same clips in
    both cases, and the same for masks of one size."""
    g = torch.Generator().manual_seed(0)
    sounds = torch.stack(
        [sum(tone(b, float(torch.rand(1, generator=g))) for b in range(BANDS)) for _ in range(12)]
    )
    classes = torch.arange(12) % 3
    case = _case("full", waveform=sounds)
    case = replace(case, classes=classes)
    groups = np.array(case.ids)
    written = torch.zeros_like(case.mask)
    for row, c in enumerate(classes.tolist()):
        written[row, :, 30 * c : 30 * c + 20] = 1.0
    figures = []
    for mask in (written, torch.ones_like(case.mask)):
        probe = Encoding()
        assert probe(replace(case, mask=mask).take(range(8))) == {}
        probe(replace(case, mask=mask).take(range(8, 12)))
        figures.append(probe.finish(groups))
    assert figures[0]["encoded"].tolist() == [1.0] * 12
    assert figures[1]["encoded"].tolist() == [0.0] * 12
    assert figures[0]["encoded_control"].mean() < 0.8
    assert np.isnan(read_from(np.ones((2, 1)), np.array([0, 1]), np.array(["a", "a"]))).all()


# --- asked along the way ----------------------------------------------------------------------


def test_some_clips_alone() -> None:
    """The others have no figure, and those that are asked have theirs."""
    case = _case("l2i")
    figures = OnSome(Contrast(), frozenset({"clip 1"}))(case)
    assert np.isnan(figures["contrast_next"]).tolist() == [True, False]
    none = OnSome(Contrast(), frozenset())(case)
    assert np.isnan(none["contrast_next"]).all()


def test_scenes_are_probed() -> None:
    """A row for each, with the probes' columns; of silence nothing is said."""
    parts = [tone(2).numpy(), np.zeros(SAMPLES, np.float32)]
    scenes = [Scene(f"s{i}", i, (Part(x, frozenset({2})),)) for i, x in enumerate(parts)]
    seconds: list[float] = []
    rows = judge_scenes(
        tone_subject(),
        "l2i",
        TOLD,
        scenes,
        predicted,
        probes=[Curves(), Contrast()],
        on_seconds=seconds.append,
    )
    for name in (*Curves.names, *Contrast.names):
        assert math.isnan(rows[name][1]) and not math.isnan(rows[name][0]), name
    assert len(seconds) == 2 and all(s >= 0 for s in seconds)

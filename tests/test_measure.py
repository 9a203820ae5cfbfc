"""Evaluation on a toy whose figures are known on paper, and where others' figures went wrong.

Clips are two tones: the loud one is the class, and its component alone speaks for it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from l2i.config import Explanation
from l2i.explanation import MethodSettings, split_audio
from l2i.recipes.measuring.figures import document
from l2i.recipes.measuring.judging import FF_SHARE, MASK_SCORES, judge_masks, mean_scores
from l2i.recipes.measuring.measure import Evaluation, evaluate_clips, finish_evaluation
from l2i.recipes.measuring.truth import Part, Scene, judge_scenes, predicted, truth_scores
from l2i.run.progress import Progress
from l2i.types import Interpretation, Task
from tests import reference
from tests.toys import BANDS, SAMPLES, BandInterpreter, tone, tone_explainer, tone_subject

QUIET = Progress(quiet=True)
LOUD = [2, 5, 8, 1, 9, 4]
SOFT = [5, 2, 1, 8, 4, 9]
LABELS = np.eye(BANDS, dtype=np.bool_)


def _clips(soft: float = 0.5) -> NDArray[np.float32]:
    clips = [tone(a) + tone(b, soft) for a, b in zip(LOUD, SOFT, strict=True)]
    return torch.stack(clips).numpy()


def _evaluate(
    waves: NDArray[np.float32], settings: Explanation | None = None, **more: object
) -> Evaluation:
    explainer = more.pop("explainer", None) or tone_explainer()
    rows = np.asarray(more.pop("rows", np.arange(len(waves))))
    labels = np.asarray(more.pop("labels", LABELS[LOUD]))
    return evaluate_clips(
        explainer,  # type: ignore[arg-type]
        waves,
        rows,
        labels,
        settings or Explanation(thresholds=[0.1, 0.9], random_draws=4),
        seed=0,
        progress=QUIET,
    )


# --- known on paper ---------------------------------------------------------------------------


def test_the_figures_of_a_tone_detector() -> None:
    """The explanation is the loud tone and nothing else: fidelity is 1, the classifier decides
    the same by it alone, removal takes its whole logit, and the mask has three bins of 33."""
    e = _evaluate(_clips())
    s = e.scores
    for name in ("accuracy", "fidelity_top1", "fidelity_top3", "fidelity_top5", "fid_in"):
        assert s[name] == 1.0, name
    assert s["components"] == s["components_removed"] == 1.0
    own = e.logits[np.arange(6), LOUD]
    assert s["faithfulness_logit"] == pytest.approx(float(np.median(own)), rel=0.05)
    assert s["sparseness"] == pytest.approx(1 - 1 / BANDS, abs=1e-5)
    frames = 1 + SAMPLES // 16
    assert s["complexity"] == pytest.approx(math.log(3 * frames), abs=1e-5)
    # Without the soft tone beside it, the classifier is surer: every clip counts, none loses.
    assert s["average_increase"] == 100.0 and s["average_drop"] == 0.0
    assert s["average_gain"] > 0


def test_faithfulness_of_a_tone_detector_is_one() -> None:
    """A classifier that is sure: without the loud tone it is as sure of the soft one, so that
    removal takes all of the class's probability, and random removal (the median) nothing."""
    explainer = tone_explainer()
    heard = explainer.classifier.features_of  # type: ignore[attr-defined]

    def features(spectrum: torch.Tensor, maps: object = ()) -> object:
        clips = heard(spectrum, maps)  # type: ignore[arg-type]
        return type(clips)(100 * clips.logits, clips.maps)

    explainer.classifier.features_of = features  # type: ignore[attr-defined]
    e = _evaluate(_clips(), explainer=explainer)
    assert e.scores["faithfulness_probability"] == pytest.approx(1.0, abs=1e-6)
    assert e.scores["ff_mean"] == pytest.approx(1.0, abs=1e-6)
    assert e.scores["random_probability"] == pytest.approx(0.0, abs=1e-6)


def test_falls_are_the_papers() -> None:
    """For logits and for probabilities, for the classifier's class, as the loops have it."""
    waves, explainer = _clips(), tone_explainer()
    e = _evaluate(waves, explainer=explainer)
    explained, *_ = explainer.explain(torch.from_numpy(waves), LOUD)
    after = explainer.classifier.logits(explained.removal)
    probability, logit = reference.faithfulness(e.logits.tolist(), after.tolist())
    np.testing.assert_allclose(e.pairs["fall_probability"], probability, rtol=1e-4)
    np.testing.assert_allclose(e.pairs["fall_logit"], logit, rtol=1e-4)


def test_random_removal_of_one_of_eleven_rarely_hits() -> None:
    """Random removal takes as many components as L2I does, and other ones."""
    e = _evaluate(np.repeat(_clips(), 8, axis=0), labels=np.repeat(LABELS[LOUD], 8, axis=0))
    hit = e.pairs["random_logit"] > 0.1 * e.pairs["fall_logit"]
    # With 4 draws of one component in eleven, 1 - (10/11)^4 = 32 % of the clips have a hit.
    assert 0.1 < hit.mean() < 0.55
    assert e.scores["random_logit"] < 0.1 * e.scores["faithfulness_logit"]


def test_an_interpreter_that_is_wrong_is_told_by_fidelity_and_removal() -> None:
    """Its head takes the next band's class: no clip agrees, and removal takes nothing."""
    explainer = tone_explainer(torch.eye(BANDS).roll(1, dims=0))
    e = _evaluate(_clips(soft=0.0), explainer=explainer)
    assert e.scores["fidelity_top1"] == 0.0
    assert e.scores["accuracy"] == 1.0
    assert abs(e.scores["faithfulness_logit"]) < 0.1 * float(e.logits.max())


def test_what_is_true_by_definition_is_no_figure() -> None:
    """Among eleven bands the first five say something; of five classes they would not."""
    logits = np.eye(5, dtype=np.float32)
    e = Evaluation({}, {}, logits, logits, None, logits > 0, Task.SINGLE_LABEL)
    assert "fidelity_top5" in _evaluate(_clips()).scores
    scores = finish_evaluation(e, list("abcde"), [], 0).scores
    assert set(scores) == {"fidelity_top1", "fidelity_top3"}


def test_the_curve_over_tau() -> None:
    """A higher tau removes no more; the run's own tau is on the curve, with the run's figures.

    Two components speak for the class: theirs and, at 0.4 of its relevance, the soft one's.
    """
    theta = torch.eye(BANDS)
    for a, b in zip(LOUD, SOFT, strict=True):
        theta[a, b] = 0.8
    e = _evaluate(_clips(), explainer=tone_explainer(theta))
    assert [line["threshold"] for line in e.curve] == [0.1, 0.3, 0.9]
    assert [line["components_removed"] for line in e.curve] == [2.0, 2.0, 1.0]
    own = e.curve[1]
    for name, value in own.items():
        assert name == "threshold" or e.scores[name] == value
    assert document(e)["faithfulness"] == e.curve


def test_intervals_hold_their_figures() -> None:
    """Every interval is of a figure that there is, and has it within."""
    e = _evaluate(_clips())
    assert {"accuracy", "fidelity_top1", "faithfulness_probability", "fid_in"} <= set(e.intervals)
    for name, (low, high) in e.intervals.items():
        assert low - 1e-9 <= e.scores[name] <= high + 1e-9, name


# --- invariances ------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.01, -1.0, -30.0])
def test_gain_and_polarity_change_no_figure(factor: float) -> None:
    """All clips softer, louder, upside down: the same figures."""
    first, other = _evaluate(_clips()), _evaluate(factor * _clips())
    assert other.scores == pytest.approx(first.scores, abs=1e-4)


def test_order_and_batches_change_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards, and three at a time: the same figures, clip by clip; random removal too, since
    it hangs on the clip."""
    waves = _clips()
    first = _evaluate(waves)
    back = np.arange(len(waves))[::-1]
    monkeypatch.setattr("l2i.recipes.measuring.measure._BATCH", 3)
    other = _evaluate(waves, rows=back, labels=LABELS[LOUD][back])
    assert other.scores == pytest.approx(first.scores, abs=1e-5)
    for name, values in first.pairs.items():
        if name not in ("clip", "class"):
            np.testing.assert_allclose(other.pairs[name][back], values, atol=1e-4, err_msg=name)


# --- where others went wrong ------------------------------------------------------------------


def test_silence_is_explained_by_nothing_and_spoils_no_figure() -> None:
    """A silent clip has no component, no fall, and no figure of an explanation; the others' are
    what they are without it."""
    waves = np.concatenate([_clips(), np.zeros((1, SAMPLES), np.float32)])
    e = _evaluate(waves, labels=LABELS[[*LOUD, 0]])
    assert all(math.isfinite(v) for v in e.scores.values())
    assert e.pairs["components"][-1] == 0 and e.pairs["fall_logit"][-1] == 0
    alone = _evaluate(_clips())
    for name in ("explanation_probability", "removal_probability", *MASK_SCORES):
        assert math.isnan(e.pairs[name][-1]), name
        np.testing.assert_allclose(e.pairs[name][:-1], alone.pairs[name], atol=1e-4, err_msg=name)
    for name in MASK_SCORES:
        assert e.scores[name] == pytest.approx(alone.scores[name], abs=1e-4), name


def test_fidelity_asks_the_classifier_and_not_the_labels() -> None:
    """With every label wrong, accuracy is 0, and fidelity is what it was."""
    e = _evaluate(_clips(), labels=LABELS[SOFT])
    assert e.scores["accuracy"] == 0.0
    assert e.scores["fidelity_top1"] == 1.0
    assert {n: e.scores[n] for n in ("fid_in", "average_drop", "faithfulness_logit")} == {
        n: _evaluate(_clips()).scores[n] for n in ("fid_in", "average_drop", "faithfulness_logit")
    }


def test_softmax_is_taken_once() -> None:
    """What the figures call a probability is the softmax of the logits, of clip, explanation
    and removal: with a full mask the explanation's is the clip's, and the removal's is a guess."""
    explainer = tone_explainer()
    heard = explainer.hear(torch.from_numpy(_clips()))
    logits, classes = heard.logits, torch.tensor(LOUD)
    scores = judge_masks(heard, classes, torch.ones(heard.size.shape), linear=False)
    wanted = logits.softmax(1)[torch.arange(6), classes].double().numpy()
    np.testing.assert_allclose(scores["probability"], wanted, rtol=1e-6)
    np.testing.assert_allclose(scores["explanation_probability"], wanted, atol=1e-4)
    np.testing.assert_allclose(scores["removal_probability"], 1 / BANDS, atol=1e-6)
    assert np.all(scores["average_drop"] < 0.1)


def test_a_mask_of_ones_is_seen_through() -> None:
    """It keeps all energy and the whole mask; it is no more convincing than the clip by more than
    rounding, and its FF is short of the clip's probability by a guess alone."""
    heard = tone_explainer().hear(torch.from_numpy(_clips()))
    judged = judge_masks(heard, torch.tensor(LOUD), torch.ones(heard.size.shape), linear=True)
    np.testing.assert_allclose(judged["kept"], 1.0)
    np.testing.assert_allclose(judged["mean_mask"], 1.0)
    assert not judged["average_increase_margin"].any()
    scores, _ = mean_scores(judged, [FF_SHARE], 0)
    y = judged["probability"].mean()
    assert scores[FF_SHARE] == pytest.approx((y - 1 / BANDS) / y, abs=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_kept_is_the_energy_of_the_sound(linear: bool) -> None:
    """Two tones 6.02 dB apart: the loud one's mask keeps 1 / 1.25 of the energy and three bins of
    33; half of a mask keeps the energy that the half's sound has."""
    heard = tone_explainer().hear(torch.from_numpy(_clips()))
    mask = torch.zeros(heard.size.shape)
    for row, band in enumerate(LOUD):
        mask[row, 3 * band : 3 * band + 3] = 1.0
    scores = judge_masks(heard, torch.tensor(LOUD), mask, linear=linear)
    np.testing.assert_allclose(scores["kept"], 0.8, atol=0.01)
    np.testing.assert_allclose(scores["mean_mask"], 3 / 33, rtol=1e-6)
    half = 0.5 * torch.ones(heard.size.shape)
    scores = judge_masks(heard, torch.tensor(LOUD), half, linear=linear)
    sound, _ = split_audio(heard.spectrum, half, heard.domain, heard.n_samples, linear=linear)
    whole, _ = split_audio(heard.spectrum, torch.ones_like(half), heard.domain, heard.n_samples)
    ratio = sound.square().sum(1) / whole.square().sum(1)
    np.testing.assert_allclose(scores["kept"], ratio.numpy(), atol=0.01)


def test_removal_uses_the_pooling_that_the_interpreter_has() -> None:
    """An interpreter that pools by the maximum is judged by the maximum: a click of the soft
    tone, the loudest for a moment, is what it says matters."""

    class MaxInterpreter(BandInterpreter):
        def forward(
            self,
            maps: tuple[torch.Tensor, ...],
            frames: int,
            audible: torch.Tensor | None = None,
        ) -> Interpretation:
            output = super().forward(maps, frames, audible)
            pooled = output.activations.amax(dim=2)
            return Interpretation(output.activations, pooled, pooled @ self.theta.T)

    burst = torch.zeros(SAMPLES)
    burst[700:900] = 1.0
    waves = (0.4 * tone(2) + burst * tone(5)).unsqueeze(0).numpy()
    theta = torch.zeros(BANDS, BANDS)
    theta[2, 2] = theta[2, 5] = 1.0
    chosen = {}
    for network in (BandInterpreter, MaxInterpreter):
        toy = tone_explainer()
        explainer = replace(toy, interpreter=network(theta))
        e = _evaluate(
            waves,
            Explanation(thresholds=[], faithfulness_threshold=0.9),
            explainer=explainer,
            labels=LABELS[[2]],
        )
        assert e.pairs["class"].tolist() == [2]
        chosen[network.__name__] = float(e.pairs["fall_logit"][0])
    # By the mean the steady tone matters, and its removal takes the logit; by the maximum the
    # burst does, and its removal leaves it.
    assert chosen["BandInterpreter"] > 0.9 * float(e.logits[0, 2])
    assert chosen["MaxInterpreter"] < 0.5 * float(e.logits[0, 2])


def test_only_what_the_figures_declare() -> None:
    """A removal that rose instead of fell is a negative figure, not hidden by an absolute."""
    theta = -torch.eye(BANDS)
    for a, b in zip(LOUD, SOFT, strict=True):
        theta[a, b] = 1.0  # Says that the other tone is why.
    e = _evaluate(_clips(), explainer=tone_explainer(theta))
    assert e.scores["faithfulness_probability"] < 0


# --- scenes whose parts are known -------------------------------------------------------------


def _scene(level: float = 0.5) -> Scene:
    loud, soft = tone(2).numpy(), tone(5, level).numpy()
    return Scene("two", 0, (Part(loud, frozenset({2})), Part(soft, frozenset({5}))))


def test_an_exact_mask_separates_the_tones() -> None:
    """The mixture's SI-SDR is the level between two tones that are orthogonal, 6.02 dB; the
    explanation has the right part as it was, and of the other what leaks at the clip's ends."""
    rows = judge_scenes(tone_subject(), "l2i", MethodSettings(), [_scene()], predicted)
    scores, _ = truth_scores(rows, 0)
    assert rows["class"].tolist() == ["tone-2"] and rows["present"].tolist() == [True]
    assert scores["si_sdr"] > 25
    mixture = scores["si_sdr"] - scores["si_sdr_improvement"]
    assert mixture == pytest.approx(20 * math.log10(2), abs=0.05)
    assert scores["energy_share"] > 0.99
    assert scores["class_left"] == pytest.approx(0, abs=0.1)
    assert scores["other_left"] < -25


def test_an_explanation_points_at_the_moment_of_its_class() -> None:
    """A tone in the first half, another in the second: L2I's mask of the first is loudest there and
    has its frames; the full mask has all frames, and is loudest where the louder tone is."""
    first, second = tone(2), 0.5 * tone(5)
    first[SAMPLES // 2 :] = 0
    second[: SAMPLES // 2] = 0
    scene = Scene(
        "in turn", 0, (Part(first.numpy(), frozenset({2})), Part(second.numpy(), frozenset({5})))
    )
    by_name = {}
    for method in ("l2i", "full"):
        rows = judge_scenes(tone_subject(), method, MethodSettings(), [scene], lambda *_: [2, 5])
        by_name[method] = rows["time_iou"], rows["pointing"].tolist()
        assert rows["frame_f1"].min() > (0.9 if method == "l2i" else 0.0)
        assert rows["frame_auc"].min() > (0.99 if method == "l2i" else 0.0)
        if method == "full":  # The louder tone's frames come first: all of its own, and no other.
            np.testing.assert_allclose(rows["frame_f1"], [1, 0], atol=0.1)
            np.testing.assert_allclose(rows["frame_auc"], [1, 0], atol=0.05)
    # At each end of a tone some frames of 101 hear both.
    assert by_name["l2i"][0].min() > 0.85 and by_name["l2i"][1] == [1, 1]
    np.testing.assert_allclose(by_name["full"][0], 0.5, atol=0.05)
    assert by_name["full"][1] == [1, 0]


def test_sir_and_sar_tell_the_leak_from_the_damage() -> None:
    """The full mask leaves the right part as it is, and the other 6.02 dB below it."""
    rows = judge_scenes(tone_subject(), "full", MethodSettings(), [_scene()], predicted)
    assert rows["sar"][0] > 60
    assert rows["sir"][0] == pytest.approx(20 * math.log10(2), abs=0.05)


def test_a_full_mask_improves_nothing() -> None:
    """It is the mixture: no improvement, both parts whole, the share of energy 1 / (1 + 0.25)."""
    rows = judge_scenes(tone_subject(), "full", MethodSettings(), [_scene()], predicted)
    scores, _ = truth_scores(rows, 0)
    assert scores["si_sdr_improvement"] == pytest.approx(0, abs=1e-3)
    assert scores["class_left"] == pytest.approx(0, abs=1e-3)
    assert scores["other_left"] == pytest.approx(0, abs=1e-3)
    assert scores["energy_share"] == pytest.approx(0.8, abs=0.005)


def test_a_class_that_no_part_carries_has_no_truth() -> None:
    """It is explained, and counted as not there; separation is not defined, the rest is."""
    rows = judge_scenes(
        tone_subject(), "full", MethodSettings(), [_scene()], lambda scene, decisions: [2, 7]
    )
    assert rows["present"].tolist() == [True, False]
    assert np.isnan(rows["si_sdr"]).tolist() == [False, True]
    assert not np.isnan(rows["fid_in"]).any()
    scores, _ = truth_scores(rows, 0)
    assert scores["present"] == 0.5 and math.isfinite(scores["si_sdr"])


def test_what_the_explanation_keeps_is_the_sum_of_what_it_keeps_of_the_parts() -> None:
    """The sounds kept of a pair are those of the method: their sum is the explanation itself."""
    explainer = tone_explainer()
    held: dict[str, torch.Tensor] = {}
    judge_scenes(
        tone_subject(),
        "l2i",
        MethodSettings(),
        [_scene()],
        predicted,
        keep_sounds=lambda scene, c, sounds: held.update(sounds),
    )
    e, _, _ = explainer.explain(torch.from_numpy(_scene().sound()).unsqueeze(0))
    torch.testing.assert_close(held["explanation"], e.audio[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        held["class_part"] + held["other_part"], held["mixture"], atol=1e-6, rtol=0
    )


def test_gain_of_a_scene_changes_no_figure() -> None:
    """Ten times softer, parts and all: the same figures."""
    one = _scene()
    soft = Scene("two", 0, tuple(Part(-0.1 * p.sound, p.classes) for p in one.parts))
    rows = [
        judge_scenes(tone_subject(), "l2i", MethodSettings(), [s], predicted) for s in (one, soft)
    ]
    for name in rows[0]:
        if rows[0][name].dtype.kind == "f":
            np.testing.assert_allclose(rows[0][name], rows[1][name], atol=1e-2, err_msg=name)

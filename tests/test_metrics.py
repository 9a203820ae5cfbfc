"""`l2i.metrics` on cases whose answers are known on paper."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from l2i.dsp.spectrogram import linear_gain
from l2i.metrics import MAIN, METRICS, PUBLISHED, SHORT, faithfulness, short, statistics
from l2i.metrics.classification import accuracy, auprc, best_thresholds, confusion, max_f1
from l2i.metrics.complexity import complexity, sparseness
from l2i.metrics.faithfulness import summary
from l2i.metrics.fidelity import agreement, rank_of_class, topk_fidelity
from l2i.metrics.localisation import frame_auc, frame_f1, pointing, time_iou
from l2i.metrics.separation import energy_share, level_db, sar, si_sdr, sir
from l2i.metrics.statistics import bootstrap_interval, ratio_of_means
from tests import reference
from tests.toys import tone, tone_explainer

seeded = settings(derandomize=True, deadline=None, max_examples=80, database=None)
# Few distinct values, so that there are many ties.
scores_and_labels = st.lists(
    st.tuples(st.integers(0, 6).map(lambda n: n / 6), st.booleans()), min_size=1, max_size=20
)


# --- what the figures are ---------------------------------------------------------------------


def test_every_metric_says_what_it_is() -> None:
    """A title of its own, a unit, and which way is better, where either is."""
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    for name, metric in METRICS.items():
        assert metric.unit
        assert metric.better in ("higher", "lower", "")
        # Baselines and controls are what others are held against: no way is better.
        held = name.startswith(("random_", "roar_control")) or name.endswith("_control")
        held = held or name in ("agreed", "roar_at_0")
        assert (metric.better == "") == held, name


def test_a_figure_is_called_the_same_everywhere() -> None:
    """The words of its name in the store are in its title, or stand there as the short name of
    the figure that it ends on; the short name is of the title's words, and nobody else's."""
    assert tuple(name for name in SHORT if name in MAIN) == MAIN
    assert len(set(SHORT.values())) == len(SHORT)
    for name, metric in METRICS.items():
        title = metric.title.casefold()
        words = name.removeprefix(PUBLISHED).split("_")
        for end in range(len(words)):
            tail = "_".join(words[end:])
            if end and tail in SHORT and SHORT[tail].casefold() in title:
                words = words[:end]
                break
        spelt = {"top1": "top-1", "top3": "top-3", "top5": "top-5", "at": ""}
        for word in words:
            assert spelt.get(word, word) in re.sub(r"[^a-z0-9 -]", "", title), (name, word)
        if name in SHORT:
            for word in re.findall(r"[a-z0-9-]+", short(name).casefold()):
                assert word in title, (name, word)
    assert short("published_fid_in") == "published Fid-In"


# --- classification ---------------------------------------------------------------------------


def test_accuracy_is_the_share_of_clips_whose_best_class_is_a_label() -> None:
    """Two of three, on paper."""
    scores = np.array([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])
    labels = np.array([[True, False], [True, False], [True, False]])
    assert accuracy(scores, labels) == pytest.approx(2 / 3)


@seeded
@given(st.integers(0, 2**31), st.integers(1, 10), st.integers(1, 8))
def test_accuracy_of_multi_label_clips_is_at_most_one(seed: int, n: int, c: int) -> None:
    """However many labels a clip has: not the count of hits over clips, which reaches 800 %."""
    g = np.random.default_rng(seed)
    scores, labels = g.random((n, c)), g.random((n, c)) > 0.3
    assert 0.0 <= accuracy(scores, labels) <= 1.0
    assert accuracy(scores, np.ones((n, c), bool)) == 1.0


@seeded
@given(scores_and_labels)
def test_average_precision_is_exact(pairs: list[tuple[float, bool]]) -> None:
    """It agrees with the sum over every score as a threshold, ties included."""
    scores, labels = zip(*pairs, strict=True)
    assume(any(labels))
    macro, micro, per_class = auprc(np.array(scores)[:, None], np.array(labels)[:, None])
    want = reference.average_precision(scores, labels)
    assert macro == pytest.approx(want)
    assert micro == pytest.approx(want)
    assert per_class == {0: pytest.approx(want)}


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_curves_are_those_of_scikit_learn(digits: int, kind: type[np.floating]) -> None:
    """To the last digit, with ties and without: figures that were published stay."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    from l2i.metrics.classification import _curve

    g = np.random.default_rng(digits)
    for n in g.integers(1, 300, 40):
        scores, labels = g.random(n).round(digits).astype(kind), g.random(n) > g.random()
        labels[0] = True
        precision, recall, thresholds = precision_recall_curve(labels, scores)
        wanted = precision[:-1], recall[:-1], thresholds
        for ours, theirs in zip(_curve(scores, labels), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert auprc(scores[:, None], labels[:, None])[1] == average_precision_score(labels, scores)


def test_scores_that_are_no_numbers_are_refused() -> None:
    """They have no order."""
    with pytest.raises(ValueError, match="NaN"):
        max_f1(np.array([[0.1], [np.nan]]), np.array([[True], [False]]))


def test_average_precision_of_a_perfect_order_is_one_where_eleven_thresholds_see_a_half() -> None:
    """All scores lie below 0.1, in perfect order: average precision is 1. Eleven fixed thresholds
    from 0 to 1 see only the first of them, 0, where half of the clips are positive."""
    scores = np.linspace(0.01, 0.09, 40)
    labels = scores > 0.05
    assert auprc(scores[:, None], labels[:, None])[0] == pytest.approx(1.0)
    eleven = [n / 10 for n in range(10, -1, -1)]
    coarse = reference.average_precision(scores.tolist(), labels.tolist(), eleven)
    assert coarse == pytest.approx(0.5)


def test_a_class_without_a_positive_is_left_out() -> None:
    """Macro is over the two classes that have one, micro too, and the third is not in the list:
    as zero it would pull the mean down, as one it would lift it."""
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    scores = np.array([[0.9, 0.2, 0.99], [0.1, 0.3, 0.99], [0.2, 0.4, 0.99]])
    macro, micro, per_class = auprc(scores, labels)
    assert per_class == {0: pytest.approx(1.0), 1: pytest.approx(0.5)}
    assert macro == pytest.approx(0.75)
    want = reference.average_precision(
        scores[:, :2].ravel().tolist(), labels[:, :2].ravel().tolist()
    )
    assert micro == pytest.approx(want)


def test_without_any_positive_nothing_is_defined() -> None:
    """NaN, and not zero or one; thresholds fall back to a half."""
    scores, labels = np.full((3, 2), 0.5), np.zeros((3, 2), bool)
    macro, micro, per_class = auprc(scores, labels)
    assert math.isnan(macro) and math.isnan(micro) and per_class == {}
    assert math.isnan(max_f1(scores, labels))
    assert best_thresholds(scores, labels) == [0.5, 0.5]


@seeded
@given(scores_and_labels)
def test_greatest_f1_is_the_greatest_over_all_thresholds(pairs: list[tuple[float, bool]]) -> None:
    """It agrees with trying every score; and the threshold that is found reaches it, under the
    rule of decisions: from the threshold on."""
    scores, labels = zip(*pairs, strict=True)
    assume(any(labels))
    want = max(reference.f1_at(scores, labels, t) for t in scores)
    a, b = np.array(scores)[:, None], np.array(labels)[:, None]
    assert max_f1(a, b) == pytest.approx(want)
    (threshold,) = best_thresholds(a, b)
    assert reference.f1_at(scores, labels, threshold) == pytest.approx(want)


def test_thresholds_are_found_class_by_class() -> None:
    """On paper: the first class is separated by 0.6, the second by 0.2; a class without a
    positive gets a half."""
    scores = np.array([[0.6, 0.2, 0.9], [0.9, 0.1, 0.8], [0.5, 0.3, 0.7]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert best_thresholds(scores, labels) == pytest.approx([0.6, 0.2, 0.5])


def test_confusion_counts_rows_of_truth_and_columns_of_words() -> None:
    """Each clip is counted once, in the row of what it is."""
    table = confusion(np.array([0, 1, 1, 2, 1]), np.array([0, 0, 0, 2, 1]), 3)
    assert table.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 1]]
    assert table.sum() == 5


# --- fidelity ---------------------------------------------------------------------------------


def test_fidelity_is_agreement_with_the_classifier_whatever_the_labels() -> None:
    """A classifier that is always wrong and an interpreter that always agrees: accuracy 0 and
    fidelity 1. With labels in place of the classifier's decisions fidelity would be 0."""
    logits = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    labels = np.array([[False, True, False], [False, False, True]])
    assert accuracy(logits, labels) == 0.0
    ranks = rank_of_class(logits, 0.1 * logits - 5)
    assert ranks.tolist() == [1, 1]
    assert topk_fidelity(ranks, 1) == 1.0
    for function in (rank_of_class, topk_fidelity, agreement):
        assert not any("label" in name for name in inspect.signature(function).parameters)


def test_top_k_fidelity_on_paper() -> None:
    """The classifier's class comes first, third and fourth: 1/3, 2/3 and 1 for k = 1, 3, 5."""
    f = np.tile([9.0, 0, 0, 0, 0], (3, 1))
    g = np.array([[5.0, 1, 2, 3, 4], [3.0, 1, 2, 4, 5], [2.0, 1, 3, 4, 5]])
    ranks = rank_of_class(f, g)
    assert ranks.tolist() == [1, 3, 4]
    assert [topk_fidelity(ranks, k) for k in (1, 3, 5)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_an_interpreter_that_says_nothing_is_not_faithful() -> None:
    """Where all its logits are equal its class has the last rank, not the first."""
    ranks = rank_of_class(np.eye(4), np.zeros((4, 4)))
    assert ranks.tolist() == [4, 4, 4, 4]
    assert topk_fidelity(ranks, 3) == 0.0


@seeded
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 6))
def test_rank_is_the_place_in_the_sorted_list(seed: int, n: int, c: int) -> None:
    """Without ties, the rank is where the class stands among the interpreter's, sorted."""
    g = np.random.default_rng(seed)
    f, own = g.permuted(np.tile(np.arange(c), (2, n, 1)).astype(float), axis=2)
    want = [
        1 + sorted(range(c), key=lambda k: -own[i, k]).index(int(f[i].argmax())) for i in range(n)
    ]
    assert rank_of_class(f, own).tolist() == want


def test_multi_label_fidelity_judges_scores_against_decisions() -> None:
    """On paper, with one class that is never decided: macro over the other two (1 and 1/2)."""
    decisions = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    scores = np.array([[0.9, 0.2, 0.1], [0.1, 0.3, 0.1], [0.2, 0.4, 0.1]])
    correlation = agreement(scores, decisions)
    assert correlation.keys() == {"fidelity_auprc_macro", "fidelity_auprc_micro", "fidelity_max_f1"}
    assert correlation.keys() <= METRICS.keys()
    assert correlation["fidelity_auprc_macro"] == pytest.approx(0.75)
    # Thresholds 0.9, 0.4, 0.3: F1 of 2/3, 1/2, 4/5.
    assert correlation["fidelity_max_f1"] == pytest.approx(0.8)


# --- faithfulness -----------------------------------------------------------------------------


def test_summary_is_median_and_mean() -> None:
    """Median and mean of the falls, named after what was removed; the names are known."""
    summaries = summary("faithfulness", np.array([0.0, 0.1, 0.8]), np.array([-1.0, 2.0, 5.0]))
    assert summaries == {
        "faithfulness_probability": pytest.approx(0.1),
        "faithfulness_probability_mean": pytest.approx(0.3),
        "faithfulness_logit": pytest.approx(2.0),
    }
    assert summaries.keys() <= METRICS.keys()
    assert summary("random", np.ones(1), np.ones(1)).keys() <= METRICS.keys()


def test_summary_of_no_clip_is_not_a_number() -> None:
    """Where nothing was explained there is no fall, and no zero is invented."""
    assert all(math.isnan(v) for v in summary("random", np.array([]), np.array([])).values())


def test_removing_what_matters_falls_further_than_removing_what_does_not() -> None:
    """On the toy that listens for tones: without its tone a class loses nearly all of its logit;
    without another tone it loses nothing, since the band is its own."""
    x = (tone(4) + 0.5 * tone(9)).unsqueeze(0)
    mine = tone_explainer()
    # A head that says of every class that band 9 is what matters.
    theta = torch.zeros(11, 11)
    theta[:, 9] = 1.0
    falls = []
    for explainer in (mine, tone_explainer(theta)):
        explained, features, _ = explainer.explain(x, [4])
        after = explainer.classifier.logits(explained.removal)
        falls.append((features.logits - after)[0, 4].item())
    before = mine.classifier.logits(x)[0, 4].item()
    assert falls[0] > 0.9 * before
    # Alone, the tone is the peak and is heard louder: the fall is negative.
    assert falls[1] < 0


# --- what masks do ----------------------------------------------------------------------------


def test_ai_ad_ag_on_paper() -> None:
    """A clip at 0.8: alone the explanation has 0.9, 0.8, 0.2; by hand."""
    y, o = np.full(3, 0.8), np.array([0.9, 0.8, 0.2])
    np.testing.assert_allclose(faithfulness.average_increase(y, o), [100, 0, 0])
    np.testing.assert_allclose(faithfulness.average_drop(y, o), [0, 0, 75])
    np.testing.assert_allclose(faithfulness.average_gain(y, o), [50, 0, 0])


def test_ai_ad_ag_at_the_ends() -> None:
    """Nothing to lose, nothing to gain: 0, not NaN."""
    y, o = np.array([0.0, 1.0]), np.array([0.5, 1.0])
    np.testing.assert_allclose(faithfulness.average_drop(y, o), [0, 0])
    np.testing.assert_allclose(faithfulness.average_gain(y, o), [50, 0])
    np.testing.assert_allclose(faithfulness.average_increase(y, o), [100, 0])


@pytest.mark.parametrize("level", [1.0, 0.3])
def test_a_mask_of_ten_per_cent_of_ones(level: float) -> None:
    """SPS 0.9 and COMP ln(0.1 F T), whatever the level of the ones."""
    mask = torch.zeros(2, 20, 50)
    mask.flatten(1)[0, ::10] = level
    mask[1, :2] = level
    np.testing.assert_allclose(sparseness(mask).numpy(), 0.9, atol=1e-9)
    np.testing.assert_allclose(complexity(mask).numpy(), np.log(100), atol=1e-6)


def test_masks_at_the_ends() -> None:
    """All equal: not sparse, as complex as can be. One bin: the other way. None: not defined."""
    mask = torch.zeros(3, 4, 5)
    mask[0] = 0.5
    mask[1, 2, 3] = 0.5
    np.testing.assert_allclose(sparseness(mask).numpy(), [0, 0.95, np.nan], atol=1e-12)
    np.testing.assert_allclose(complexity(mask).numpy(), [np.log(20), 0, np.nan], atol=1e-12)


def test_sparseness_is_the_gini_index_of_pairs() -> None:
    """The slow form: mean absolute difference of all pairs over twice the mean."""
    mask = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0)) ** 3
    flat = mask.flatten(1).double()
    pairs = (flat.unsqueeze(1) - flat.unsqueeze(2)).abs().mean(dim=(1, 2))
    torch.testing.assert_close(sparseness(mask), pairs / (2 * flat.mean(dim=1)))


# --- against the truth ------------------------------------------------------------------------


def _orthogonal(n: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    t = torch.arange(n) / n
    s = torch.sin(2 * torch.pi * 5 * t)
    return s.unsqueeze(0), torch.sin(2 * torch.pi * 9 * t).unsqueeze(0)


@pytest.mark.parametrize("db", [-20.0, 0.0, 12.0])
@pytest.mark.parametrize("scale", [1.0, -0.2])
def test_si_sdr_on_paper(db: float, scale: float) -> None:
    """A part plus an orthogonal one, so many dB softer: that ratio, at any scale."""
    s, n = _orthogonal()
    ratio = si_sdr(scale * (s + 10 ** (-db / 20) * n), s)
    np.testing.assert_allclose(ratio.numpy(), db, atol=1e-4)


def test_si_sdr_at_the_ends() -> None:
    """Silence for an answer, the other part for an answer, a silent part to be found."""
    s, n = _orthogonal()
    assert si_sdr(torch.zeros_like(s), s).item() == -np.inf
    assert si_sdr(n, s).item() < -100
    assert si_sdr(s, s).item() == np.inf
    assert np.isnan(si_sdr(s, torch.zeros_like(s)).item())


def test_distortion_is_the_other_part_and_the_artefacts() -> None:
    """For orthogonal parts: 1 / SDR = 1 / SIR + 1 / SAR; each at its ends."""
    s, n = _orthogonal()
    bent = s.clone()
    bent[:, ::7] = 0
    of_right, of_other = 0.8 * bent, 0.1 * n
    share = [
        10 ** (-x / 10)
        for x in (si_sdr(of_right + of_other, s), sir(of_right, of_other, s), sar(of_right, s))
    ]
    assert share[0].item() == pytest.approx((share[1] + share[2]).item(), rel=0.02)
    assert sir(s, torch.zeros_like(s), s).isinf().all() and sar(0 * s, s).item() == -math.inf
    assert sar(s, torch.zeros_like(s)).isnan().all() and sir(s, n, 0 * s).isnan().all()


def test_time_at_the_ends() -> None:
    """An explanation of nothing points nowhere; where the class never sounds nothing is asked."""
    part = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    kept = torch.zeros(2, 1, 2)
    for figure in (time_iou, pointing, frame_f1):
        np.testing.assert_array_equal(figure(kept, part).numpy(), [0, np.nan])
        np.testing.assert_array_equal(figure(part[:1], part[:1]).numpy(), [1])


def test_frames_by_their_order() -> None:
    """Two of five frames are active, and one of the two most relevant is: half of them, for
    precision and recall. Among the six pairs of an active and another frame four are in order, one
    is a tie. Level and scale play no part, and scikit-learn has the same."""
    part = torch.tensor([[[1.0, 0.0, 1.0, 0.0, 0.0]]])
    kept = torch.tensor([[[4.0, 3.0, 2.0, 2.0, 1.0]]]).sqrt()
    for scale in (1.0, 1e-3):
        assert frame_f1(scale * kept, part).tolist() == [0.5]
        assert frame_auc(scale * kept, part).tolist() == [4.5 / 6]
    # What counts alike is named in part: two fifths of both active frames and of the others.
    np.testing.assert_allclose(frame_f1(torch.ones(1, 1, 5), part).numpy(), [0.4])
    assert frame_auc(torch.ones(1, 1, 5), part).tolist() == [0.5]
    # One frame named of two: all of it is right, and half of what is wanted.
    np.testing.assert_allclose(frame_f1(torch.tensor([[[1.0, 0, 0, 0, 0]]]), part).numpy(), [2 / 3])
    every = torch.ones(1, 1, 5)
    assert frame_auc(kept, every).isnan().all() and frame_auc(kept, 0 * every).isnan().all()
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(0)
    size = torch.rand(1, 3, 30, generator=g)
    truth = (torch.rand(1, 1, 30, generator=g) > 0.6).float()
    wanted = roc_auc_score(truth[0, 0].numpy() > 0, size[0].square().sum(0).numpy())
    assert frame_auc(size, truth).item() == pytest.approx(wanted, abs=1e-9)


def test_shares_and_levels_on_paper() -> None:
    """Nine parts of energy of the right part to one of the other; a tenth of an amplitude is
    20 dB; silence has no share, and what is silent no level."""
    s, n = _orthogonal()
    np.testing.assert_allclose(energy_share(3 * s, n).numpy(), 0.9, atol=1e-6)
    assert np.isnan(energy_share(0 * s, 0 * n).item())
    np.testing.assert_allclose(level_db(0.1 * n, n).numpy(), -20, atol=1e-5)
    assert level_db(0 * n, n).item() == -np.inf
    assert np.isnan(level_db(n, 0 * n).item())


def test_gain_of_a_log_mask_is_what_it_does_to_a_sound() -> None:
    """The mask's sound over the clip's, bin by bin; and the table that is known: half of a loud
    bin's log is far less than half of the bin."""
    size = torch.tensor([[[0.0, 1.0, 10.0, 100.0]]])
    gain = linear_gain(torch.full_like(size, 0.5), size, linear=False)
    db = 20 * gain[0, 0, 1:].log10()
    np.testing.assert_allclose(db.numpy(), [-7.7, -12.7, -20.9], atol=0.06)
    assert gain[0, 0, 0] == 0.0
    np.testing.assert_allclose(linear_gain(torch.ones_like(size), size, linear=False)[0, 0, 1:], 1)


# --- statistics -------------------------------------------------------------------------------


def test_intervals_over_recordings_are_wider_where_clips_repeat_them() -> None:
    """Ten recordings, each ten times: over clips the interval is that of a hundred values, over
    recordings that of ten, which is wider by the root of ten; one value each: the same draws."""
    values = np.repeat(np.arange(10.0), 10)
    names = np.repeat([f"r{i}" for i in range(10)], 10)
    width = [np.ptp(bootstrap_interval(values, groups=g)) for g in (None, names)]
    assert width[1] / width[0] == pytest.approx(10**0.5, rel=0.15)
    alone = np.arange(10.0)
    assert bootstrap_interval(alone, groups=names[::10]) == bootstrap_interval(alone)


def test_an_interval_over_recordings_of_unequal_length_by_hand() -> None:
    """Draw after draw, a recording after another, with all its clips."""
    groups = np.array([2, 0, 1, 1, 2, 2, 0, 2, 4, 3, 3])
    values = np.random.default_rng(1).normal(size=len(groups))
    rng, means = np.random.default_rng(7), []
    for _ in range(1000):
        rows = [np.flatnonzero(groups == g) for g in rng.integers(5, size=5)]
        means.append(values[np.concatenate(rows)].mean())
    wanted = np.quantile(means, (0.025, 0.975), method="nearest")
    assert bootstrap_interval(values, seed=7, groups=groups) == tuple(wanted)


@pytest.mark.parametrize("groups", [None, np.arange(20) // 2])
def test_interval_of_a_ratio(groups: Any) -> None:
    """Where one column is a third of the other, so is every draw."""
    x = np.random.default_rng(0).random(20)
    both = np.stack([x / 3, x], axis=1)
    interval = bootstrap_interval(both, ratio_of_means, groups=groups)
    np.testing.assert_allclose(interval, 1 / 3)
    assert np.isnan(ratio_of_means(np.zeros((2, 2))))


@seeded
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_mcnemar_is_the_binomial_of_those_that_differ(a: list[bool], rng: Any) -> None:
    """Twice the tail of a fair coin, over the clips on which they differ, counted by hand."""
    b = [rng.random() < 0.5 for _ in a]
    won = sum(x and not y for x, y in zip(a, b, strict=True))
    lost = sum(y and not x for x, y in zip(a, b, strict=True))
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert statistics.mcnemar(np.array(a), np.array(b)) == pytest.approx(min(1.0, 2 * tail))


def test_wilcoxon_is_the_share_of_signs_as_extreme() -> None:
    """The 2^6 ways to give six ranks signs are counted one by one."""
    d = np.array([0.3, -0.1, 0.9, 1.4, -0.2, 0.7])
    ranks = np.argsort(np.argsort(np.abs(d))) + 1
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([False, True], repeat=6)
    ]
    own = int(ranks[d > 0].sum())
    middle = ranks.sum() / 2
    extreme = np.mean([abs(s - middle) >= abs(own - middle) for s in sums])
    assert statistics.wilcoxon(d) == pytest.approx(float(extreme))
    assert statistics.wilcoxon(np.zeros(3)) == 1.0


@seeded
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm(p: list[float]) -> None:
    """At least p, at most Bonferroni's, in the same order; the least is Bonferroni's."""
    corrected = statistics.holm(p)
    for value, own in zip(corrected, p, strict=True):
        assert own <= value <= min(1.0, len(p) * own) + 1e-12
    assert min(corrected) == pytest.approx(min(1.0, len(p) * min(p)))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert all(corrected[i] <= corrected[j] for i, j in itertools.pairwise(order))

"""`l2i.metrics` on cases whose answers are known on paper."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from l2i.metrics import METRICS
from l2i.metrics.classification import accuracy, auprc, best_thresholds, confusion, max_f1
from l2i.metrics.faithfulness import fall, summary
from l2i.metrics.fidelity import agreement, rank_of_class, topk_fidelity
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
        # The random baseline is what others are held against: no way is better.
        assert (metric.better == "") == name.startswith("random_")


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
    found = agreement(scores, decisions)
    assert found.keys() == {"fidelity_auprc_macro", "fidelity_auprc_micro", "fidelity_max_f1"}
    assert found.keys() <= METRICS.keys()
    assert found["fidelity_auprc_macro"] == pytest.approx(0.75)
    # Thresholds 0.9, 0.4, 0.3: F1 of 2/3, 1/2, 4/5.
    assert found["fidelity_max_f1"] == pytest.approx(0.8)


# --- faithfulness -----------------------------------------------------------------------------


@seeded
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 5))
def test_fall_is_the_papers(seed: int, n: int, c: int) -> None:
    """Of logits and of probabilities, for the classifier's class, as the loops have it."""
    g = np.random.default_rng(seed)
    before, after = g.normal(size=(2, n, c))
    classes = before.argmax(axis=1)
    probability, logit = reference.faithfulness(before.tolist(), after.tolist())
    assert fall(before, after, classes).tolist() == pytest.approx(logit)
    p, q = (torch.from_numpy(v).softmax(1).numpy() for v in (before, after))
    assert fall(p, q, classes).tolist() == pytest.approx(probability)


def test_summary_is_median_and_mean() -> None:
    """Median and mean of the falls, named after what was removed; the names are known."""
    found = summary("faithfulness", np.array([0.0, 0.1, 0.8]), np.array([-1.0, 2.0, 5.0]))
    assert found == {
        "faithfulness_probability": pytest.approx(0.1),
        "faithfulness_probability_mean": pytest.approx(0.3),
        "faithfulness_logit": pytest.approx(2.0),
    }
    assert found.keys() <= METRICS.keys()
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
        found, features, _ = explainer.explain(x, [4])
        after = explainer.classifier.logits(found.removal)
        classes = np.array([4])
        falls.append(fall(features.logits.numpy(), after.numpy(), classes)[0])
    before = mine.classifier.logits(x)[0, 4].item()
    assert falls[0] > 0.9 * before
    # Alone, the tone is the peak and is heard louder: the fall is negative.
    assert falls[1] < 0

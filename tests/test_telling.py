"""Which clips a run's page shows (`telling`), by the rule that its head states."""

from __future__ import annotations

import numpy as np

from l2i.recipes.measuring.measure import Evaluation
from l2i.recipes.publishing.results import telling
from l2i.types import Clip, Task

# Twelve clips of three classes: the odd ones of the first six are wrong, ever surer.
LABELS = np.arange(12) % 3
SAID = np.where((np.arange(12) % 2 == 1) & (np.arange(12) < 6), (LABELS + 1) % 3, LABELS)
FALLS = np.array([0.9, 0.1, 0.8, 0.7, 0.05, 0.6, 0.5, 0.2, 0.9, 0.3, 0.9, 0.9])
CLIPS = [Clip(f"{i}.wav", (int(c),)) for i, c in enumerate(LABELS)]


def _evaluation(**changes: object) -> Evaluation:
    logits = np.eye(3)[SAID] * (1 + np.arange(12))[:, None]
    facts = {
        "scores": {},
        "per_class": {},
        "logits": logits.astype(np.float32),
        "interpreter_logits": None,
        "labels": np.eye(3, dtype=bool)[LABELS],
        "decisions": np.eye(3, dtype=bool)[SAID],
        "task": Task.SINGLE_LABEL,
        "pairs": {"clip": np.arange(12), "class": SAID, "fall_probability": FALLS},
    }
    return Evaluation(**(facts | changes))  # type: ignore[arg-type]


def test_mistakes_then_what_is_least_faithful_then_one_of_each_class() -> None:
    """A third each: the mistakes, the surest first; the least falls of the rest; and of what is
    left, as many classes as can be. Each says why it is there."""
    clips = telling(_evaluation(), CLIPS, 6)
    assert [i for i, _ in clips[:4]] == [5, 3, 4, 1]
    assert [why.split()[-1] for _, why in clips] == [
        *("mistakes", "mistakes", "explanation", "explanation", "class", "class")
    ]
    assert len({int(LABELS[i]) for i, _ in clips[4:]}) == 2
    assert len({i for i, _ in clips}) == 6


def test_mistakes_come_in_the_order_of_the_labels_to_check() -> None:
    """By the margin between label and answer: a label that is out of the question is a surer
    mistake than one that comes second, though the answer itself has more in that case."""
    p = np.array([[0.60, 0.39, 0.01], [0.55, 0.05, 0.40], [0.1, 0.8, 0.1]])
    labels = np.eye(3, dtype=bool)[[1, 1, 1]]
    e = _evaluation(
        logits=np.log(p), labels=labels, decisions=np.eye(3, dtype=bool)[p.argmax(1)], pairs={}
    )
    assert [i for i, _ in telling(e, CLIPS[:3], 3)] == [1, 0, 2]
    assert [i for i, _ in telling(e, CLIPS[:3], 1)] == [1]


def test_where_there_are_few_mistakes_others_take_their_place() -> None:
    """All asked for are shown, and no more than there are; without labels nothing is a mistake,
    without explanations nothing is unfaithful."""
    nine = telling(_evaluation(), CLIPS, 12)
    assert sorted(i for i, _ in nine) == list(range(12))
    assert [i for i, _ in nine[:3]] == [5, 3, 1]
    unknown = telling(_evaluation(labels=None), CLIPS, 3)
    assert unknown[0][0] == 4
    assert telling(_evaluation(labels=None, pairs={}), CLIPS, 3) == [
        (i, "one of its class") for i in (0, 1, 2)
    ]
    assert telling(_evaluation(), CLIPS, 0) == []
    assert len(telling(_evaluation(), CLIPS, 1000)) == 12


def test_of_several_labels_the_greatest_error_counts() -> None:
    """A class that was surely missed is a mistake as one that was surely named wrongly; the falls
    of a clip's classes are taken in their mean: FF, where both are measured."""
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
    logits = np.array([[-3, -9], [-1, -9], [-9, 9], [-9, 5]], dtype=np.float32)
    pairs = {
        "clip": np.array([2, 2, 1]),
        "class": np.array([0, 1, 1]),
        "ff_mean": np.array([0.1, 0.9, 0.4]),
        "fall_probability": np.array([0.0, 0.1, 0.9]),
    }
    e = _evaluation(
        labels=labels, logits=logits, decisions=logits > 0, task=Task.MULTI_LABEL, pairs=pairs
    )
    clips = [Clip(str(i), (0,)) for i in range(4)]
    assert [i for i, _ in telling(e, clips, 3)][:2] == [3, 1]
    assert [i for i, _ in telling(e, clips, 4)][:2] == [3, 0]

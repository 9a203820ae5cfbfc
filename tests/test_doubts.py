"""What is said against an explanation and against a run's figures: both sides of each threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from l2i.config import Warn, resolve
from l2i.metrics.doubts import (
    class_doubts,
    explanation_doubts,
    near_chance,
    run_doubts,
    verdict,
    weak_classes,
)
from l2i.types import Task

SINGLE, MULTI = Task.SINGLE_LABEL, Task.MULTI_LABEL
HELD = ({"dog": 0.8, "cat": 0.2}, {"dog": 0.9, "cat": 0.1}, {"dog": 0.1, "cat": 0.9})


def _marks(
    *parts: dict[str, float],
    task: Task = SINGLE,
    peak: float = 1.0,
    alone_peak: float = 1.0,
    **warn: Any,
) -> list[str]:
    doubts = explanation_doubts(
        "dog", parts, task, peak=peak, alone_peak=alone_peak, warn=Warn.model_validate(warn)
    )
    assert [d.void for d in doubts] == sorted((d.void for d in doubts), reverse=True)
    return [d.mark for d in doubts]


def _dog(p: float) -> dict[str, float]:
    return {"dog": p, "cat": 1 - p}


def test_what_holds_has_no_mark() -> None:
    """The class is there, falls without the explanation, and stays by it alone."""
    assert _marks(*HELD) == []
    assert verdict("dog", [0.8, 0.9, 0.1], []).endswith("without it 10.0%: the explanation holds.")


@pytest.mark.parametrize(
    ("parts", "setting", "kept", "told", "mark"),
    [
        # It falls from 0.8 to 0.64: by a fifth.
        ((_dog(0.8), _dog(0.9), _dog(0.64)), "fall", 0.199, 0.201, "removal does not lower it"),
        # Alone it has 0.6 of 0.8: three quarters.
        ((_dog(0.8), _dog(0.6), _dog(0.1)), "alone", 0.749, 0.751, "alone too little"),
        ((_dog(0.1), _dog(0.9), _dog(0.0)), "probability", 0.09, 0.11, "class not said"),
        # Odds of 1.5, where a guess of two has 1.
        ((_dog(0.6), _dog(0.9), _dog(0.0)), "chance", 1.49, 1.51, "near chance"),
    ],
)
def test_both_sides_of_each_threshold(
    parts: tuple[dict[str, float], ...], setting: str, kept: float, told: float, mark: str
) -> None:
    """Just below the setting nothing is said, just above it the mark is."""
    assert mark not in _marks(*parts, **{setting: kept})
    assert mark in _marks(*parts, **{setting: told})


def test_a_class_that_nothing_was_trained_for() -> None:
    """Is said beside whatever else there is to be said, and voids nothing."""
    (doubt,) = explanation_doubts(
        "dog", HELD, SINGLE, peak=1, alone_peak=1, warn=Warn(), untrained=True
    )
    assert doubt.mark == "class not trained" and "dog" in doubt.text and not doubt.void


def test_silence() -> None:
    """A silent clip has one sentence; so has a silent explanation, which removes nothing. -40 dB is
    a hundredth of full scale."""
    quiet = 0.02
    assert _marks(*HELD, peak=quiet, silence_db=-40) == []
    assert _marks(*HELD, peak=quiet, silence_db=-30) == ["silent clip"]
    assert _marks(*HELD, alone_peak=quiet, silence_db=-30) == ["silent explanation"]
    assert _marks(*HELD, peak=0.0, alone_peak=0.0) == ["silent clip"]


def test_alone_it_is_another_class() -> None:
    """Where one class excludes the others, the other one is named. Where several may be there
    at once, only the first of the clip must stay the first."""
    cat = {"dog": 0.45, "cat": 0.55}
    (doubt,) = explanation_doubts(
        "dog", (_dog(0.8), cat, _dog(0.1)), SINGLE, peak=1, alone_peak=1, warn=Warn()
    )
    assert doubt.text == "Alone it is taken for cat (55.0%), not for dog (80.0% to 45.0%)."
    assert not doubt.void
    second = ({"dog": 0.6, "cat": 0.9}, {"dog": 0.7, "cat": 0.8}, {"dog": 0.1, "cat": 0.9})
    assert _marks(*second, task=MULTI) == []
    assert _marks(*second, task=SINGLE) == ["alone another class"]
    assert _marks({"dog": 0.6, "cat": 0.5}, *second[1:], task=MULTI) == ["alone another class"]


def test_a_void_explanation_says_why() -> None:
    """A class that rises when its explanation is taken away; the sentence ends the verdict."""
    parts = (_dog(0.41), _dog(0.62), _dog(0.61))
    doubts = explanation_doubts("dog", parts, MULTI, peak=1, alone_peak=1, warn=Warn())
    assert [d.mark for d in doubts] == ["removal does not lower it"]
    assert verdict("dog", [0.41, 0.62, 0.61], doubts) == (
        "dog 41.0%, alone 62.0%, without it 61.0%. Removing it raises dog, 41.0% to 61.0%: this "
        "explanation does not hold."
    )


# --- of a run ---------------------------------------------------------------------------------


def _run(answers: list[int], truth: list[int], fidelity: float = 1.0, **warn: Any) -> list[str]:
    logits, labels = np.eye(3, dtype=np.float32)[answers], np.eye(3, dtype=bool)[truth]
    scores = {
        "accuracy": float(np.mean(np.array(answers) == truth)),
        "fidelity_top1": fidelity,
    }
    return run_doubts(scores, logits, labels, SINGLE, Warn.model_validate({"clips": 0, **warn}))


def test_a_classifier_near_chance() -> None:
    """With three classes in equal parts a guess is right of a third, odds 1/2; of half, odds 1."""
    truth = [0, 1, 2] * 10
    lucky = [0, 1, 0] * 10
    lucky[0:6] = [1, 2, 1, 1, 2, 1]  # 16 of 30 are right: odds 8/7.
    assert not _run(lucky, truth, chance=2.2)
    (told,) = _run(lucky, truth, chance=2.3)
    assert told.startswith(
        "The classifier is near chance: its accuracy is 0.533, a guess has 0.333"
    )


def test_fidelity_that_repeats_one_class() -> None:
    """The classifier gives one class to 8 of 10 clips: whoever always gives it has 0.8."""
    answers = truth = [0] * 8 + [1, 2]
    assert _run(answers, truth, one_class=0.81) == []
    assert "0.800 for whoever always gives" in _run(answers, truth, one_class=0.79)[0]
    # Odds of 0.8 are 4; those of 0.85 are 5.7.
    assert _run(answers, truth, 0.85, chance=1.4) == []
    assert "Top-1 fidelity is 0.850" in _run(answers, truth, 0.85, chance=1.45)[0]


def test_few_clips() -> None:
    """Three clips are few where four are asked for."""
    assert _run([0, 1, 2], [0, 1, 2], clips=3) == []
    assert _run([0, 1, 2], [0, 1, 2], clips=4) == [
        "There are 3 test clips: of so few, figures are rough."
    ]


def test_several_classes_at_once() -> None:
    """The area under precision and recall of a guess is the share of clips that have the class."""
    labels = np.array([[True, False], [False, True], [False, False], [False, False]])
    logits = np.zeros((4, 2), np.float32)
    warn = Warn(clips=0, chance=1.5)
    # Odds of 0.25 are 1/3, of 0.3 they are 3/7, of 0.4 they are 2/3.
    (told,) = run_doubts({"auprc_macro": 0.3}, logits, labels, MULTI, warn)
    assert "its AUPRC is 0.300, a guess has 0.250" in told
    assert run_doubts({"auprc_macro": 0.4}, logits, labels, MULTI, warn) == []
    assert run_doubts({"auprc_macro": 0.3}, logits, None, MULTI, warn) == []


def test_certainty_is_no_chance() -> None:
    """Where all clips are of one class, being right of all of them is a guess, too."""
    assert near_chance(1.0, 1.0, 1.5) and not near_chance(1.0, 0.5, 1.5)


def test_what_is_said_is_no_other_experiment() -> None:
    """Other thresholds leave a run's signature as it is, and come back from its config."""
    c = resolve(overrides=["explanation.warn.fall=0.5"])
    assert c.explanation.warn.fall == 0.5
    assert c.signature() == resolve().signature()
    assert "fall = 0.5" in c.to_toml()


def test_a_class_whose_explanations_do_not_hold_is_named() -> None:
    """On the threshold it holds; below it is named, with what its removal takes; what is not known
    is not judged, and of many weak classes five are named."""
    per_class = {"bell": {"ff_share": 0.2}, "rain": {"ff_share": 0.7}, "siren": {"clips": 3}}
    assert class_doubts(per_class, Warn()) == []
    (told,) = class_doubts(per_class, Warn(fall=0.21))
    assert told == (
        "Explanations of bell do not hold: their removal takes 20 % off its probability."
    )
    (told,) = class_doubts(per_class, Warn(fall=0.71))
    assert "2 classes" in told and "less than 71 %" in told and told.endswith("rain (70 %).")
    (told,) = class_doubts({"bell": {"ff_share": -0.012}}, Warn())
    assert told.endswith("do not hold: their removal raises its probability by 1 %.")
    (told,) = class_doubts({"bell": {"ff_share": -0.012}, "rain": {"ff_share": -0.001}}, Warn())
    assert told.endswith("bell (raised by 1 %), rain (0 %).")
    many = {str(n): {"ff_share": 0.0} for n in range(7)}
    assert weak_classes(many, Warn()) == list(many)
    (told,) = class_doubts(many, Warn())
    assert "4 (0 %) and 2 more." in told and "5 (0 %)" not in told

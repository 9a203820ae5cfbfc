"""Why an explanation, or a run's figures, should not be relied on: in sentences.

What is asked is what a listener would: does the class fall when the explanation is taken away, is
the explanation alone taken for the class, does the classifier say the class at all, is there
anything to hear? When it is said is a setting each, ``[explanation.warn]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2i.config import Warn
from l2i.data.cards import listed
from l2i.types import Task


class Doubt(NamedTuple):
    """One reason.

    Attributes
    ----------
    mark : str
        A few words, for lists and tables.
    text : str
        One sentence.
    void : bool
        Whether the explanation does not hold for it.
    """

    mark: str
    text: str
    void: bool = False


def near_chance(value: float, chance: float, times: float) -> bool:
    """Whether the odds of a share are at most some times the odds of a guess.

    Odds, p / (1 - p), because twice a chance of 1/50 is little, and twice one of 1/2 is certainty.

    >>> near_chance(0.6, 0.5, 1.5), near_chance(0.61, 0.5, 1.5)
    (True, False)
    """
    # Multiplied out: there is no division by nothing where a share is 1.
    return value * (1 - chance) <= times * chance * (1 - value) + 1e-9


def explanation_doubts(
    target: str,
    parts: Sequence[Mapping[str, float]],
    task: Task,
    *,
    peak: float,
    alone_peak: float,
    warn: Warn,
    untrained: bool = False,
) -> list[Doubt]:
    """What is to be said against one explanation; nothing, if it holds.

    Parameters
    ----------
    target : str
        The class explained.
    parts : three mappings of str to float
        Probability of every class: of the clip, of its explanation alone, of what is left.
    task : Task
        Only where one class excludes the others is there a chance level.
    peak, alone_peak : float
        Greatest sample of the clip and of its explanation; 1 is full scale.
    warn : l2i.config.Warn
    untrained : bool
        Whether no clip trained the method for the class.

    Returns
    -------
    list of Doubt
        Those that make it void first.
    """
    original, alone, without = parts
    silence = 10 ** (warn.silence_db / 20)
    if peak <= silence:
        text = "The clip is silent: there is nothing to explain."
        return [Doubt("silent clip", text, void=True)]
    p, q, r = original[target], alone[target], without[target]
    doubts = []
    if alone_peak <= silence:
        text = f"Nothing speaks for {target}: the explanation is silent, and does not hold."
        doubts.append(Doubt("silent explanation", text, void=True))
    elif r > (1 - warn.fall) * p:
        what = "raises" if r >= p + 0.001 else "hardly lowers"  # As far as it is shown.
        text = f"Removing it {what} {target}, {p:.1%} to {r:.1%}: this explanation does not hold."
        doubts.append(Doubt("removal does not lower it", text, void=True))
    first, single = max(alone, key=lambda name: alone[name]), task is Task.SINGLE_LABEL
    # Several classes may be there at once: then only the first one is to stay the first.
    replaced = first != target and (single or max(original.values()) == p)
    lost = q < warn.alone * p
    if alone_peak > silence and (lost or replaced):
        end = ": this explanation does not hold." if lost else "."
        taken = f"taken for {first} ({alone[first]:.1%}), not for" if replaced else "not taken for"
        text = f"Alone it is {taken} {target} ({p:.1%} to {q:.1%}){end}"
        doubts.append(Doubt("alone another class" if replaced else "alone too little", text, lost))
    doubts.sort(key=lambda doubt: not doubt.void)
    likeliest = max(original, key=lambda name: original[name])
    chance = 1 / len(original)
    if single and len(original) > 1 and near_chance(original[likeliest], chance, warn.chance):
        text = (
            f"The classifier is near chance on this clip: its likeliest class, {likeliest}, has "
            f"{original[likeliest]:.1%}, where a guess among {len(original)} has {chance:.1%}."
        )
        doubts.append(Doubt("near chance", text))
    if p < warn.probability:
        text = f"The classifier does not say {target}: it has {p:.2%} in this clip."
        doubts.append(Doubt("class not said", text))
    if untrained:
        text = f"No clip trained the gates for {target}: '--method refined-gates' needs none."
        doubts.append(Doubt("class not trained", text))
    return doubts


def verdict(target: str, parts: Sequence[float], doubts: Sequence[Doubt]) -> str:
    """One sentence or two: the class's probabilities, and whether the explanation holds."""
    original, alone, without = parts
    figures = f"{target} {original:.1%}, alone {alone:.1%}, without it {without:.1%}"
    if doubts and doubts[0].void:
        return f"{figures}. {doubts[0].text}"
    return f"{figures}: the explanation holds."


def run_doubts(
    scores: Mapping[str, float],
    logits: NDArray[np.float32],
    labels: NDArray[np.bool_] | None,
    task: Task,
    warn: Warn,
) -> list[str]:
    """What is to be said against the figures of a run.

    Parameters
    ----------
    scores : mapping of str to float
        By the names of `l2i.metrics.METRICS`.
    logits : [N, C]
        The classifier's, of the test clips.
    labels : bool [N, C] or None
    task : Task
    warn : l2i.config.Warn

    Returns
    -------
    list of str
        Sentences.
    """
    n, n_classes = logits.shape
    doubts = []
    if n < warn.clips:
        doubts.append(f"There are {n} test clips: of so few, figures are rough.")
    single = task is Task.SINGLE_LABEL
    value = scores.get("accuracy" if single else "auprc_macro", math.nan)
    if labels is not None and labels.any() and math.isfinite(value):
        shares = labels.mean(axis=0)
        # The best constant answer; of the area under precision and recall, the classes' share.
        chance = float(shares.max() if single else shares[shares > 0].mean())
        if near_chance(value, chance, warn.chance):
            title = "accuracy" if single else "AUPRC"
            doubts.append(
                f"The classifier is near chance: its {title} is {value:.3f}, a guess has "
                f"{chance:.3f}. Explanations of it say little about sounds."
            )
    fidelity = scores.get("fidelity_top1", math.nan)
    if math.isfinite(fidelity) and n_classes > 1:
        share = float(np.bincount(logits.argmax(axis=1), minlength=n_classes).max()) / n
        if share >= warn.one_class or near_chance(fidelity, share, warn.chance):
            doubts.append(
                f"Top-1 fidelity is {fidelity:.3f}, and {share:.3f} for whoever always gives the "
                "class that the classifier gives most: it says little about the interpreter."
            )
    return doubts


def weak_classes(per_class: Mapping[str, Mapping[str, float | None]], warn: Warn) -> list[str]:
    """The classes whose explanations, taken together, do not hold.

    Parameters
    ----------
    per_class : mapping of str to (mapping of str to (float or None))
        Class to figures; ``ff_share`` is asked, and counts where it is known.
    warn : l2i.config.Warn
        `fall`: what their removal must take off the class's probability.
    """
    shares = {name: figures.get("ff_share") for name, figures in per_class.items()}
    return [name for name, share in shares.items() if share is not None and share < warn.fall]


def class_doubts(per_class: Mapping[str, Mapping[str, float | None]], warn: Warn) -> list[str]:
    """What is to be said against the explanations of single classes; parameters as above.

    >>> class_doubts({"bell": {"ff_share": 0.1}, "rain": {"ff_share": 0.7}}, Warn())
    ['Explanations of bell do not hold: their removal takes 10 % off its probability.']
    """
    weak = weak_classes(per_class, warn)
    if not weak:
        return []
    shares = [round(100 * (per_class[name]["ff_share"] or 0.0)) for name in weak]
    if len(weak) == 1:
        share = shares[0]
        doing = f"raises its probability by {-share} %"
        if share >= 0:
            doing = f"takes {share} % off its probability"
        return [f"Explanations of {weak[0]} do not hold: their removal {doing}."]
    each = [
        f"{name} ({f'{share} %' if share >= 0 else f'raised by {-share} %'})"
        for name, share in zip(weak, shares, strict=True)
    ]
    return [
        f"Explanations of {len(weak)} classes do not hold: their removal takes less than "
        f"{100 * warn.fall:.0f} % off the class's probability: {listed(each)}."
    ]

"""The figures of an explainer on clips, labelled or not.

Over 300 lines: one evaluation, in steps that have no use of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from l2i.config import Explanation as ExplanationSettings
from l2i.dsp.spectrogram import phase, synthesise
from l2i.explanation import Explainer, random_ranks, reconstruction, select, soft_mask
from l2i.metrics import METRICS, PUBLISHED, classification, faithfulness, fidelity
from l2i.metrics.own import own_metrics
from l2i.metrics.statistics import bootstrap_interval, ratio_of_means
from l2i.models.heard import Heard
from l2i.recipes.measuring.judging import (
    ABSENT_SCORES,
    FF_SHARE,
    RATIOS,
    judge_absent,
    judge_masks,
    mask_scores,
    mean_scores,
)
from l2i.run.progress import Progress
from l2i.types import Task

_BATCH = 16


@dataclass
class Evaluation:
    """Figures of N clips, and what they come from.

    Attributes
    ----------
    scores : dict of str to float
        Names of `l2i.metrics.METRICS`; NaN where a figure is not defined.
    intervals : dict of str to (float, float)
        95 % bootstrap intervals of scores, over clips.
    per_class : dict of str to dict
        Figures of each class that has them.
    curve : list of dict
        Faithfulness for each ``threshold``, beside random removal.
    logits : [N, C]
    interpreter_logits : [N, C] or None
        None where the method has no interpreter.
    labels : bool [N, C] or None
        None where nobody knows them, as the classifier's classes.
    decisions : bool [N, C]
    pairs : dict of str to array [P]
        One row per clip and class explained: ``clip``, ``class``, and the columns of
        `PAIR_COLUMNS`.
    warnings : list of str
        Why the figures should not be relied on.
    weak_classes : list of str
        Classes whose explanations do not hold.
    """

    scores: dict[str, float]
    per_class: dict[str, dict[str, float]]
    logits: NDArray[np.float32]
    interpreter_logits: NDArray[np.float32] | None
    labels: NDArray[np.bool_] | None
    decisions: NDArray[np.bool_]
    task: Task
    pairs: dict[str, NDArray[Any]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    weak_classes: list[str] = field(default_factory=list)


def evaluate_clips(
    explainer: Explainer,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_] | None,
    settings: ExplanationSettings,
    *,
    seed: int,
    progress: Progress,
) -> Evaluation:
    """Classifier, fidelity, and what removal and explanation audio do to the classifier.

    Measured per clip and class: for the classifier's class, or for every class it detects where
    it may detect several. Audio goes through the inverse STFT and through the classifier's whole
    front-end, its scaling to the peak included.

    Parameters
    ----------
    explainer : Explainer
    waveforms : float32 [M, S]
    rows : int64 [N]
        The clips wanted. A clip's random baseline hangs on its row, not on its neighbours.
    labels : bool [N, C] or None
    settings : l2i.config.Explanation
    seed : int
        Seed of the random baseline.
    progress : Progress
    """
    classifier = explainer.classifier
    thresholds = sorted({*settings.thresholds, settings.faithfulness_threshold})
    logits, interpreted, decided = [], [], []
    error = 0.0
    table: dict[str, list[NDArray[Any]]] = {}
    falls: list[NDArray[Any]] = []
    with progress.task("test", total=len(rows), unit="clip") as bar, torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            heard = explainer.hear(torch.from_numpy(np.asarray(waveforms[some])))
            interpretation = explainer.interpret(heard)
            residual = heard.size.log1p() - reconstruction(explainer.w, interpretation.activations)
            error += float(residual.square().mean()) * len(some)
            decisions = classifier.decisions(heard.logits)
            which, classes = decisions.nonzero(as_tuple=True)
            logits.append(heard.logits.cpu().numpy())
            interpreted.append(interpretation.logits.float().cpu().numpy())
            decided.append(decisions.cpu().numpy())
            for clip, c in zip(which.split(_BATCH), classes.split(_BATCH), strict=True):
                if not len(clip):
                    continue
                part, h, z = heard.take(clip), interpretation.activations, interpretation.pooled
                keys = [int(rows[start + i]) for i in clip.tolist()]
                how = (thresholds, settings, seed)
                columns, fallen = _judge(explainer, part, c, h[clip], z[clip], keys, *how)
                columns["clip"] = clip.cpu().numpy() + start
                columns["class"] = c.cpu().numpy()
                for name, values in columns.items():
                    table.setdefault(name, []).append(values)
                falls.append(fallen)
            bar.advance(len(some))
    e = Evaluation(
        {},
        {},
        np.concatenate(logits),
        np.concatenate(interpreted),
        labels,
        np.concatenate(decided),
        classifier.task,
        {name: np.concatenate(values) for name, values in table.items()},
    )
    if falls:
        e.curve = _curve(np.concatenate(falls, axis=3), thresholds, e.pairs)
    several = classifier.task is Task.MULTI_LABEL
    names = (*mask_scores(settings.metrics), *(ABSENT_SCORES if several else ()))
    finish_evaluation(e, classifier.classes, names, seed, settings.faithfulness_threshold)
    e.scores["reconstruction"] = error / len(rows)
    for name in [n for n in e.pairs if n.startswith("components@")]:
        del e.pairs[name]
    return e


def _judge(
    explainer: Explainer,
    heard: Heard,
    classes: Tensor,
    h: Tensor,
    pooled: Tensor,
    keys: Sequence[int],
    thresholds: Sequence[float],
    settings: ExplanationSettings,
    seed: int,
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Columns [P] of pairs of clip and class, by its activations, these pooled, and a number that
    seeds its random baseline; and the falls [thresholds, 1 + draws, 2, P]: under removal of what
    matters, then of as many random components; of probability and logit."""
    classifier, (p, k) = explainer.classifier, h.shape[:2]
    r = explainer.relevances(pooled, classes, heard.size)
    chosen = select(r, settings.threshold, settings.max_components)
    mask = soft_mask(explainer.w, h, chosen)
    own = own_metrics(settings.metrics)
    columns = judge_masks(heard, classes, mask, linear=False, metrics=own)
    columns["components"] = chosen.sum(dim=1).cpu().numpy()
    if classifier.task is Task.MULTI_LABEL:

        def mask_of(rows: list[int], others: Tensor) -> Tensor:
            theirs = explainer.relevances(pooled[rows], others, heard.size[rows])
            picked = select(theirs, settings.threshold, settings.max_components)
            return soft_mask(explainer.w, h[rows], picked)

        columns |= judge_absent(heard, classes, keys, seed, mask_of, linear=False)

    rank = random_ranks(keys, seed, settings.random_draws, k).to(h.device)
    variants = []
    for threshold in thresholds:
        mine = select(r, threshold)
        count = mine.sum(dim=1).view(-1, 1, 1)
        columns[f"components@{threshold:g}"] = count.flatten().cpu().numpy()
        variants.append(torch.cat([mine.unsqueeze(1), rank < count], dim=1))
    wanted = torch.stack(variants, dim=1)  # [P, thresholds, 1 + draws, K]
    # The same components of the same clip are asked for more than once: heard once.
    pair = torch.arange(p, device=h.device).view(-1, 1, 1, 1).expand(*wanted.shape[:3], 1)
    jobs, where = torch.unique(
        torch.cat([pair, wanted], dim=3).flatten(0, 2), dim=0, return_inverse=True
    )
    # Many sounds of one clip: what they share is computed once.
    logs, directions = heard.size.log1p(), phase(heard.spectrum, heard.size)
    whole = reconstruction(explainer.w, h)
    after = []
    for some in jobs.split(_BATCH):
        i, selected = some[:, 0], some[:, 1:].bool()
        left = logs[i] * (1 - soft_mask(explainer.w, h[i], selected, whole[i]))
        removal = synthesise(directions[i], left.expm1_(), explainer.domain, heard.n_samples)
        after.append(heard.judge(removal, i))
    answers = torch.cat(after)[where].unflatten(0, wanted.shape[:3])
    index = classes.view(-1, 1, 1, 1).expand(*wanted.shape[:3], 1)

    def of_class(logits: Tensor) -> Tensor:
        both = torch.stack([classifier.probabilities(logits.flatten(0, -2)), logits.flatten(0, -2)])
        return both.unflatten(1, logits.shape[:-1])

    before = of_class(heard.logits.view(p, 1, 1, -1).expand_as(answers))
    falls = (before - of_class(answers)).gather(4, index.unsqueeze(0).expand(2, *index.shape))
    drop = falls.squeeze(4).permute(2, 3, 0, 1).double().cpu().numpy()
    main = list(thresholds).index(settings.faithfulness_threshold)
    columns |= {
        "components_removed": columns[f"components@{settings.faithfulness_threshold:g}"],
        "fall_probability": drop[main, 0, 0],
        "fall_logit": drop[main, 0, 1],
        "random_probability": drop[main, 1:, 0].mean(axis=0),
        "random_logit": drop[main, 1:, 1].mean(axis=0),
    }
    return columns, drop


def _curve(
    falls: NDArray[Any], thresholds: Sequence[float], pairs: Mapping[str, NDArray[Any]]
) -> list[dict[str, float]]:
    """One line per threshold; `falls` is [thresholds, 1 + draws, 2, P]."""
    lines = []
    for i, threshold in enumerate(thresholds):
        own = faithfulness.summary("faithfulness", *falls[i, 0])
        # The median over clips of each draw, then the mean over draws: one draw is as noisy as
        # the figure it stands beside.
        each = [faithfulness.summary("random", *draw) for draw in falls[i, 1:]]
        line = {"threshold": threshold, **own}
        line |= {name: float(np.mean([d[name] for d in each])) for name in each[0]}
        line["random_probability_std"] = float(np.std([d["random_probability"] for d in each]))
        line["components_removed"] = float(pairs[f"components@{threshold:g}"].mean())
        lines.append(line)
    return lines


def finish_evaluation(
    e: Evaluation,
    classes: Sequence[str],
    names: Sequence[str],
    seed: int,
    threshold: float | None = None,
) -> Evaluation:
    """Fill in the scores, the intervals of those that can be drawn again clip by clip, and figures
    per class: of masks, `names`; and, with a threshold, of removal by the published rule."""
    scores: dict[str, float] = {}
    shares: dict[str, NDArray[Any]] = {}
    single = e.task is Task.SINGLE_LABEL
    if e.labels is not None and single:
        shares["accuracy"] = classification.right(e.logits, e.labels)
    elif e.labels is not None:
        macro, micro, _ = classification.auprc(expit(e.logits), e.labels)
        scores |= {"auprc_macro": macro, "auprc_micro": micro}
    if e.interpreter_logits is not None:
        # A tagger has hundreds of classes, few of which are ever detected: its first class can be
        # compared. With labels several can.
        if single or e.labels is None:
            ranks = fidelity.rank_of_class(e.logits, e.interpreter_logits)
            # With three classes, each is among the first three whatever anybody says.
            told = [k for k in (1, 3, 5) if k == 1 or k < e.logits.shape[1]]
            shares |= {f"fidelity_top{k}": ranks <= k for k in told}
        if not single:
            scores |= fidelity.agreement(expit(e.interpreter_logits), e.decisions)
    means = mean_scores({k: v.astype(float) for k, v in shares.items()}, list(shares), seed)
    scores, intervals = scores | means[0], dict(means[1])
    if threshold is not None:
        main = next((line for line in e.curve if line["threshold"] == threshold), None)
        three = ("probability", "probability_mean", "logit")
        none = [f"{word}_{name}" for word in ("faithfulness", "random") for name in three]
        none += ["random_probability_std", "components_removed"]
        line = main if main is not None else dict.fromkeys(none, float("nan"))
        scores |= {name: value for name, value in line.items() if name != "threshold"}
        for name, column, statistic in (
            ("faithfulness_probability", "fall_probability", np.median),
            ("faithfulness_probability_mean", "fall_probability", np.mean),
            ("faithfulness_logit", "fall_logit", np.median),
            ("components_removed", "components_removed", np.mean),
        ):
            if len(values := e.pairs.get(column, ())):
                intervals[name] = bootstrap_interval(np.asarray(values, float), statistic, seed)
        names = (*names, "components")
    means = mean_scores(e.pairs, names, seed)
    e.scores, e.intervals = scores | means[0], intervals | means[1]
    e.per_class = _per_class(e, classes)
    return e


def _per_class(e: Evaluation, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    per_class: dict[str, dict[str, float]] = {}
    precision: dict[int, float] = {}
    agreed: dict[int, float] = {}
    ranks = None
    if e.task is Task.SINGLE_LABEL:
        if e.interpreter_logits is not None:
            ranks = fidelity.rank_of_class(e.logits, e.interpreter_logits)
    else:
        if e.labels is not None:
            _, _, precision = classification.auprc(expit(e.logits), e.labels)
        if e.interpreter_logits is not None:
            _, _, agreed = classification.auprc(expit(e.interpreter_logits), e.decisions)
    for c, name in enumerate(classes):
        decided = e.decisions[:, c]
        # Labelled so, or, where nobody knows, said to be so.
        figures: dict[str, float] = {
            "clips": int((e.labels if e.labels is not None else e.decisions)[:, c].sum())
        }
        if e.labels is None and not figures["clips"]:
            continue
        if e.task is Task.SINGLE_LABEL:
            if figures["clips"] and e.labels is not None:
                mine = e.labels[:, c]
                figures["accuracy"] = classification.accuracy(e.logits[mine], e.labels[mine])
            if decided.any() and ranks is not None:
                figures["fidelity_top1"] = fidelity.topk_fidelity(ranks[decided], 1)
        if c in precision:
            figures["auprc"] = precision[c]
        if c in agreed:
            figures["fidelity_auprc"] = agreed[c]
        if e.pairs and (mine := e.pairs["class"] == c).any():
            if "fall_probability" in e.pairs:
                figures["faithfulness_probability"] = np.median(e.pairs["fall_probability"][mine])
            if FF_SHARE in e.scores:
                fall, whole = (e.pairs[name][mine] for name in RATIOS[FF_SHARE])
                figures[FF_SHARE] = float(ratio_of_means(np.stack([fall, whole], axis=1), axis=0))
                figures["kept"] = float(e.pairs["kept"][mine].mean())
            if "components" in e.pairs:
                figures["components"] = float(e.pairs["components"][mine].mean())
        per_class[name] = figures
    return per_class


def beside(own: Evaluation, published: Evaluation) -> Evaluation:
    """A method's figures, and those of L2I's published rule on the interpreter that it stands on.

    What both have is the method's; the rule's is called ``published_...``.
    """

    def both(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
        shared = {name: v for name, v in theirs.items() if f"{PUBLISHED}{name}" in METRICS}
        more = {name: v for name, v in theirs.items() if name not in mine}
        more.pop("components", None)
        return {**mine, **more, **{f"{PUBLISHED}{name}": v for name, v in shared.items()}}

    # The same pairs of clip and class, in the same order: the classifier decides them.
    same = all(np.array_equal(own.pairs[k], published.pairs[k]) for k in ("clip", "class"))
    return replace(
        own,
        scores=both(own.scores, published.scores),
        intervals=both(own.intervals, published.intervals),
        per_class={
            # The method's own come first.
            name: {**figures, **published.per_class.get(name, {}), **figures}
            for name, figures in own.per_class.items()
        },
        interpreter_logits=published.interpreter_logits,
        pairs=both(own.pairs, published.pairs) if own.pairs and same else own.pairs,
        curve=published.curve,
    )

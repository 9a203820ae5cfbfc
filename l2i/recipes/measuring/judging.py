"""What masks are worth, whatever made them: the classifier hears the explanation alone, and the
clip without it; beside that stands how much was kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.spectrogram import kept_energy, linear_gain
from l2i.explanation import audible, split_heard
from l2i.metrics import faithfulness
from l2i.metrics.complexity import complexity, mean_mask, sparseness
from l2i.metrics.own import ClipMetric, Judged, own_metrics
from l2i.metrics.statistics import bootstrap_interval, median, ratio_of_means
from l2i.models.heard import Heard


def judge_masks(
    heard: Heard, classes: Tensor, mask: Tensor, *, linear: bool, metrics: Sequence[ClipMetric] = ()
) -> dict[str, NDArray[Any]]:
    """Figures of masks, whatever made them: what the classifier says of the explanation alone
    and of the clip without it, as audio.

    Parameters
    ----------
    heard : Heard
        P clips.
    classes : Tensor [P], int64
        The class explained.
    mask : Tensor [P, F, T]
    linear : bool
        What it is a gain of; see `split_audio`.
    metrics : sequence of ClipMetric
        More columns, of the user's own.

    Returns
    -------
    dict of str to array [P]
        ``probability``, ``explanation_probability``, ``removal_probability``, ``ff_logit``, and
        `MASK_SCORES`; all but the first NaN for a silent clip, of which nothing is explained.
    """
    classifier, size, logits = heard.classifier, heard.size, heard.logits
    audio, removal = split_heard(heard, mask, linear=linear)
    o, q = heard.judge(audio), heard.judge(removal)
    index = classes.unsqueeze(1)

    def of_class(x: Tensor) -> NDArray[np.float64]:
        return x.gather(1, index)[:, 0].double().cpu().numpy()

    y_c, o_c, q_c = (of_class(classifier.probabilities(x)) for x in (logits, o, q))
    kept = classifier.decisions(o).gather(1, index)[:, 0]
    columns = {
        "explanation_probability": o_c,
        "removal_probability": q_c,
        "average_increase": faithfulness.average_increase(y_c, o_c),
        "average_increase_margin": faithfulness.average_increase(y_c, o_c, faithfulness.MARGIN),
        "average_drop": faithfulness.average_drop(y_c, o_c),
        "average_gain": faithfulness.average_gain(y_c, o_c),
        "ff_mean": y_c - q_c,
        "ff_logit": of_class(logits) - of_class(q),
        "fid_in": kept.double().cpu().numpy(),
        "sparseness": sparseness(mask).cpu().numpy(),
        "complexity": complexity(mask).cpu().numpy(),
        "kept": kept_energy(linear_gain(mask, size, linear=linear), size).cpu().numpy(),
        "mean_mask": mean_mask(mask).cpu().numpy(),
    }
    if metrics:
        arrays = (mask, size, audio, removal, classes, logits, o, q)
        judged = Judged(*(x.cpu().numpy() for x in arrays))
        columns |= {m.name: np.asarray(m(judged), np.float64) for m in metrics}
    sounds = audible(size).cpu().numpy()
    return {"probability": y_c} | {k: np.where(sounds, v, np.nan) for k, v in columns.items()}


MASK_SCORES = (
    *("average_increase", "average_increase_margin", "average_drop", "average_gain"),
    *("ff_mean", "fid_in", "sparseness", "complexity", "kept", "mean_mask"),
)
"""Columns of `judge_masks` whose means over pairs are scores of the same name."""

ABSENT_SCORES = ("absent_kept", "absent_closed")
"""Columns of `judge_absent`."""
# Below this probability a class is absent; an explanation that keeps no more energy is closed.
_ABSENT, _CLOSED = 0.02, 0.05


def judge_absent(
    heard: Heard,
    classes: Tensor,
    keys: Sequence[int],
    seed: int,
    mask_of: Callable[[list[int], Tensor], Tensor],
    *,
    linear: bool,
) -> dict[str, NDArray[Any]]:
    """What is kept for a class that is not there.

    One of the classes with a probability below 0.02 is drawn for each pair, so that classes which
    are easily told from all others do not stand for the rest.

    Parameters
    ----------
    heard : Heard
        P clips.
    classes : Tensor [P], int64
        The class explained, which is never drawn.
    keys : sequence of int
        A number per clip; what is drawn hangs on it, on the class and on the seed.
    seed : int
    mask_of : callable
        Rows of `heard` [n] and a class for each [n] -> masks [n, F, T].
    linear : bool
        What they are a gain of.

    Returns
    -------
    dict of str to array [P]
        ``absent_kept``, the share of the energy that the absent class's explanation has, and
        ``absent_closed``, whether that is 0.05 at most. NaN for silence, and where no class is
        absent.
    """
    kept = np.full(len(keys), np.nan)
    absent = heard.classifier.probabilities(heard.logits) < _ABSENT
    absent.scatter_(1, classes.unsqueeze(1), False)
    rows = absent.any(dim=1).nonzero()[:, 0].tolist()
    if rows:
        drawn = [
            int(
                np.random.default_rng([seed, keys[row], int(classes[row])]).choice(
                    absent[row].nonzero()[:, 0].cpu().numpy()
                )
            )
            for row in rows
        ]
        mask, size = mask_of(rows, classes.new_tensor(drawn)), heard.size[rows]
        kept[rows] = kept_energy(linear_gain(mask, size, linear=linear), size).cpu().numpy()
    closed = np.where(np.isnan(kept), np.nan, kept <= _CLOSED)
    return {"absent_kept": kept, "absent_closed": closed}


FF_SHARE = "ff_share"
RATIOS = {FF_SHARE: ("ff_mean", "probability"), "transfer": ("other_ff", "agreed_ff")}
"""Scores that are ratios of two columns' means, and no columns, since the ratio of one clip that is
hardly detected says little: FF over its ceiling, and over what another classifier makes of it."""


def mask_scores(metrics: Sequence[str]) -> tuple[str, ...]:
    """`MASK_SCORES`, `FF_SHARE`, and the names of metrics of one's own."""
    return (*MASK_SCORES, FF_SHARE, *(m.name for m in own_metrics(metrics)))


def mean_scores(
    pairs: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    seed: int,
    groups: NDArray[Any] | None = None,
    medians: Container[str] = (),
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Mean and 95 % interval of columns; what is not defined (NaN) is left out of them.

    Parameters
    ----------
    pairs : mapping of str to array [P]
    names : sequence of str
        Columns, and `RATIOS`.
    seed : int
        The bootstrap's.
    groups : array [P], optional
        The recording of each pair: intervals are then over recordings.
    medians : container of str
        Names whose median is told, not the mean.
    """
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    none = np.zeros(0)
    statistic: Callable[..., Any]
    for name in names:
        columns = [pairs.get(column, none) for column in RATIOS.get(name, (name,))]
        values = np.stack([np.asarray(x, np.float64) for x in columns], axis=1)
        defined = ~np.isnan(values).any(axis=1)
        values = values[defined] if name in RATIOS else values[defined, 0]
        statistic = ratio_of_means if name in RATIOS else median if name in medians else np.mean
        scores[name] = float(statistic(values, axis=0)) if len(values) else float("nan")
        if len(values):
            own = None if groups is None else groups[defined]
            intervals[name] = bootstrap_interval(values, statistic, seed, groups=own)
    return scores, intervals

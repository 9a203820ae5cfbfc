"""Metrics of users.

One of each explanation is named in ``explanation.metrics``, as ``MODULE:NAME``, ``FILE.py:NAME``
or by an entry point ``l2i.metrics``. Its mean over clips then stands beside the others, in all
commands that measure::

    class Loudness:
        name, title, unit, better = "loudness", "Level of the explanation", "dB", ""
        def __call__(self, judged):          # Judged, of P explanations
            return 10 * np.log10((judged.explanation ** 2).mean(1) + 1e-12)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from l2i.errors import UsageError
from l2i.metrics import METRICS, Metric
from l2i.registry import Registry

_BUILT_IN = frozenset(METRICS)
_OWN = Registry("metric", {}, "l2i.metrics")


@dataclass(frozen=True)
class Judged:
    """Explanations of P clips, for a metric of one's own; arrays are on the CPU.

    Attributes
    ----------
    mask : [P, F, T]
        In [0, 1].
    magnitude : [P, F, T]
        ``|X|`` of the clips, each scaled to its peak.
    explanation, removal : [P, S]
        Sounds of the clips so scaled.
    classes : int64 [P]
        The class explained.
    logits, explanation_logits, removal_logits : [P, C]
        What the classifier says of the clip, of the explanation alone, and without it.
    """

    mask: NDArray[Any]
    magnitude: NDArray[Any]
    explanation: NDArray[Any]
    removal: NDArray[Any]
    classes: NDArray[Any]
    logits: NDArray[Any]
    explanation_logits: NDArray[Any]
    removal_logits: NDArray[Any]


class ClipMetric(Protocol):
    """A metric of one's own: what it means, and its value of each explanation."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower", ""]

    def __call__(self, judged: Judged) -> NDArray[Any]:
        """Values [P]; NaN where it is not defined."""


def own_metrics(words: Sequence[str]) -> list[ClipMetric]:
    """Metrics by their words; from then on `METRICS` says what they mean.

    Raises
    ------
    UsageError
        There is no such metric, it lacks what a metric has, or its name is taken.
    """
    metrics: list[ClipMetric] = []
    for word in words:
        metric = _OWN[word]
        metric = metric() if isinstance(metric, type) else metric
        lacks = [a for a in ("name", "title", "unit", "better") if not hasattr(metric, a)]
        if lacks or not callable(metric):
            raise UsageError(f"{word} is no metric: it lacks {', '.join(lacks) or '__call__'}.")
        if metric.name in _BUILT_IN:
            raise UsageError(f"{word} is called {metric.name!r}, as a metric of l2i is: rename it.")
        METRICS[metric.name] = Metric(metric.title, metric.unit, metric.better)
        metrics.append(metric)
    return metrics


def own_digest(words: Sequence[str]) -> str:
    """A digest of the code of metrics, for a run's signature."""
    return " ".join(filter(None, (_OWN.digest(word) for word in words)))

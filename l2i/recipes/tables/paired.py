"""Paired differences of figures, clip by clip: what `compare` says of two runs, and `benchmark` of
two methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.metrics.statistics import bootstrap_interval, holm, mcnemar, wilcoxon
from l2i.storage import write_csv

_BINARY = (
    *("accuracy", "fidelity_top1", "fidelity_top3", "fidelity_top5", "fid_in", "absent_closed"),
    "pointing",
)
_BINARY_KINDS = (
    *("average_increase", "other_average_increase", "spectrogram_average_increase"),
    *("fid_in_at_", "other_fid_in", "spectrogram_fid_in"),
)


def difference(
    figure: str,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    groups: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """By how much the second values of a figure are above the first ones, and whether by chance.

    Parameters
    ----------
    figure : str
        A name in `l2i.metrics.METRICS`: shares have a test of their own.
    first, second : [N]
        The same clips'; where either is not finite, the clip is left out.
    groups : array [N], optional
        The recording of each clip: the interval is then over recordings.

    Returns
    -------
    dict
        ``figure``, ``clips`` (how many count), ``difference`` (the mean), ``interval`` (95 %,
        bootstrap), ``p`` (McNemar's exact test of shares, else Wilcoxon's signed-rank test, over
        clips).

    Examples
    --------
    >>> result = difference("kept", np.zeros(5), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    >>> result["difference"], result["p"]
    (3.0, 0.0625)
    """
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    d: NDArray[np.float64] = y - x
    binary = figure in _BINARY or figure.startswith(_BINARY_KINDS)
    if binary and set(np.unique(np.concatenate([x, y]))) <= {0.0, 1.0, 100.0}:
        p = mcnemar(y > 0, x > 0)
    else:
        p = wilcoxon(d)
    own = None if groups is None else groups[both]
    return {
        "figure": figure,
        "clips": len(d),
        "difference": float(d.mean()) if len(d) else math.nan,
        "interval": list(bootstrap_interval(d, groups=own)),
        "p": p,
    }


def corrected(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that any clip counts for, with ``p_holm``: p, corrected for how many they are."""
    kept = [line for line in lines if line["clips"]]
    return [
        {**line, "p_holm": p} for line, p in zip(kept, holm([x["p"] for x in kept]), strict=True)
    ]


def write_differences(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write differences as CSV, the ends of their intervals last."""
    rows = [{**line, "low": line["interval"][0], "high": line["interval"][1]} for line in lines]
    write_csv(path, [{k: v for k, v in row.items() if k != "interval"} for row in rows])

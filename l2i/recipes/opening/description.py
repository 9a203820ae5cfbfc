"""What MLflow's page of a run says at its top, in Markdown: what it is, main figures, links.

Names that people gave (classes, files, runs) are text in it, not markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from l2i.metrics import MAIN, METRICS, control, meanings
from l2i.pages import Figure
from l2i.run.search import RunInfo
from l2i.run.view import MODE

DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""

_MAIN = (*MAIN, "average_drop")


def main_figures(scores: Mapping[str, float]) -> list[Figure]:
    """What a run is judged by: short name, value, the control that belongs to it, and its meaning.

    >>> for figure in main_figures({"ff_mean": 0.62, "kept": 0.31}):
    ...     print(figure)
    Figure(name='FF', value='0.620', beside='', meaning='FF, mean fall without explanation \
(probability): higher is better')
    Figure(name='energy kept', value='0.310', beside='', meaning='Energy kept in the \
explanation (share): lower is better')
    """
    every = meanings(scores)
    figures = []
    for name in MAIN:
        if math.isfinite(scores.get(name, math.nan)):
            value, means = f"{scores[name]:.3f}", every[name]
            meaning = replace(METRICS[name], title=means["title"]).meaning
            figures.append(Figure(means["short"], value, control(name, scores), meaning))
    return figures


def escaped(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> escaped("a_b <c> [d](e) | `f`")
    'a\\_b \\<c\\> \\[d\\]\\(e\\) \\| \\`f\\`'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#|!&~])", r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; all columns but the first to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def describe_model(
    *,
    what: str,
    scores: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    clips: int,
    experiment_id: str,
    run_id: str,
    listen: bool,
    warnings: Sequence[str] = (),
) -> str:
    """The description of a run that made networks.

    Parameters
    ----------
    what : str
        Data set and fold, in words.
    scores : mapping
        By the names of `l2i.metrics.METRICS`.
    intervals : mapping of str to (low, high)
    clips : int
        Test clips.
    experiment_id, run_id : str
        MLflow's; the links go to the run's artifacts.
    listen : bool
        Whether there is a page to listen to.
    warnings : sequence of str
        Why the figures should not be relied on.
    """
    rows, means = [], meanings(scores)
    for name in _MAIN:
        value = scores.get(name)
        if value is None or not math.isfinite(value):
            continue
        span = intervals.get(name)
        between = f"{span[0]:.3f} to {span[1]:.3f}" if span else ""
        beside = control(name, scores)
        shown = f"{value:.3f} ({beside})" if beside else f"{value:.3f}"
        rows.append([means[name]["title"], shown, between])
    links = [("Figures and curves", "figures.html")]
    if listen:
        links.insert(0, ("**Listen to the explanations**", "explanations/index.html"))
    at = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts"
    pages = " · ".join(f"[{word}]({at}/{path}{MODE})" for word, path in links)
    figures_table = table([f"{clips} test clips", "figure", "95 % interval"], rows)
    main = ", ".join(
        f"{word} **{value}**" + (f" ({beside})" if beside else "")
        for word, value, beside, _ in main_figures(scores)
    )
    cautions = "".join(f"**Caution:** {escaped(sentence)}\n\n" for sentence in warnings)
    # MLflow shows three lines, and the rest when it is asked: what can be heard comes first.
    return f"{pages}\n\n{escaped(what)}: {main}\n\n{cautions}{figures_table}\n"


def describe_found(
    run: RunInfo, kind: str, params: Mapping[str, Any], scores: Mapping[str, float]
) -> str:
    """The description of what was measured: what was asked, and its figures."""
    link = f"#/experiments/{run.experiment_id}/runs/{run.id}"
    what = f"[{escaped(run.name)}]({link})" if run.id else escaped(run.name)
    words = {k: " and ".join(map(str, v)) if isinstance(v, list) else v for k, v in params.items()}
    asked = ", ".join(f"{k} {v}" for k, v in words.items() if v not in (None, ""))
    rows = [[escaped(k), f"{v:.4g}"] for k, v in scores.items() if math.isfinite(v)]
    about = f"{kind} of {what}: {escaped(asked)}"
    # MLflow keeps no longer tag; the rest is among the metrics.
    return f"{about}\n\n{table(['figure', 'value'], rows[:40])}\n"

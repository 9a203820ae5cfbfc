"""What MLflow's page of a run says at its top, in Markdown: what it is, main figures, links.

Names that people gave (classes, files, runs) are text in it, not markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from l2i.metrics import METRICS

__all__ = ["DESCRIPTION", "describe_model", "describe_sweep", "escaped", "table"]

DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""

_MAIN = (
    *("accuracy", "auprc_macro", "fidelity_top1", "fidelity_top3", "fidelity_auprc_macro"),
    *("ff_mean", "fid_in", "kept", "average_drop"),
    *("faithfulness_probability", "random_probability"),
)


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


def _page(experiment_id: str, run_id: str, path: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}"


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
    """Of a run that made networks.

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
    rows = []
    for name in _MAIN:
        value = scores.get(name)
        if value is None or not math.isfinite(value):
            continue
        span = intervals.get(name)
        between = f"{span[0]:.3f} to {span[1]:.3f}" if span else ""
        rows.append([METRICS[name].title, f"{value:.3f}", between])
    links = [("Figures and curves", "figures.html")]
    if listen:
        links.insert(0, ("**Listen to the explanations**", "explanations/index.html"))
    shown = " · ".join(f"[{word}]({_page(experiment_id, run_id, to)})" for word, to in links)
    found = table([f"{clips} test clips", "figure", "95 % interval"], rows)
    # MLflow shows three lines, and the rest when it is asked.
    short = {"accuracy": "accuracy", "auprc_macro": "AUPRC", "fidelity_top1": "top-1 fidelity"}
    short |= {"fidelity_auprc_macro": "fidelity AUPRC", "faithfulness_probability": "removal"}
    main = ", ".join(
        f"{word} **{scores[name]:.3f}**"
        for name, word in short.items()
        if math.isfinite(scores.get(name, math.nan))
    )
    cautions = "".join(f"**Caution:** {escaped(sentence)}\n\n" for sentence in warnings)
    return f"{escaped(what)}: {main}\n\n{cautions}{shown}\n\n{found}\n"


def describe_sweep(
    *,
    what: str,
    settings: Sequence[str],
    meaning: Mapping[str, str],
    cells: Mapping[str, list[str]],
) -> str:
    """Of a table over several runs.

    Parameters
    ----------
    what : str
    settings : sequence of str
        One row each.
    meaning : mapping of str to str
        Figure to its title: one column each.
    cells : mapping of str to list of str
        Setting to what its row says.
    """
    head = ["setting", *(escaped(title) for title in meaning.values())]
    rows = [[escaped(setting), *cells[setting]] for setting in settings if setting in cells]
    return f"{escaped(what)}\n\n{table(head, rows)}\n"

"""``figures.html``: how well a run does, and how it was learnt.

Curves are SVG and tables are tables, so that they follow the reader's light or dark
scheme, and a screen reader or a search finds what is in them.

Over 300 lines: one page, from top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from l2i.pages.charts import chart
from l2i.pages.page import escape, write_page

_ARROW = {"higher": "↑", "lower": "↓"}
_SAID = {"higher": "higher is better", "lower": "lower is better"}
# Labels to check that are shown.
_DOUBTED = 12
# What a class has under another name than in the run's figures.
_COLUMNS = {"clips": "Clips", "auprc": "Classifier AUPRC", "fidelity_auprc": "Fidelity AUPRC"}
_LISTEN = "explanations/index.html"
# What the page to listen to calls those found, missed, wrongly and rightly not named.
_ANSWERS = (
    ("label", "said"),
    ("label", "unsaid"),
    ("unlabelled", "said"),
    ("unlabelled", "unsaid"),
)


def _figure(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return str(value)
    if unit in ("share", "probability") or abs(value) < 0.0005:
        return f"{round(value, 3) + 0.0:.3f}"  # No "-0.000".
    # Three digits, be the last a nought: 5.00 beside 2.38 to 8.29.
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _curves(histories: Mapping[str, Sequence[Mapping[str, float]]], kept: Mapping[str, int]) -> str:
    """The figures of every epoch of every stage; the epoch that was kept is marked."""
    charts = []
    for stage, epochs in histories.items():
        names = list(dict.fromkeys(name for figures in epochs for name in figures))
        terms = ("reconstruction", "fidelity", "sparsity", "validation_reconstruction")
        for word, group in (
            ("loss", [n for n in names if "loss" in n or n == "objective"]),
            ("terms of the loss", [n for n in names if n in terms]),
            ("share right", [n for n in names if n == "validation_accuracy"]),
            ("share of agreement", [n for n in names if n == "validation_fidelity"]),
        ):
            if not group:
                continue
            charts.append(
                chart(
                    f"{stage}: {word}",
                    range(1, len(epochs) + 1),
                    [(n.replace("_", " "), [e.get(n) for e in epochs]) for n in group],
                    "sweep" if group == ["objective"] else "epoch",
                    log="loss" in word,
                    span=(0.0, 1.0) if "share" in word else None,
                    mark=kept.get(stage),
                )
            )
    if not any(charts):
        return ""
    return (
        '<section><h2>Learning</h2><p class="soft">Dotted: the epoch that was kept, the one of '
        "the lowest validation loss unless the settings say to keep the last.</p>"
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _faithfulness(document: Mapping[str, Any]) -> str:
    curve: Sequence[Mapping[str, float | None]] = document["faithfulness"]
    if not curve:
        return ""
    meaning = document["meaning"]
    tau = [float(line["threshold"] or 0.0) for line in curve]

    def of(name: str) -> list[float | None]:
        return [line.get(name) for line in curve]

    charts = [
        chart(
            meaning[f"faithfulness_{word}"]["title"],
            tau,
            [("L2I", of(f"faithfulness_{word}")), ("random removal", of(f"random_{word}"))],
            "relevance threshold τ",
        )
        for word in ("probability", "logit")
    ]
    charts.append(
        chart(
            meaning["components_removed"]["title"],
            tau,
            [("components", of("components_removed"))],
            "relevance threshold τ",
        )
    )
    columns = (
        *("faithfulness_probability", "random_probability", "random_probability_std"),
        *("faithfulness_logit", "random_logit", "components_removed"),
    )
    rows = "".join(
        f'<tr><td class="number">{threshold:g}</td>'
        + "".join(
            f'<td class="number">{_figure(line.get(name), meaning[name]["unit"])}</td>'
            for name in columns
        )
        + "</tr>"
        for threshold, line in zip(tau, curve, strict=True)
    )
    titles = ["τ", *(meaning[name]["short"] for name in columns)]
    head = "".join(f'<th scope="col" class="number">{title}</th>' for title in titles)
    # Where another rule explains, only the published one has a threshold.
    beside = any(name.startswith("published_") for name in document["scores"])
    which = "components that the published rule selects" if beside else "relevant components"
    return (
        f'<section><h2>Faithfulness</h2><p class="soft">What the classifier loses when the {which} '
        "are removed from the audio, and when as many random ones are.</p>"
        f'<div class="charts">{"".join(charts)}</div>'
        "<details><summary>The same as a table</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Faithfulness over τ"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _scores(document: Mapping[str, Any]) -> str:
    rows = []
    scores, controls = document["scores"], document.get("controls", {})
    for name, value in scores.items():
        if name in controls.values():
            continue  # It stands in the row of what it is compared with.
        beside = ""
        if control := controls.get(name):
            title = escape(document["meaning"][control]["title"])
            word = "random" if "random" in control else "control"
            shown = _figure(scores[control], document["meaning"][control]["unit"])
            beside = f' <span class="soft" title="{title}">({word} {shown})</span>'
        meaning = document["meaning"][name]
        ends = document["intervals"].get(name)
        unit = meaning["unit"]
        interval = f"{_figure(ends[0], unit)} to {_figure(ends[1], unit)}" if ends else ""
        better = meaning["better"]
        arrow = (
            f'<span title="{_SAID[better]}" aria-label="{_SAID[better]}" role="img">'
            f"{_ARROW[better]}</span>"
            if better
            else ""
        )
        rows.append(
            f'<tr><th scope="row" title="{escape(name)} in scores.json and the glossary">'
            f"{escape(meaning['title'])}</th><td>{arrow}</td>"
            f'<td class="number" data-name="{escape(name)}">{_figure(value, unit)}{beside}</td>'
            f'<td class="number">{interval}</td><td>{escape(unit)}</td>'
            f'<td class="soft">{escape(meaning["source"])}</td></tr>'
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table class="scores">'
        '<thead><tr><th scope="col">figure</th><th scope="col"><span title="which way is better" '
        'aria-label="which way is better">↕</span></th><th scope="col" class="number">value</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col">unit</th>'
        f'<th scope="col">source</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _per_class(document: Mapping[str, Any]) -> str:
    per_class = document["per_class"]
    names = list(dict.fromkeys(name for figures in per_class.values() for name in figures))
    if not names:
        return ""
    head = ['<th scope="col" aria-sort="none"><button type="button">class</button></th>']
    for name in names:
        meaning = document["meaning"].get(name, {})
        title = _COLUMNS.get(name) or meaning.get("short") or name.replace("_", " ")
        arrow = _ARROW.get(meaning.get("better", "higher" if "auprc" in name else ""), "")
        head.append(
            f'<th scope="col" class="number" aria-sort="none"><button type="button">'
            f"{escape(title)} {arrow}</button></th>"
        )
    rows = []
    for title, figures in per_class.items():
        cells = []
        for name in names:
            value = figures.get(name)
            key = "" if value is None else f"{value!r}"
            text = _figure(value, "" if name in ("clips", "components") else "share")
            cells.append(f'<td class="number" data-key="{key}">{text}</td>')
        mark = ""
        if title in document.get("weak_classes", ()):
            why = "The removal of its explanations hardly lowers it: they do not hold"
            mark = f' <span class="weak" title="{why}">does not hold</span>'
        rows.append(
            f'<tr><th scope="row" data-key="{escape(title)}">{escape(title)}{mark}</th>'
            f"{''.join(cells)}</tr>"
        )
    return (
        '<section><h2>Per class</h2><p class="soft">Click a column’s head to sort by it.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Per class">'
        f'<table class="sortable"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _to_clips(number: int, words: Mapping[str, str], text: str) -> str:
    """A cell's count as a link to its clips on the page to listen to, where that has some."""
    if not number:
        return text
    address = escape(f"{_LISTEN}#{urlencode(words)}")
    return f'<a href="{address}" title="Listen to {number} of them">{text}</a>'


def _confusion(
    counts: NDArray[np.int64],
    rows: Sequence[str],
    columns: Sequence[str],
    corner: str,
    heard: Mapping[tuple[int, int], int],
) -> str:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    square = counts.shape[0] == counts.shape[1] and list(rows) == list(columns)
    if square:
        note = f"{np.trace(counts)} of {counts.sum()} clips are right; rows are what a clip is."
    else:
        note = "Clips, by what they are and what the classifier says."
    if any(heard.values()):
        note += " An underlined number leads to those of its clips that can be heard."
    head = "".join(f'<th scope="col"><span>{escape(c)}</span></th>' for c in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="h{round(10 * share[r, c])}">'
            + _to_clips(
                heard.get((r, c), 0),
                {"label": name, "said": columns[c]} if square else dict.fromkeys(_ANSWERS[c], name),
                str(counts[r, c] or ""),
            )
            + "</td>"
            for c in range(len(columns))
        )
        + "</tr>"
        for r, name in enumerate(rows)
    )
    kind = "confusion upright" if square else "confusion"
    return (
        f'<section><h2>Confusions</h2><p class="soft">{note}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusions">'
        f'<table class="{kind}"><thead><tr><th scope="col" class="soft">{escape(corner)}</th>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _doubted(labels: Sequence[Mapping[str, Any]]) -> str:
    if not labels:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(line["clip"])}</th><td>{escape(line["label"])}</td>'
        f"<td>{escape(line['predicted'])}</td>"
        f'<td class="number">{_figure(line["probability"], "share")}</td>'
        f'<td class="number">{_figure(line["label_probability"], "share")}</td></tr>'
        for line in labels[:_DOUBTED]
    )
    titles = ("clip", "label", "classifier says", "its probability", "the label’s")
    head = "".join(
        f'<th scope="col"{" class=number" if "prob" in t or "’" in t else ""}>{t}</th>'
        for t in titles
    )
    shown = f" The first {_DOUBTED} of {len(labels)}." if len(labels) > _DOUBTED else ""
    return (
        '<section><h2>Labels to check</h2><p class="soft">Test clips whose label the classifier '
        "contradicts, the surest first: mislabelled, or its worst mistakes. Listen to tell which."
        f"{shown} All are in labels.csv.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Labels to check"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def write_figures_page(
    path: Path,
    document: Mapping[str, Any],
    *,
    title: str,
    classes: Sequence[str],
    counts: NDArray[np.int64] | None,
    answers: Sequence[str] = (),
    histories: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    kept: Mapping[str, int] | None = None,
    doubted: Sequence[Mapping[str, Any]] | None = None,
    heard: Mapping[tuple[int, int], int] | None = None,
    listen: bool = False,
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
        A ``.html``.
    document : mapping
        What ``scores.json`` holds.
    title : str
    classes : sequence of str
    counts : int64 [C, C] or [C, A], optional
        Rows are what clips are; columns what the classifier says, or its `answers`. None where
        nobody knows what clips are.
    answers : sequence of str
        Where a clip may have several classes: found, missed, and so on.
    histories : mapping of str to sequence of mappings, optional
        Stage to its epochs' figures.
    kept : mapping of str to int, optional
        Stage to the epoch whose weights were kept, from 1.
    doubted : sequence of mapping, optional
        Rows of `l2i.metrics.labels.doubted_labels`; None where nobody knows what clips are.
    heard : mapping of (int, int) to int, optional
        Row and column of `counts` to how many of these clips the page to listen to has.
    listen : bool
        Whether there is such a page, ``explanations/index.html`` beside this one.
    """
    body = [
        f'<p id="listen"><a href="{_LISTEN}">Listen to the explanations</a></p>' if listen else "",
        f'<section><h2>Figures</h2><p class="soft">{document["clips"]} test clips, '
        f"{escape(document['task'])}. All are of audio: through the inverse STFT and the "
        f"classifier's own front-end. ↑: higher is better; ↓: lower is better.</p>"
        f"{_scores(document)}</section>",
        _faithfulness(document),
        ""
        if counts is None
        else _confusion(
            counts, classes, answers or classes, "class" if answers else "is ↓  said →", heard or {}
        ),
        _doubted(doubted or ()),
        _per_class(document),
        _curves(histories or {}, kept or {}),
    ]
    write_page(path, "figures", title, {"body": "\n".join(body)})

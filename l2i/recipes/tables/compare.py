"""Finished runs side by side: which figures differ, and by more than chance would have it.

Figures are compared clip by clip, on the clips that both runs were measured on: what makes a clip
hard makes it hard for both, so that a difference of pairs is surer than one of means. Seeds and
folds are not drawn again here: a sweep tells their spread.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from l2i.data.base import class_differences
from l2i.errors import DataError, StoreError, UsageError
from l2i.metrics import METRICS, SHORT, meanings
from l2i.recipes.measuring.judging import ABSENT_SCORES, MASK_SCORES
from l2i.recipes.tables.paired import corrected, difference, write_differences
from l2i.recipes.tables.side_by_side import write_side_by_side
from l2i.run.artifacts import download
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run
from l2i.storage import disk_errors, make_output, write_json

_COLUMNS = {
    "faithfulness_probability_mean": "fall_probability",
    **{k: k for k in (*MASK_SCORES, *ABSENT_SCORES, "components", "components_removed")},
}
# What clips are ordered by on the page, the first that both runs have.
_ORDER = ("ff_mean", "faithfulness_probability_mean", "accuracy")
_HEARD = 12
# What a run was made on and where is no setting of the experiment.
_NO_SETTING = ("dataset.data_dir", "run.device", "run.threads", "run.experiment", "run.name")


@dataclass(frozen=True)
class _Measured:
    name: str
    scores: dict[str, float | None]
    settings: dict[str, str]
    clips: pd.DataFrame
    """One row per clip, the index its id; one column per figure that clips have."""
    classes: list[str]
    """Empty where its figures are of masks alone."""
    labels: pd.Series
    """Each clip's, as it was when it was measured."""


def compare(
    words: Sequence[str], *, out: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Figures of finished runs, and paired differences of each from the first.

    Parameters
    ----------
    words : sequence of str
        At least two: run ids, run names, ``latest``, or folders that ``l2i evaluate --out`` wrote.
    out : Path, optional
        A folder for ``compare.json`` and ``compare.csv``; and for ``index.html``, a page to listen
        to a dozen clips as each run explains them, those first where the runs differ most.
    progress : Progress, optional
        Where it is told what is explained; without it there is no such page.

    Returns
    -------
    dict
        ``runs``: their names; ``settings``: those that differ, key -> a value per run;
        ``scores``: figure -> a value per run; ``differences``: one dict per further run and
        figure that clips have, with ``run``, ``figure``, ``clips`` (how many both have),
        ``difference`` (the further run's mean less the first's, over those clips),
        ``interval`` (95 %, bootstrap), ``p`` (McNemar's exact test of shares, else Wilcoxon's
        signed-rank test) and ``p_holm``, corrected for the number of figures; ``relabelled``:
        further run -> how many of the clips that both have are labelled otherwise in it;
        ``meaning``.

    Raises
    ------
    UsageError
        Fewer than two runs, or no such run.
    DataError, StoreError
        A run was not measured, no clip is common, or runs have classes of other names.
    """
    if len(words) < 2:
        raise UsageError("Give two runs or more, such as: l2i compare first second.")
    runs = [_read(word) for word in words]
    names = [run.name for run in runs]
    # Runs of one name are told apart by their place.
    names = [n if names.count(n) == 1 else f"{n} ({i})" for i, n in enumerate(names, start=1)]
    first = runs[0]
    differences: list[dict[str, Any]] = []
    relabelled: dict[str, int] = {}
    for name, other in zip(names[1:], runs[1:], strict=True):
        common = first.clips.index.intersection(other.clips.index)
        if common.empty:
            raise DataError(
                f"{names[0]} and {name} were not measured on any clip in common: compare runs of "
                "the same data set and fold."
            )
        if (others := class_differences(other.classes, first.classes)) and (
            first.classes and other.classes and set(first.classes) != set(other.classes)
        ):
            raise DataError(
                f"{name} has other classes than {names[0]}: {others}. Compare runs of the same "
                "classes."
            )
        a, b = (run.labels.reindex(common).dropna() for run in (first, other))
        if n := int((a != b.reindex(a.index)).sum()):
            relabelled[name] = n
        lines = [
            difference(
                column,
                first.clips[column][common].to_numpy(np.float64),
                other.clips[column][common].to_numpy(np.float64),
            )
            for column in first.clips
            if column in other.clips
        ]
        differences += [{"run": name, **line} for line in corrected(lines)]
    figures = [f for f in METRICS if any(f in run.scores for run in runs)]
    keys = sorted({key for run in runs for key in run.settings})
    # A folder knows no settings, an older run not all: what is not known does not differ.
    settings = {
        key: [run.settings.get(key) for run in runs]
        for key in keys
        if len({run.settings[key] for run in runs if key in run.settings}) > 1
    }
    document = {
        "runs": names,
        "settings": settings,
        "scores": {f: [run.scores.get(f) for run in runs] for f in figures},
        "differences": differences,
        "relabelled": relabelled,
        "meaning": meanings((*figures, *(d["figure"] for d in differences))),
    }
    if out is not None:
        with disk_errors(out):
            make_output(out)
            write_json(out / "compare.json", document)
            write_differences(differences, out / "compare.csv")
            if progress is not None:
                _listen(words, runs, out / "index.html", progress)
    return document


def _listen(
    words: Sequence[str], runs: Sequence[_Measured], page: Path, progress: Progress
) -> None:
    """The page to listen to, where all of them are runs, whose networks there are."""
    if folders := [word for word in words if Path(word).is_dir()]:
        progress.say(f"There is no page to listen to: {folders[0]} is a folder, without networks.")
        return
    letters = [chr(ord("A") + i) for i in range(len(runs))]
    clips = _differing(runs, letters)
    names = " and ".join(f"{a} ({run.name})" for a, run in zip(letters, runs, strict=True))
    write_side_by_side(words, letters, clips, page, progress, title=f"Compared: {names}")


def _differing(runs: Sequence[_Measured], letters: Sequence[str]) -> dict[str, str]:
    """Clips that all have, those first where the figure differs most, and what it is in each."""
    figure = next((f for f in _ORDER if all(f in run.clips for run in runs)), None)
    common = runs[0].clips.index
    for run in runs[1:]:
        common = common.intersection(run.clips.index)
    if figure is None:
        return dict.fromkeys(common[:_HEARD], "")
    values = pd.DataFrame({a: r.clips[figure][common] for a, r in zip(letters, runs, strict=True)})
    spread = (values.max(axis=1) - values.min(axis=1)).sort_values(ascending=False, kind="stable")
    return {
        str(clip): f"{SHORT[figure]} "
        + ", ".join(f"{letter} {value:.2f}" for letter, value in values.loc[clip].items())
        for clip in spread.index[:_HEARD]
    }


def _read(word: str) -> _Measured:
    folder = Path(word)
    settings: dict[str, str] = {}
    if folder.is_dir():
        name = folder.name or str(folder)
        scores, clips = folder / "scores.json", folder / "clips.csv"
        if not (scores.is_file() and clips.is_file()):
            raise DataError(
                f"The folder {folder} has no scores.json and clips.csv: "
                f"'l2i evaluate RUN --out {folder}' writes them."
            )
    else:
        run = resolve_run(word)
        name = run.name
        settings = {k: v for k, v in run.params.items() if k not in _NO_SETTING}
        try:
            scores, clips = download(run, "scores.json"), download(run, "clips.csv")
        except StoreError as error:
            if run.status == "FINISHED" and run.has_model and "has no artifact" in str(error):
                raise DataError(
                    f"Run {name} ({run.id[:8]}) was not measured: 'l2i evaluate {run.id[:8]} "
                    "--out FOLDER' measures it, and FOLDER can be compared."
                ) from None
            raise
    try:
        tree = json.loads(scores.read_text(encoding="utf-8"))
        measured, classes = tree["scores"], list(tree.get("per_class", {}))
        table = pd.read_csv(clips, dtype={"clip": str, "labels": str, "class": str})
        labels = table.get("labels", pd.Series(dtype=str)).fillna("")
        labels = labels.groupby(table["clip"]).first()
        return _Measured(name, measured, settings, _per_clip(table, measured), classes, labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The figures of {name} cannot be read: {error}.") from None


def _per_clip(table: pd.DataFrame, figures: Container[str]) -> pd.DataFrame:
    """What each clip adds to the figures: of several classes in one clip, the mean."""
    by_clip = pd.DataFrame({"clip": table["clip"]})
    if "accuracy" in figures:
        by_clip["accuracy"] = (table["class"] == table["labels"]).astype(float)
    if "rank" in table:
        for k in (1, 3, 5):
            if (name := f"fidelity_top{k}") in figures:
                by_clip[name] = (table["rank"] <= k).astype(float)
    for figure, column in _COLUMNS.items():
        if column in table and figure in figures:
            by_clip[figure] = table[column].astype(float)
    return by_clip.groupby("clip", sort=False).mean()

"""A sweep's table: mean and deviation over folds and seeds, and the files that show it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from l2i.metrics import METRICS
from l2i.recipes.opening.description import DESCRIPTION, escaped
from l2i.recipes.opening.description import table as markdown
from l2i.recipes.tables.sweep_file import METRICS_SHOWN, Sweep, facts
from l2i.run.family import find_parent, members, write_parent
from l2i.storage import atomic_write_text, disk_errors, write_csv, write_json


def plus_minus(figure: dict[str, Any] | None) -> str:
    """Mean and deviation, as a table has them.

    >>> plus_minus({"mean": 0.85, "std": 0.0213, "n": 5})
    '0.850 ± 0.021'
    >>> plus_minus({"mean": 1.0, "std": None, "n": 1})
    '1.000'
    """
    if figure is None:
        return "-"
    text = f"{figure['mean']:.3f}"
    return text if figure["std"] is None else f"{text} ± {figure['std']:.3f}"


def table_of(
    wanted: Sweep, run_id: str, name: str, children: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """All that the table of some children says: of each setting mean, standard deviation (of a
    sample: n - 1; None of one value) and number over folds and seeds, figure by figure."""
    table = []
    for setting in wanted.settings:
        mine = [child["scores"] for child in children if child["setting"] == setting]
        figures = {}
        for figure in wanted.metrics or METRICS_SHOWN:
            x = np.array([s[figure] for s in mine if s.get(figure) is not None], np.float64)
            if len(x):
                std = float(x.std(ddof=1)) if len(x) > 1 else None
                figures[figure] = {"mean": float(x.mean()), "std": std, "n": len(x)}
        table.append({"setting": setting, "figures": figures})
    return {
        "run": {"id": run_id, "name": name},
        "settings": list(wanted.settings),
        "children": list(children),
        "table": table,
        "meaning": {f: METRICS[f].title for row in table for f in row["figures"]},
    }


def write_table(wanted: Sweep, table: dict[str, Any], out: Path) -> dict[str, float | None]:
    """Write a table's files into a folder; the figures, by the names they have in the store.

    Parameters
    ----------
    wanted : Sweep
    table : dict
        As `table_of` returns it.
    out : Path
    """
    from l2i import plots

    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        rows = [
            {**{k: c[k] for k in ("setting", "fold", "seed", "run_id", "name")}, **c["scores"]}
            for c in table["children"]
        ]
        write_csv(out / "children.csv", rows)
        lines = [
            {"setting": row["setting"], "figure": name, **figure}
            for row in table["table"]
            for name, figure in row["figures"].items()
        ]
        write_csv(out / "sweep.csv", lines)
        atomic_write_text(out / "sweep.txt", _text(table))
        atomic_write_text(out / "sweep.toml", wanted.path.read_text(encoding="utf-8"))
        plots.sweep(table["children"], table["meaning"], table["settings"], out / "sweep.png")
        write_json(out / "sweep.json", table)
    means: dict[str, float | None] = {}
    for row in table["table"]:
        # What MLflow lets a metric's name have.
        plain = "".join(c if c.isalnum() or c in "_-. " else "_" for c in row["setting"])
        word = "" if len(table["table"]) == 1 else f"{plain}/"
        for name, figure in row["figures"].items():
            means[f"{word}{name}/mean"] = figure["mean"]
            means[f"{word}{name}/std"] = figure["std"]
    return means


def describe_table(wanted: Sweep, table: dict[str, Any]) -> str:
    """The table in Markdown, for MLflow's page of the run above all of a sweep."""
    n, meaning = len(table["children"]), table["meaning"]
    what = f"{wanted.path.name}: mean ± standard deviation over folds and seeds, {n} trainings"
    rows = [
        [escaped(row["setting"]), *(plus_minus(row["figures"].get(name)) for name in meaning)]
        for row in table["table"]
    ]
    return f"{escaped(what)}\n\n{markdown(['setting', *map(escaped, meaning.values())], rows)}\n"


def _text(table: dict[str, Any]) -> str:
    names = list(table["meaning"])
    data = {
        row["setting"]: [plus_minus(row["figures"].get(name)) for name in names]
        for row in table["table"]
    }
    frame = pd.DataFrame(data, index=[table["meaning"][name] for name in names])
    n = {f["n"] for row in table["table"] for f in row["figures"].values()}
    head = "Mean and standard deviation over folds and seeds"
    counts = f"{min(n)} to {max(n)}" if len(n) > 1 else f"{n.pop()}"
    return f"{head} ({counts} trainings a setting)\n\n{frame.to_string()}\n"


def gather(wanted: Sweep) -> tuple[int, int]:
    """Write the table of all children that are finished to the run above them.

    Returns
    -------
    (int, int)
        How many children are finished, and how many there are.
    """
    experiment = facts(wanted)["experiment"]
    keys = {child.key for child in wanted.children}
    seen: set[str] = set()
    while True:
        done = {k: r for k, r in members(wanted.signature, finished=True).items() if k in keys}
        run = find_parent(experiment, wanted.signature)
        # Another task that ends now may write a table without us after ours, so it is not over
        # before what was written is what there is.
        if run is None or {r.id for r in done.values()} == seen:
            return len(done), len(keys)
        children = [
            {**child.place, "run_id": one.id, "name": one.name, "scores": one.scores}
            for child in wanted.children
            if (one := done.get(child.key)) is not None
        ]
        over = len(done) == len(keys)
        with tempfile.TemporaryDirectory() as folder:
            means: dict[str, float | None] = {}
            tags: dict[str, str] = {}
            if children:
                table = table_of(wanted, run.id, run.name, children)
                means = write_table(wanted, table | {"failed": []}, Path(folder))
                tags[DESCRIPTION] = describe_table(wanted, table)
            word = "FINISHED" if over else "RUNNING"
            write_parent(run, means, len(done), Path(folder), word, tags)
        seen = {r.id for r in done.values()}

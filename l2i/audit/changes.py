"""Two audits beside each other: what came, what went, which classes rest on something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2i.audit.report import SCHEMA
from l2i.errors import DataError, StoreError, UsageError
from l2i.run.artifacts import download
from l2i.run.runs import list_runs, resolve_run

# How far two spectra of a class's evidence are apart before it is said that it moved: the share of
# one that would have to be moved to make it the other.
_MOVED = 0.25


def changes(before: str, after: str) -> dict[str, Any]:
    """What differs between the audits of two models.

    Parameters
    ----------
    before, after : str
        A run that was audited (its last audit counts), an audit itself, or a folder or
        ``audit.json`` that ``l2i audit --out`` wrote.

    Returns
    -------
    dict
        ``runs``, their names; ``new``, ``gone`` and ``stayed``, suspects; ``moved``, classes whose
        evidence is at other frequencies, with ``share``, in [0, 1]: how much of it, the greatest
        first; ``missing``, classes that only one of them has.

    Raises
    ------
    UsageError
        There is no such run, or it was never audited.
    DataError
        A document is no audit.
    """
    old, new = document_of(before), document_of(after)
    then, now = old["suspects"], new["suspects"]
    kept = [s for s in now if any(_same(s, other) for other in then)]
    classes = [{c["class"]: c for c in document["classes"]} for document in (old, new)]
    both = [name for name in classes[1] if name in classes[0]]
    moved = [
        {"class": name, "share": round(_apart(classes[0][name], classes[1][name]), 3)}
        for name in both
    ]
    moved = sorted((m for m in moved if m["share"] >= _MOVED), key=lambda m: -m["share"])
    return {
        "runs": [old["run"]["name"], new["run"]["name"]],
        "new": [s for s in now if s not in kept],
        "gone": [s for s in then if not any(_same(s, other) for other in now)],
        "stayed": kept,
        "moved": moved,
        "missing": sorted(set(classes[0]) ^ set(classes[1])),
    }


def document_of(word: str) -> dict[str, Any]:
    """What an audit said, as for `changes`: by a run that was audited, or by the audit."""
    path = Path(word)
    if path.is_dir() and (path / "audit.json").is_file():
        path = path / "audit.json"
    if not path.is_file():
        run = resolve_run(word)
        if run.kind != "audit":
            tags = {"mlflow.parentRunId": run.id}
            audits = list_runs(run.experiment, limit=1, kind="audit", status="finished", tags=tags)
            if not audits:
                raise UsageError(
                    f"Run {run.name} ({run.id[:8]}) was never audited: give 'l2i audit "
                    f"{run.id[:8]}' first."
                )
            run = audits[0]
        path = download(run, "audit.json")
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise DataError(f"{path} is an audit of schema {document['schema']}, not {SCHEMA}.")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is no audit: it was not written by 'l2i audit'.") from None
    return document


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two suspects are one: of one class, and at one place in frequency and time, or of the
    same companions.

    Numbers of components say nothing: each model has a dictionary of its own.
    """
    if a["class"] != b["class"]:
        return False
    x, y = a["where"], b["where"]
    if "sounds" in x or "sounds" in y:
        return set(x.get("sounds", ())) == set(y.get("sounds", ()))
    if "amount" in x or "amount" in y:
        return bool(x["kind"] == y["kind"])

    def overlap(low: str, high: str) -> bool:
        return bool(max(x[low], y[low]) < min(x[high], y[high]))

    return overlap("low_hz", "high_hz") and overlap("start", "end")


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Total variation between two spectra of evidence, in [0, 1]; 0 where one has none."""
    x, y = (np.asarray(c["spectrum"], np.float64) for c in (a, b))
    if not x.sum() or not y.sum() or len(x) != len(y):
        return 0.0
    return float(np.abs(x / x.sum() - y / y.sum()).sum() / 2)

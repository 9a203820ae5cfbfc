"""What an audit says: a document of stable form, a table, lines for a terminal.

``audit.json`` has ``schema`` 1; fields are added to it and not renamed. docs/audit.md says what
each of them means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.audit.cues import Companion, Cue, Palette
from l2i.audit.groups import Groups
from l2i.audit.proof import Proof
from l2i.audit.scan import Rows
from l2i.audit.traits import Trait
from l2i.audit.words import described, sentence
from l2i.pages.pictures import spectrum_line

SCHEMA = 1
_SHOWN = 5
# From which share of a class's clips on it is said that its explanations are taken for another's.
_MISTAKEN = 0.2
_LINES = 20
# Mistakes that are told, the surest first.
_MISTAKES = 50


def _rounded(value: float, digits: int = 4) -> float | None:
    return None if value != value else round(float(value), digits)


def _share(values: NDArray[Any]) -> float | None:
    return _rounded(float(values.mean())) if len(values) else None


def components(
    evidence: NDArray[np.floating], level: NDArray[np.floating], palette: Palette
) -> list[dict[str, Any]]:
    """The parts that most of some explanations' energy is of, the largest share first."""
    mean, loud = evidence.mean(axis=0), level.mean(axis=0)
    order = [int(k) for k in np.argsort(-mean)[:_SHOWN] if mean[k] > 0]
    return [
        {
            "kind": palette.parts[k].kind,
            "number": k,
            "peak_hz": _rounded(palette.peak_hz(k), 1),
            "low_hz": _rounded(palette.parts[k].low_hz, 1),
            "high_hz": _rounded(palette.parts[k].high_hz, 1),
            "evidence": _rounded(mean[k]),
            "level": _rounded(loud[k]),
        }
        for k in order
    ]


def spectrum(evidence: NDArray[np.floating], palette: Palette) -> list[int]:
    """What some explanations are made of, as a small picture has it: see `spectrum_line`. It is of
    sound, whatever parts there are, so that two models can be compared."""
    w = palette.w.cpu().numpy().astype(np.float64)
    share = np.square(w) / np.maximum(np.square(w).sum(axis=0), 1e-30)
    return spectrum_line(share @ evidence.mean(axis=0), palette.domain.sample_rate)


def class_facts(
    name: str,
    number: int,
    rows: Rows,
    labels: NDArray[np.bool_] | None,
    groups: Groups,
    palette: Palette,
    classes: Sequence[str],
) -> dict[str, Any]:
    """What there is to say of one class; `rows` are its own, `labels` [clips, C] all there are."""
    taken = np.bincount(rows.alone_as[rows.alone_as != number], minlength=len(classes))
    other = int(taken.argmax()) if taken.any() else None
    return {
        "class": name,
        "clips": len(rows),
        "labelled": None if labels is None else int(labels[:, number].sum()),
        "right": None if labels is None else _share(labels[rows.clip, number]),
        "probability": _share(rows.probability),
        "alone": _share(rows.alone),
        "alone_same": _share(rows.alone_as == number),
        "alone_other": None
        if other is None or taken[other] < _MISTAKEN * len(rows)
        else {"class": classes[other], "share": _rounded(taken[other] / len(rows))},
        "kept": _share(rows.kept),
        "components": components(rows.evidence, rows.level, palette) if len(rows) else [],
        "spectrum": spectrum(rows.evidence, palette) if len(rows) else [],
        "when": [_rounded(v) for v in rows.when.mean(axis=0)] if len(rows) else [],
        "silhouette": _rounded(groups.silhouette),
        "stability": _rounded(groups.stability),
        "groups": [],
    }


def group_facts(
    rows: Rows,
    right: NDArray[np.bool_] | None,
    palette: Palette,
    clip_ids: Sequence[str],
    recordings: Sequence[str],
) -> dict[str, Any]:
    """What there is to say of one group of a class's explanations."""
    centre = np.sqrt(rows.evidence.mean(axis=0))
    typical = np.argsort(np.square(np.sqrt(rows.evidence) - centre).sum(axis=1), kind="stable")
    names, counts = np.unique([recordings[i] for i in rows.clip], return_counts=True)
    most = int(counts.argmax())
    return {
        "clips": len(rows),
        "right": None if right is None else _share(right),
        "components": components(rows.evidence, rows.level, palette),
        "spectrum": spectrum(rows.evidence, palette),
        "when": [_rounded(v) for v in rows.when.mean(axis=0)],
        "typical": [clip_ids[rows.clip[i]] for i in typical[:3]],
        "recordings": len(names),
        "recording": str(names[most]) if counts[most] == len(rows) > 1 else None,
    }


def mistake_facts(
    rows: Rows,
    labels: NDArray[np.bool_],
    palette: Palette,
    classes: Sequence[str],
    clip_ids: Sequence[str],
) -> list[dict[str, Any]]:
    """Clips that are taken for a class that they are not, and what misled; the surest first."""
    wrong = np.flatnonzero(~labels[rows.clip, rows.classes])
    wrong = wrong[np.argsort(-rows.probability[wrong], kind="stable")][:_MISTAKES]
    return [
        {
            "clip": clip_ids[int(rows.clip[i])],
            "labels": [classes[int(c)] for c in np.flatnonzero(labels[rows.clip[i]])],
            "class": classes[int(rows.classes[i])],
            "probability": _rounded(rows.probability[i]),
            "alone": _rounded(rows.alone[i]),
            "kept": _rounded(rows.kept[i]),
            "components": components(rows.evidence[i : i + 1], rows.level[i : i + 1], palette),
        }
        for i in wrong
    ]


def where(cue: Cue | Trait | Companion, names: Sequence[str] = ()) -> dict[str, Any]:
    """Where a cue is; `names` are those of the classes."""
    if isinstance(cue, Companion):
        return {"kind": "companion", "sounds": [names[c] for c in cue.pair]}
    if isinstance(cue, Trait):
        return {"kind": cue.kind, "amount": _rounded(cue.amount)}
    return {
        "kind": cue.kind,
        "number": cue.number,
        "low_hz": _rounded(cue.low_hz, 1),
        "high_hz": _rounded(cue.high_hz, 1),
        "start": _rounded(cue.start),
        "end": _rounded(cue.end),
    }


def _counts(flips: NDArray[np.bool_], control: NDArray[np.bool_]) -> dict[str, Any] | None:
    if not len(flips):
        return None
    return {"clips": len(flips), "flips": int(flips.sum()), "control": int(control.sum())}


def suspect_facts(
    proof: Proof, p: float, names: Sequence[str], clip_ids: Sequence[str], duration_s: float
) -> dict[str, Any]:
    """What the counter-proof found of one cue."""
    trial = proof.trial
    at = where(trial.cue, names)
    if trial.tone_hz is not None:
        at["tone_hz"] = _rounded(trial.tone_hz, 1)
    facts = {
        "class": names[trial.label],
        "where": at,
        "words": described(at, duration_s),
        "level_db": _rounded(trial.level_db, 1) if isinstance(trial.cue, Cue) else None,
        "score": _rounded(proof.excess),
        "p": p,
        "removal": _counts(proof.removal, proof.removal_control),
        "insertion": _counts(proof.insertion, proof.insertion_control),
        "clips": [clip_ids[i] for i in proof.own[:3]],
        "hosts": [clip_ids[i] for i in proof.hosts[proof.insertion][:3]],
    }
    return facts | {"sentence": sentence(facts)}


def table(document: Mapping[str, Any]) -> str:
    """``audit.csv``: a line for each class, its worst suspect in it."""
    text = io.StringIO()
    columns = ("class", "clips", "labelled", "right", "probability", "alone_same", "kept")
    more = ("groups", "suspects", "suspect", "level_db", "score", "p")
    writer = csv.DictWriter(text, [*columns, *more], lineterminator="\n")
    writer.writeheader()
    for facts in document["classes"]:
        mine = [s for s in document["suspects"] if s["class"] == facts["class"]]
        row = {name: facts[name] for name in columns}
        row |= {"groups": len(facts["groups"]), "suspects": len(mine)}
        if mine:
            row |= {"suspect": mine[0]["words"]}
            row |= {name: mine[0][name] for name in ("level_db", "score", "p")}
        writer.writerow({k: "" if v is None else v for k, v in row.items()})
    return text.getvalue()


def lines(document: Mapping[str, Any]) -> list[str]:
    """The audit in twenty lines at the most."""
    suspects, notes = document["suspects"], document["notes"]
    n = len(suspects)
    first = (
        "No suspect: nothing that was tried decides for a class without being its sound."
        if not n
        else f"{n} suspect{'s' if n > 1 else ''}: what decides for a class without being its sound."
    )
    rate = document["settings"]["false_alarms"]
    second = (
        f"{document['tested']} cues had a counter-proof; were none at fault, one or more would be "
        f"a suspect in at most {100 * rate:.0f} % of audits."
    )
    if not document["tested"]:
        first, second = "No suspect.", "No cue had a counter-proof: none that was tried did enough."
    out = [first, second]
    room = _LINES - len(out) - min(4, len(notes)) - (n > 8)
    out += [f"{i}. {s['sentence']}" for i, s in enumerate(suspects[:8][:room], start=1)]
    if n > 8:
        out.append(f"and {n - 8} more: see the page.")
    out += notes[: _LINES - len(out)]
    return out

"""What a finished run's classifier goes by: all clips explained, grouped, suspects put to proof.

Over 300 lines: one recipe, and the document that it ends in.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.audit.companions import prove_companion, screen_companions
from l2i.audit.groups import grouped
from l2i.audit.hearing import Pass
from l2i.audit.page import Entry, group_entry, mistake_entry, suspect_entry, write_audit_page
from l2i.audit.planted import planted_facts
from l2i.audit.proof import Proof, prove, proved
from l2i.audit.report import (
    SCHEMA,
    class_facts,
    group_facts,
    lines,
    mistake_facts,
    suspect_facts,
    table,
)
from l2i.audit.scan import Rows
from l2i.audit.screening import screen
from l2i.audit.settings import Settings
from l2i.audit.sources import groupings_of, source_notes
from l2i.audit.words import notes_of
from l2i.data.base import listed
from l2i.data.planted import Planted
from l2i.errors import DataError
from l2i.explained import Explained, explain_by
from l2i.models.heard import hear
from l2i.pages import Figure
from l2i.recipes.opening.material import PartName
from l2i.recipes.opening.opened import Where, open_finished, open_unmeasured, write_found
from l2i.registry import class_index
from l2i.run.progress import Progress
from l2i.storage import atomic_write_text

# No test can tell fewer clips of a class from chance.
_FEWEST = 6
# On the page: suspects, typical clips of a group, and mistakes.
_SUSPECTS, _TYPICAL, _WRONG = 20, 3, 8


def audit(
    word: str,
    progress: Progress,
    *,
    classifier: str = "",
    dataset: str = "",
    part: PartName = "all",
    classes: Sequence[str] = (),
    limit: int | None = None,
    method: str = "",
    settings: Settings | None = None,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Explain all clips, and find what decides for a class without being its sound.

    A pass over many clips that was stopped goes on where it was: what it found so far lies beside
    the store until the audit is done.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``; empty with a `classifier`.
    progress : Progress
    classifier : str
        A classifier of the user's own, as `l2i.models.spec.open_classifier` takes it, in place of a
        run; it is heard on the clips in ``data_dir``.
    dataset : str
        With a `classifier`, which data set lies there; empty: a folder of the user's own.
    part : {'test', 'train', 'all'}
        The clips that are heard. What a model took for a class in training it takes for it later,
        so that training clips say as much as others.
    classes : sequence of str
        Only these; none: all that the classifier decides for.
    limit : int, optional
        At most so many clips, spread over the labels.
    method : str
        A name in `l2i.explanation.METHODS`; empty: the run's own.
    settings : Settings, optional
    **where
        See `l2i.recipes.opening.opened.Where`. Clips that the cache has not are decoded when they
        are heard; one that cannot be read is told in the report. `out` has ``audit.json``,
        ``audit.csv``, and ``audit.html``, a page to listen to.

    Returns
    -------
    dict
        What ``audit.json`` holds (docs/audit.md says what that is), ``lines``, the same in words,
        and ``kept``, the id of the run made.

    Raises
    ------
    UsageError
        There is no such run, class or method.
    DataError
        There is nothing to audit: all clips are silent, or the classifier decides for nothing.
    """
    s = settings or Settings()
    if classifier:
        opened = open_unmeasured(classifier, progress, dataset=dataset, method=method, **where)
    else:
        opened = open_finished(word, progress, stream=True, **where)
    names = opened.classes
    asked = [class_index(names, name, f"Run {opened.run.name}") for name in classes]
    p = Pass.begin(opened, part, limit, method)
    p.take_over(progress)
    rows = p.hear(progress)
    if not len(rows):
        raise DataError(
            f"There is nothing to audit: of {len(p.clips)} clips {len(p.broken)} cannot be read, "
            "and the others are silent or none of the classes that the classifier knows."
        )
    labels = opened.material.labels(p.clips, names)
    numbers = asked or sorted({int(c) for c in rows.classes})
    proofs, notes = _proofs(p, rows, numbers, s, progress)
    judged = proved(proofs, s)
    document = _document(p, rows, numbers, labels, judged, s) | {"part": part}
    document["notes"] = _unread(p.broken) + notes + notes_of(document, names, rows, labels, p.clips)
    groupings = groupings_of(opened.material.dataset, p.clips)
    document["notes"] += source_notes(
        rows, p.clips, names, groupings, p.palette, opened.config.run.seed
    )
    if isinstance(data := opened.material.dataset, Planted):
        document["planted"] = planted_facts(opened, data, document["suspects"])
    entries: list[Entry] = []
    if opened.keep or opened.out is not None:
        entries = _entries(p, document, judged)

    def write(folder: Path) -> None:
        atomic_write_text(folder / "audit.csv", table(document))
        title = f"{opened.run.name}: audit"
        write_audit_page(
            folder / "audit.html",
            entries,
            title=title,
            summary=_summary(document),
            notes=document["notes"][:6],
        )

    told = write_found(
        opened,
        "audit",
        {"clips": len(p.clips), "part": part, "method": p.method, "limit": limit},
        {"suspects": float(len(document["suspects"])), "tested": float(len(judged))},
        document,
        write,
    )
    shutil.rmtree(p.work, ignore_errors=True)
    return told | {"lines": lines(document)}


def _proofs(
    p: Pass, rows: Rows, numbers: Sequence[int], s: Settings, progress: Progress
) -> tuple[list[Proof], list[str]]:
    """The counter-proofs of all classes, and which classes are too small for any."""
    opened, read = p.opened, p.read
    rng = np.random.default_rng(opened.config.run.seed)
    proofs: list[Proof] = []
    few = []
    with progress.task("counter-proof", total=len(numbers), unit="step") as bar:
        for c in numbers:
            own = rng.permutation(rows.clip[rows.classes == c])
            hosts = _hosts(rows, c, own, rng) if len(own) else own
            if min(len(own), len(hosts)) < _FEWEST:
                few.append(opened.classes[c])
                bar.advance(1)
                continue
            n = min(s.tried, len(own) // 2, len(hosts) // 2)
            trials = screen(opened.subject, p.palette, c, read(own[:n]), read(hosts[:n]), s)
            mine, theirs = own[n:][: s.proved], hosts[n:][: s.proved]
            proofs += prove(opened.subject, p.palette, trials, mine, theirs, read)
            # Draws of its own: whether there is a companion changes nothing for the next class.
            draws = np.random.default_rng([opened.config.run.seed, c])
            near = _near_clips(rows, c, s, draws)
            trial = screen_companions(opened.subject, c, near, read, s)
            if trial is not None:
                proof = prove_companion(opened.subject, trial, own, near, read, s, draws)
                proofs += [] if proof is None else [proof]
            bar.advance(1, f"{opened.classes[c]}: {len(trials)} cues")
    if not few:
        return proofs, []
    return proofs, [
        f"Too few clips for a counter-proof (fewer than {_FEWEST} that are decided so, or that are "
        f"not): {listed(few)}."
    ]


def _hosts(
    rows: Rows, c: int, own: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Clips that are not taken for a class, in an order drawn: every other one, as far as there are
    any, of the class that this one is nearest to. What tells two alike apart may change nothing in
    a clip that is like neither."""
    others = np.setdiff1d(rows.clip, own)
    nearest = int(_nearness(rows, c).argmax())
    alike = rng.permutation(np.intersect1d(others, rows.clip[rows.classes == nearest]))
    rest = rng.permutation(np.setdiff1d(others, alike))
    n = min(len(alike), len(rest))
    turns = np.stack([alike[:n], rest[:n]], axis=1).flatten()
    return np.concatenate([turns, alike[n:], rest[n:]])


def _near_clips(
    rows: Rows, c: int, s: Settings, rng: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Clips that are taken for another class and not for this one, in an order drawn, by the class;
    the nearest class is first, and one of too few clips is left out."""
    own = rows.clip[rows.classes == c]
    order = np.argsort(-_nearness(rows, c), kind="stable")
    clips = {
        int(k): rng.permutation(np.setdiff1d(rows.clip[rows.classes == k], own))
        for k in order
        if k != c
    }
    return {k: x for k, x in clips.items() if len(x) >= s.tried + _FEWEST}


def _nearness(rows: Rows, c: int) -> NDArray[np.float64]:
    """How often each class is the second guess for clips of a class, and has it for its own.

    Both count: a cue that its own clips have and others have not leaves no doubt of the first, and
    its doubt of the others stays.
    """
    mine, theirs = rows.second[rows.classes == c], rows.classes[rows.second == c]
    n = 1 + int(max(rows.classes.max(), rows.second.max()))
    sizes = np.bincount(rows.classes, minlength=n).clip(min=1)
    near = np.bincount(mine, minlength=n) / len(mine) + np.bincount(theirs, minlength=n) / sizes
    near[c] = 0.0
    return near


def _document(
    p: Pass,
    rows: Rows,
    numbers: Sequence[int],
    labels: NDArray[np.bool_] | None,
    judged: Sequence[tuple[Proof, float, bool]],
    s: Settings,
) -> dict[str, Any]:
    names, palette, material = p.opened.classes, p.palette, p.opened.material
    duration = material.dataset.n_samples / palette.domain.sample_rate
    ids = [clip.id for clip in p.clips]
    recordings = [clip.group or clip.id for clip in p.clips]
    told = []
    for c in numbers:
        mine = rows.take(rows.classes == c)
        groups = grouped(mine.evidence, p.opened.config.run.seed)
        facts = class_facts(names[c], c, mine, labels, groups, palette, names)
        for g in range(groups.count):
            own = mine.take(groups.members == g)
            right = None if labels is None else labels[own.clip, c]
            facts["groups"].append(group_facts(own, right, palette, ids, recordings))
        told.append(facts)
    heard = len(set(rows.clip.tolist()))
    proofs = [
        (suspect_facts(proof, chance, names, ids, duration), bad) for proof, chance, bad in judged
    ]
    return {
        "schema": SCHEMA,
        "method": p.method,
        "clips": len(p.clips),
        "undecided": len(p.clips) - heard - len(p.broken),
        "unreadable": [{"clip": k, "why": v} for k, v in sorted(p.broken.items())],
        "settings": asdict(s),
        "tested": len(judged),
        "suspects": [facts for facts, bad in proofs if bad],
        "cleared": [facts for facts, bad in proofs if not bad],
        "classes": told,
        "mistakes": [] if labels is None else mistake_facts(rows, labels, palette, names, ids),
    }


def _unread(broken: Mapping[str, str]) -> list[str]:
    """A sentence, where there are any."""
    if not broken:
        return []
    n = len(broken)
    which = "1 file cannot be read, and is" if n == 1 else f"{n} files cannot be read, and are"
    return [f"{which} left out: {listed(sorted(broken), 3)}."]


def _summary(document: dict[str, Any]) -> list[Figure]:
    tested, rate = document["tested"], 100 * document["settings"]["false_alarms"]
    meaning = "What decides for a class without being its sound: lower is better"
    cues = f"{tested} cue{'s' * (tested != 1)} proved"
    beside = f"{cues}; at most {rate:.0f} % of audits would have a false alarm"
    return [
        Figure("suspects", str(len(document["suspects"])), beside, meaning),
        Figure("clips", str(document["clips"])),
    ]


def _entries(
    p: Pass, document: dict[str, Any], judged: Sequence[tuple[Proof, float, bool]]
) -> list[Entry]:
    """What the page lists: suspects, mistakes, then typical clips of each class's groups."""
    entries = []
    suspects = [proof for proof, _, bad in judged if bad][:_SUSPECTS]
    for facts, proof in zip(document["suspects"], suspects, strict=False):
        flipped = proof.hosts[proof.insertion]
        host = int(flipped[0] if len(flipped) else proof.hosts[0])
        beside = None
        if proof.beside is not None:
            beside = p.read(proof.beside[proof.hosts == host])[0]
        own, other = p.read(np.array([proof.own[0], host]))
        entry = suspect_entry(facts, proof, p.opened.subject, p.palette, own, other, beside)
        entries.append(entry)
    place = {clip.id: n for n, clip in enumerate(p.clips)}
    for facts in document["mistakes"][:_WRONG]:
        e = _explained(p, facts["class"], place[facts["clip"]])
        entries.append(mistake_entry(e, facts))
    for facts in document["classes"]:
        for number, group in enumerate(facts["groups"], start=1):
            for clip in group["typical"][:_TYPICAL]:
                e = _explained(p, facts["class"], place[clip])
                entries.append(group_entry(e, group, number, len(facts["groups"]), clip))
    return entries


def _explained(p: Pass, name: str, clip: int) -> Explained:
    subject = p.opened.subject
    x = torch.from_numpy(p.read(np.array([clip])))
    heard = hear(subject.classifier, x, subject.domain, p.way.layers)
    return explain_by(p.way, heard, p.opened.classes.index(name), method=p.method, key=clip)

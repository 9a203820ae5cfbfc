"""``audit.html``: the suspects and what each class rests on, to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.audit.companions import mixed
from l2i.audit.cues import Companion, Palette
from l2i.audit.proof import Bench, Proof
from l2i.audit.traits import Trait
from l2i.audit.words import misled
from l2i.dsp.spectrogram import common_gain
from l2i.explained import Explained, pictured
from l2i.explanation import Subject
from l2i.pages import Figure, Media, MediaList, write_listening_page

_PARTS = (
    ("original", "clip"),
    ("explanation", "what speaks for it"),
    ("removal", "without it"),
    ("host", "other class’s clip"),
    ("mixed", "that clip with it"),
)
_INTRO = (
    "What this classifier goes by. Suspects come first: what decides for a class without being its "
    "sound. Then the surest mistakes, and each class by the groups that its explanations fall "
    "into, a few typical clips of each."
)
Entry = tuple[dict[str, Any], Media]


@torch.inference_mode()
def suspect_entry(
    facts: Mapping[str, Any],
    proof: Proof,
    subject: Subject,
    palette: Palette,
    own: NDArray[np.float32],
    host: NDArray[np.float32],
    beside: NDArray[np.float32] | None = None,
) -> Entry:
    """A suspect: a clip of its class, the cue alone, the rest, another clip, and that with the cue.

    Parameters
    ----------
    own, host : float32 [S]
        A clip of the class, and one of another class that it was tried on.
    beside : float32 [S], optional
        For a companion, the clip that was mixed into `host`.
    """
    trial, clf = proof.trial, subject.classifier
    bench = Bench(subject, palette, trial.label, own[None], host[None], trial.usual)
    x, y = bench.clean
    mine, theirs = {"original": x}, {"host": y}
    if isinstance(trial.cue, Trait):
        theirs["mixed"] = trial.cue.impose(y, clf.sample_rate)
    elif isinstance(trial.cue, Companion):
        assert beside is not None
        both = torch.from_numpy(mixed(y.cpu().numpy(), beside[None])).to(y)
        theirs |= {"mixed": both, "explanation": both - y}
    else:
        part, _ = bench.cue(trial.cue)
        mine |= {"explanation": part, "removal": x - part}
        theirs["mixed"] = y + part
    name = clf.classes[trial.label]
    says = {key: "not for this one" for key, _ in _PARTS}
    for heard, some in ((bench.own, mine), (bench.hosts, theirs)):
        for key, sound in some.items():
            says[key] = f"{100 * float(bench.probability(heard.judge(sound))):.0f} % {name}"
    sounds = mine | theirs
    gain = common_gain(sounds.values())
    plain = {key: (sound[0] * gain).cpu().numpy() for key, sound in sounds.items()}
    entry = {
        "name": f"{name}: {facts['words']}",
        "class": name,
        "short": f"suspect, score {facts['score']:.2f}",
        "duration_s": len(own) / clf.sample_rate,
        "lines": [facts["sentence"]],
        "says": says,
        "probability": dict.fromkeys((key for key, _ in _PARTS), None),
    }
    pictures, *_ = pictured(plain, palette.domain)
    return entry, Media.of(clf.sample_rate, plain, pictures)


def group_entry(
    e: Explained, facts: Mapping[str, Any], number: int, count: int, clip: str
) -> Entry:
    """A typical clip of one group of a class's explanations."""
    n = facts["clips"]
    share = "" if facts["right"] is None else f", {100 * facts['right']:.0f} % of them right"
    of = f"Group {number} of {count}" if count > 1 else "The explanations are of one kind"
    one = f" All of them are of one recording, {facts['recording']}." if facts["recording"] else ""
    short = f"group {number} of {count}" if count > 1 else f"{n} clips"
    line = f"{of}: {n} clip{'s' if n > 1 else ''}{share}.{one}"
    return _entry(e, clip, short, "typical of its group", line)


def mistake_entry(e: Explained, facts: Mapping[str, Any]) -> Entry:
    """A clip that is taken for a class that it is not, and what misled."""
    short = f"a mistake, {100 * facts['probability']:.0f} %"
    return _entry(e, facts["clip"], short, "one of the surest mistakes", misled(facts))


def _entry(e: Explained, clip: str, short: str, why: str, line: str) -> Entry:
    """A clip that is no suspect's, and a line on it."""
    p = e.probabilities[e.target]
    values = {"original": p.input, "explanation": p.explanation, "removal": p.removal}
    # What stands under each button.
    says = {
        key: f"{100 * values[key]:.0f} % {e.target}" if key in values else "for suspects"
        for key, _ in _PARTS
    }
    # What the lines say; of whether this one is right nothing is known here.
    facts = {key: value for key, value in e.facts().items() if key not in ("decided", "right")}
    name, lines = f"{e.target}: {clip}", [line, e.verdict]
    own = {"name": name, "short": short, "why": why, "lines": lines, "says": says}
    return facts | own, e.media()


def write_audit_page(
    path: Path,
    entries: Sequence[Entry],
    *,
    title: str,
    summary: Sequence[Figure],
    notes: Sequence[str] = (),
) -> None:
    """Write the page: self-contained, and less than 50 MiB whatever there is."""
    media = MediaList()
    for _, sounds in entries:
        media.append(sounds)
    write_listening_page(
        path,
        [facts for facts, _ in entries],
        media,
        title=title,
        parts=_PARTS,
        summary=summary,
        intro=" ".join((_INTRO, *notes)),
        noun="sounds",
    )

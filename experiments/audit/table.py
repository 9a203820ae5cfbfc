"""Audit every finished run of an experiment, and print what was planted and what was found.

    python experiments/audit/table.py planted

A cue is *used* where decisions change without it on half of the test clips that have it or more:
what is planted and not used is no fault, and need not be found. Suspects of other classes than the
one with the cue, and any suspect of a run without one, are false.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from l2i.audit import audit
from l2i.run.progress import Progress
from l2i.run.runs import list_runs
from l2i.run.search import RunInfo


def finished(experiment: str) -> Sequence[RunInfo]:
    """The finished trainings of an experiment, the oldest first."""
    return list_runs(experiment, limit=1000, status="finished", kind="train")[::-1]


def planting(run: RunInfo, document: Mapping[str, Any]) -> tuple[str, str]:
    """What was planted in a run's data, and on how many of the decisions it is used."""
    if (planted := document.get("planted")) is None:
        return f"none ({run.name})", ""
    cue = f"{planted['class']}: {planted['cue']}"
    return cue, f"{planted['flips']} of {planted['decided']}"


def main(experiment: str) -> None:
    """Print a line for each run."""
    print("| planted | used | place among the suspects | suspects | false | first suspect |")
    print("|---|---|---|---|---|---|")
    for run in finished(experiment):
        document = audit(run.id, Progress(), keep=False)
        suspects, planted = document["suspects"], document.get("planted")
        own = planted["class"] if planted else None
        false = sum(s["class"] != own for s in suspects)
        place = ""
        if planted:
            place = str(planted["placed"] or f"none; its class: {planted['rank'] or 'none'}")
        first = suspects[0]["words"] if suspects else "none"
        cells = (*planting(run, document), place, str(len(suspects)), str(false), first)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["planted"])

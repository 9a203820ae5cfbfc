"""Audit every finished run of an experiment, and print what was planted and what was found.

    python experiments/audit/table.py planted

A cue is *used* where decisions change without it on half of the test clips that have it or more:
what is planted and not used is no fault, and need not be found. Suspects of other classes than the
one with the cue, and any suspect of a run without one, are false.
"""

from __future__ import annotations

import sys

from l2i.audit import audit
from l2i.run.progress import Progress
from l2i.run.runs import list_runs


def main(experiment: str) -> None:
    """Print a line for each run."""
    print("| planted | used | place | suspects | false | first suspect |")
    print("|---|---|---|---|---|---|")
    for run in reversed(list_runs(experiment, limit=1000, status="finished", kind="train")):
        found = audit(run.id, Progress(), keep=False)
        planted = found.get("planted")
        own = planted["class"] if planted else None
        false = sum(s["class"] != own for s in found["suspects"])
        cue = f"{planted['class']}: {planted['cue']}" if planted else f"none ({run.name})"
        used = f"{planted['flips']} of {planted['decided']}" if planted else ""
        place = (planted["rank"] or "not found") if planted else ""
        first = found["suspects"][0]["words"] if found["suspects"] else "none"
        print(
            f"| {cue} | {used} | {place} | {len(found['suspects'])} | {false} | {first} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["planted"])

"""What a run's data were: a line per clip, kept with the run, and how other data differ from it."""

from __future__ import annotations

import csv

from l2i.errors import StoreError
from l2i.recipes.opening.material import Material
from l2i.run.artifacts import download
from l2i.run.search import RunInfo

LISTING = "data.csv"
"""`Material.listing`, kept with the run."""
IDENTITY = "l2i.data_identity"
"""The tag that holds `Material.identity`; runs of earlier versions have none."""


def data_differences(material: Material, run: RunInfo) -> str:
    """How a run's data were others, for a sentence: ``12 labels differ, 2 clips are new``.

    Empty where they were the same, as far as the run says: those of earlier versions know the
    sounds alone.
    """
    if run.tags.get(IDENTITY) == material.identity:
        return ""
    sounds = run.tags.get("l2i.data_digest", material.digest) != material.digest
    if IDENTITY not in run.tags:
        return "the sounds differ" if sounds else ""
    try:
        with open(download(run, LISTING), newline="", encoding="utf-8") as file:
            then = {row["clip"]: row for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, StoreError):
        return "the data differ"
    now = {row["clip"]: row for row in material.listing()}
    both = [(row, then[clip]) for clip, row in now.items() if clip in then]
    if not both:
        return "no clip is the same, so that it is another folder"

    def differ(column: str) -> int:
        return sum(a[column] != b[column] for a, b in both)

    counts = [
        (differ("labels"), "label differs", "labels differ"),
        (differ("side"), "clip changed sides", "clips changed sides of the split"),
        (differ("group"), "group differs", "groups differ"),
        (len(now) - len(both), "clip is new", "clips are new"),
        (len(then) - len(both), "clip is gone", "clips are gone"),
    ]
    words = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    if not words:
        words = ["the sounds differ" if sounds else "the order of clips or classes differs"]
    return ", ".join(words)

"""All that the module of a data set needs: it is in `cards`, `split` and `files` of this folder."""

from __future__ import annotations

from l2i.data.cards import (
    Card,
    DataSet,
    Entry,
    Progress,
    Remote,
    Report,
    Waveform,
    clip_settings,
    listed,
    worker_count,
)
from l2i.data.files import Files, class_counts, class_differences, with_classes
from l2i.data.split import make_split, stratify, thin

__all__ = [
    "Card",
    "DataSet",
    "Entry",
    "Files",
    "Progress",
    "Remote",
    "Report",
    "Waveform",
    "class_counts",
    "class_differences",
    "clip_settings",
    "listed",
    "make_split",
    "stratify",
    "thin",
    "with_classes",
    "worker_count",
]

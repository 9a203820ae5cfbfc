"""Pictures of a run: training curves, dictionary, confusion matrix, explanations.

Each function draws one file. Figures are made without pyplot, whose global state would outlive
them, and without a display.
"""

from __future__ import annotations

from l2i.plots.charts import (
    component_map,
    component_relevance,
    component_spectra,
    conditions,
    confusion_matrix,
    dictionary,
    sweep,
    training_curves,
)
from l2i.plots.panels import explanation

__all__ = [
    "component_map",
    "component_relevance",
    "component_spectra",
    "conditions",
    "confusion_matrix",
    "dictionary",
    "explanation",
    "sweep",
    "training_curves",
]

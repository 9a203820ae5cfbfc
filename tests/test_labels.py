"""Labels that a classifier contradicts."""

from __future__ import annotations

import numpy as np

from l2i.metrics.labels import doubted_labels
from l2i.types import Task


def test_of_one_class_per_clip() -> None:
    """A swapped label comes first, a clip in doubt after it, those that agree not at all; nobody
    knows what a clip without a label is."""
    p = np.array([[0.5, 0.3, 0.2], [0.01, 0.98, 0.01], [0.9, 0.1, 0.0], [0.1, 0.1, 0.8]])
    y = np.eye(3, dtype=bool)[[1, 0, 0, 2]]
    y[3] = False
    table = doubted_labels(p, p == p.max(1, keepdims=True), y, Task.SINGLE_LABEL, "abcd", "xyz")
    assert table[["clip", "label", "predicted"]].to_numpy().tolist() == [
        ["b", "x", "y"],
        ["a", "y", "x"],
    ]
    np.testing.assert_allclose(table["margin"], [-0.97, -0.2])
    np.testing.assert_allclose(table["margin"], table["label_probability"] - table["probability"])


def test_of_several() -> None:
    """Each class is a question; the classifier's own thresholds decide, not one half."""
    p = np.array([[0.9, 0.4], [0.05, 0.45]])
    y = np.array([[False, False], [True, False]])
    table = doubted_labels(p, p > [0.5, 0.42], y, Task.MULTI_LABEL, ["a", "b"], ["dog", "cat"])
    assert table[["clip", "label", "predicted"]].to_numpy().tolist() == [
        ["b", "dog", "not dog"],
        ["a", "not dog", "dog"],
        ["b", "not cat", "cat"],
    ]
    np.testing.assert_allclose(table["margin"], [-0.9, -0.8, 0.1])


def test_none_is_contradicted() -> None:
    """A table with its columns, and no row."""
    p = np.array([[0.9, 0.1]])
    table = doubted_labels(p, p > 0.5, p > 0.5, Task.SINGLE_LABEL, ["a"], ["x", "y"])
    assert len(table) == 0 and "clip" in table.columns

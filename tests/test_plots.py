"""Pictures that can be read: looked at by measuring where the drawn text lies."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from l2i import plots
from l2i.dsp.spectrogram import SpectrogramSettings


def test_the_epoch_that_was_kept_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a line at it, which need not be where the validation loss is lowest; a stage of which it
    is not known has none."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    epochs = [{"loss": 1 / n, "validation_loss": n} for n in (1, 2, 3, 4)]
    histories = {"classifier": epochs, "interpreter": epochs}
    plots.training_curves(histories, tmp_path / "curves.png", {"classifier": 3})

    (figure,) = drawn
    marked = {
        axes.get_title(): [
            line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"
        ]
        for axes in figure.axes
    }
    assert marked == {"classifier: loss": [3], "interpreter: loss": []}


@pytest.mark.parametrize("scale", [4e-5, 0.9, 30.0, 2e5])
def test_the_numbers_under_a_sweep_do_not_run_into_one_another(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    children = [
        {"setting": "all", "scores": dict.fromkeys("abc", scale * (1 + 0.9 * n))}
        for n in range(-2, 3)
    ]
    plots.sweep(children, {"a": "A", "b": "B", "c": "C"}, ["all"], tmp_path / "sweep.png")

    (figure,) = drawn
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        boxes = [
            tick.label1.get_window_extent()
            for tick in axes.xaxis.get_major_ticks()
            if low <= tick.get_loc() <= high
        ]
        assert len(boxes) >= 2
        boxes.sort(key=lambda box: box.x0)
        gaps = [right.x0 - left.x1 for left, right in pairwise(boxes)]
        assert min(gaps) > 2, gaps


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
@pytest.mark.parametrize(
    "components", [[], [(3, 1.0)], [(1000 + k, 1 - k / 20) for k in range(14)]]
)
def test_an_explanation_has_room_for_all_that_is_written(
    rate: int,
    components: list[tuple[int, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its places are fixed: no panel's words leave the page or touch another panel's."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    # Of 2.5 s: the last number under a panel is at its very end, and the next panel's at its begin.
    noise = np.random.default_rng(0).random((3, 129, 250))
    words = ["original: 100% crackling_fire", "explanation: silent", "removal: 9% crackling_fire"]
    settings = SpectrogramSettings(rate, 4096, rate // 100, 64)
    plots.explanation(noise, words, components, settings, "A clip", tmp_path / "picture.png")

    (figure,) = drawn
    FigureCanvasAgg(figure).draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure._suptitle.get_window_extent()]
    assert len(boxes) == 6
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)

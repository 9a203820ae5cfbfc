"""Pictures that can be read: looked at by measuring where the drawn text lies."""

from __future__ import annotations

from itertools import combinations, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from l2i import plots
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.plots import panels
from l2i.plots.panels import _panels as panels_of


def test_the_epoch_that_was_kept_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a line at it, which need not be where the validation loss is lowest; a stage of which it
    is not known has none."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
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


@pytest.mark.parametrize("answers", [(), ("found", "missed", "false alarm", "rightly not named")])
def test_counts_stand_in_their_cells(
    answers: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every count but nought, its class to the left and what was decided below; a title only where
    the counts on the diagonal are right."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    classes = ["a", "$b$"]
    counts = np.array([[1, 3, 0, 2], [0, 0, 1, 5]])[:, : 4 if answers else 2]
    plots.confusion_matrix(counts, classes, answers or classes, tmp_path / "counts.png")

    (figure,) = drawn
    (axes,) = figure.axes
    cells = {t.get_position()[::-1]: t.get_text() for t in axes.texts}
    assert cells == {at: str(n) for at, n in np.ndenumerate(counts) if n}
    assert [t.get_text() for t in axes.get_yticklabels()] == classes
    assert [t.get_text() for t in axes.get_xticklabels()] == list(answers or classes)
    assert axes.get_title() == ("" if answers else "1 of 4 right")


@pytest.mark.parametrize("scale", [4e-5, 0.9, 30.0, 2e5])
def test_the_numbers_under_a_sweep_do_not_run_into_one_another(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
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
) -> None:
    """Its places are fixed: no panel's words leave the page or touch another panel's."""
    # 2.5 s: the last number under a panel is at its very end, and the next panel's at its begin.
    noise = np.random.default_rng(0).random((3, 129, 250))
    words = ["original: 100% crackling_fire", "explanation: silent", "removal: 9% crackling_fire"]
    settings = SpectrogramSettings(rate, 4096, rate // 100, 64)
    panels.explanation(noise, words, components, settings, "A clip", tmp_path / "picture.png")

    figure = panels_of(3, 2.5, rate / 2000).figure
    assert {text.get_text() for text in figure.axes[-2].texts} >= {str(k) for k, _ in components}
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure._suptitle.get_window_extent()]
    assert len(boxes) == 6
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)


def _picture(path: Path, level: np.ndarray, components: list[tuple[int, float]]) -> np.ndarray:
    """RGB pixels of a picture of three spectrograms of one level [F, T]."""
    settings = SpectrogramSettings(8000, 256, 80)
    words = ["original", "explanation", "removal"]
    panels.explanation([level, level / 10, 0 * level], words, components, settings, "A clip", path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_an_explanation_shows_what_is_heard(tmp_path: Path) -> None:
    """Low is below and late is to the right, 0 dB is magma's brightest and -20 dB three quarters of
    its way, silence is black; a bar is as long as its component is relevant."""
    level = np.full((129, 400), 1e-9)
    level[:32, 200:] = 1.0  # Up to 1 kHz, the second half.
    picture = _picture(tmp_path / "a.png", level, [(3, 1.0), (8, 0.5)])
    panels = panels_of(3, 4.0, 4.0)
    magma = colormaps["magma"]([1.0, 0.75, 0.0], bytes=True)[:, :3].astype(int)
    for axes, wanted in zip(panels.figure.axes[:3], magma, strict=True):
        rows, columns = panels._inside(axes)
        inside = picture[rows, columns]
        tall, wide = inside.shape[:2]
        lit = inside[int(0.76 * tall) : -1, wide // 2 + 1 :]
        assert np.abs(lit - wanted).max() <= 6
        assert inside[: int(0.74 * tall)].sum(2).max() <= 4
        assert inside[:, : wide // 2 - 1].sum(2).max() <= 4
    rows, columns = panels._inside(panels.figure.axes[3])
    blue = (picture[rows, columns] == [0, 114, 178]).all(2)
    long = [run for run, _ in groupby(blue.sum(1).tolist())]
    wide = columns.stop - columns.start
    assert long == [0, wide, 0, pytest.approx(wide / 2, abs=1), 0]


def test_an_explanation_shows_nothing_of_another(tmp_path: Path) -> None:
    """Pictures that share their axes are each drawn as if it was the only one."""
    loud, many = np.ones((129, 400)), [(k, 1.0) for k in range(20)]
    first = _picture(tmp_path / "a.png", 0 * loud, [])
    other = _picture(tmp_path / "b.png", loud, many)
    again = _picture(tmp_path / "c.png", 0 * loud, [])
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=2).mean() > 0.3
    # Every second of twenty names: there is no room for all.
    shown = [t.get_text() for t in panels_of(3, 4.0, 4.0)._names]
    assert shown == [""] * 15
    _picture(tmp_path / "d.png", loud, many)
    shown = [t.get_text() for t in panels_of(3, 4.0, 4.0)._names if t.get_text()]
    assert shown == [str(k) for k in range(0, 20, 2)]

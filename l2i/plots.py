"""Pictures of a run: training curves, dictionary, confusion matrix, explanations.

Each function draws one file. Figures are made without pyplot, whose global state would outlive
them, and without a display.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.spectrogram import Domain
from l2i.errors import MissingPackage

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

# Okabe and Ito's colours: told apart by colour-blind readers, and on paper.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#E69F00", "#009E73", "#8A8A8A"
_DPI = 110
_RANGE_DB = 80.0
# Names of components, one under another, for which an explanation's picture has room.
_NAMES = 15
# Names may have signs that the font has not: a box stands in their place.
_NO_GLYPH = r"Glyph .* missing from"


def _figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise MissingPackage("This picture", "matplotlib") from None
    return Figure(figsize=(width, height), layout=layout)


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_GLYPH)
        figure.savefig(path, dpi=_DPI, metadata={"Software": "l2i"})


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def training_curves(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    path: Path,
    kept: Mapping[str, int] | None = None,
) -> None:
    """The figures of every epoch of every stage; the epoch that was kept is marked.

    Parameters
    ----------
    histories : mapping of str to sequence of mappings
        Stage to its epochs' figures; a stage without epochs (weights that were given) is left
        out.
    path : Path
        A ``.png``.
    kept : mapping of str to int, optional
        Stage to the epoch whose weights were kept, from 1.
    """
    panels: list[tuple[str, str, list[str]]] = []
    for stage, epochs in histories.items():
        names = list(dict.fromkeys(k for figures in epochs for k in figures))
        losses = [n for n in names if "loss" in n or n == "objective"]
        shares = [n for n in names if n in ("validation_accuracy", "validation_fidelity")]
        terms = [n for n in names if n in ("reconstruction", "fidelity", "sparsity")]
        terms += ["validation_reconstruction"] if "validation_reconstruction" in names else []
        for word, group in (("loss", losses), ("terms of the loss", terms), ("share", shares)):
            if group:
                panels.append((stage, word, group))
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = _figure(4.2 * columns, 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (stage, word, group) in zip(grid.flat, panels, strict=False):
        epochs = histories[stage]
        x = np.arange(1, len(epochs) + 1)
        for name, colour in zip(group, (_BLUE, _ORANGE, _GREEN, _GREY), strict=False):
            y = [figures.get(name, np.nan) for figures in epochs]
            # A single epoch is a point, which a line would not show.
            axes.plot(x, y, color=colour, label=name.replace("_", " "), marker="." * (len(x) < 3))
        if "validation_loss" in group and kept and stage in kept:
            axes.axvline(kept[stage], color=_GREY, linewidth=0.8, linestyle=":")
        if word == "share":
            axes.set_ylim(0, 1.02)
        elif min(y for name in group for y in (e.get(name, 1.0) for e in epochs)) > 0:
            axes.set_yscale("log")
        axes.set_title(f"{stage}: {word}", fontsize=10)
        axes.set_xlabel("sweep" if group == ["objective"] else "epoch")
        axes.legend(frameon=False, fontsize=8)
        _tidy(axes)
    _save(figure, path)


def dictionary(w: NDArray[np.floating], settings: Domain, path: Path) -> None:
    """The columns of W, ordered by the frequency where they are centred.

    Parameters
    ----------
    w : [F, K]
    settings : Domain
    path : Path
    """
    frequency = np.arange(w.shape[0]) * settings.sample_rate / settings.n_fft / 1000
    weight = w / np.maximum(w.sum(axis=0, keepdims=True), 1e-12)
    order = np.argsort(weight.T @ frequency)
    figure = _figure(9, 4.5)
    axes = figure.subplots()
    image = axes.imshow(
        w[:, order],
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmax=np.quantile(w, 0.995) or None,
        extent=(0.5, w.shape[1] + 0.5, 0, settings.sample_rate / 2000),
    )
    axes.set_xlabel(f"component, from the lowest to the highest (K = {w.shape[1]})")
    axes.set_ylabel("frequency (kHz)")
    axes.set_title("Dictionary W: the spectrum of each component", fontsize=10)
    figure.colorbar(image, ax=axes, label="weight", fraction=0.04, extend="max")
    _save(figure, path)


def confusion_matrix(
    counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], path: Path
) -> None:
    """How many clips of each class the classifier says what of.

    Parameters
    ----------
    counts : int64 [C, C] or [C, A]
        Columns are what the classifier says: a class, or an answer.
    rows, columns : sequence of str
        What they are called.
    path : Path
        A ``.png``.
    """
    size = 8 if len(rows) <= 20 else 5
    figure = _figure(max(5.1, 0.42 * len(columns) + 2.1), max(4.5, 0.42 * len(rows) + 1.5))
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for at in zip(*np.nonzero(counts), strict=True):
        ink = "white" if share[at] > 0.5 else "black"
        axes.text(*at[::-1], counts[at], ha="center", va="center", color=ink, fontsize=size)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size + 1, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=size + 1, parse_math=False)
    if list(rows) == list(columns):
        axes.set_xlabel("the classifier says")
        axes.set_ylabel("the clip is")
        axes.set_title(f"{np.trace(counts)} of {counts.sum()} right", fontsize=10)
    _save(figure, path)


def explanation(
    magnitudes: Sequence[NDArray[np.floating]],
    titles: Sequence[str],
    relevances: Sequence[tuple[int, float]],
    settings: Domain,
    title: str,
    path: Path,
) -> None:
    """Spectrograms side by side on one scale, and how relevant each chosen component was.

    Parameters
    ----------
    magnitudes : sequence of [F, T]
        |X| of original, explanation, removal, of as many frames.
    titles : sequence of str
        One for each.
    relevances : sequence of (component, relevance)
        The components chosen, the most relevant first.
    settings : Domain
    title : str
        The whole picture's.
    path : Path
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    seconds = magnitudes[0].shape[1] * settings.hop_length / settings.sample_rate
    with _DRAWING:
        panels = _panels(len(magnitudes), seconds, settings.sample_rate / 2000)
        pixels = panels.draw(magnitudes, titles, relevances, title)
    image = Image.fromarray(pixels)
    image.putpalette(_palette().tobytes())
    software = PngInfo()
    software.add_text("Software", "l2i")
    # A tenth longer than at the default level, in half the time.
    image.save(path, dpi=(_DPI, _DPI), pnginfo=software, compress_level=3)


# One picture at a time: they share their panels, and matplotlib is not made for threads.
_DRAWING = Lock()

# The colours that a picture's bytes stand for: greys, for text; a bar's; and from there to the
# last, those of the spectrograms.
_GREYS, _BAR, _COLD = 63, 63, 64


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    """The colours [256, 3]."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    greys = np.repeat(np.linspace(0, 255, _GREYS).round()[:, None], 3, axis=1)
    bar = np.array([to_rgb(_BLUE)]) * 255
    magma = colormaps["magma"](np.linspace(0, 1, 256 - _COLD), bytes=True)[:, :3]
    return np.concatenate([greys, bar.round(), magma]).astype(np.uint8)


@lru_cache(maxsize=4)
def _panels(count: int, seconds: float, kilohertz: float) -> _Panels:
    return _Panels(count, seconds, kilohertz)


class _Panels:
    """What all pictures of so many spectrograms of one length have in common.

    There may be hundreds of such pictures, and matplotlib takes half a second for one. Axes, their
    numbers and the colour bar are drawn once; of each picture it writes the words alone, and
    spectrograms and bars are put in as pixels.

    Parameters
    ----------
    count : int
        How many spectrograms.
    seconds, kilohertz : float
        Where their axes end.
    """

    def __init__(self, count: int, seconds: float, kilohertz: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        # In inches. A layout engine would draw all of it more than once.
        left, panel, gap, bar, low, tall = 0.65, 2.75, 0.36, 0.14, 0.5, 2.6
        spectra = [left + i * (panel + gap) for i in range(count)]
        scale = spectra[-1] + panel + 0.18
        side = scale + bar + 1.1
        width, height = side + 1.7 + 0.2, 3.6
        self.figure = _figure(width, height, layout=None)
        self.figure.set_dpi(_DPI)
        self._canvas = FigureCanvasAgg(self.figure)
        places = [*((x, panel) for x in spectra), (side, 1.7), (scale, bar)]
        *self._spectra, self._bars, scale_axes = (
            self.figure.add_axes((x / width, low / height, wide / width, tall / height))
            for x, wide in places
        )
        # Black as a spectrogram's edge, so that no light shines through where the frame is thin.
        for axes in (*self._spectra, scale_axes):
            axes.set_facecolor("black")
        # What is animated is not drawn with the rest.
        self._titles = [axes.set_title("", fontsize=9, animated=True) for axes in self._spectra]
        for axes in self._spectra:
            axes.set_xlim(0, seconds)
            axes.set_ylim(0, kilohertz)
            axes.set_xlabel("time (s)")
        self._spectra[0].set_ylabel("frequency (kHz)")
        for axes in self._spectra[1:]:
            axes.set_yticklabels([])
        scale_axes.set_xticks([])
        scale_axes.set_ylim(-_RANGE_DB, 0)
        scale_axes.yaxis.tick_right()
        scale_axes.yaxis.set_label_position("right")
        scale_axes.set_ylabel("dB")
        self._bars.set_xlim(0, 1)
        self._bars.set_xticks([0, 0.5, 1])
        self._bars.set_yticks([])
        self._bars.set_title("relevance of components", fontsize=9)
        _tidy(self._bars)
        beside = {"ha": "right", "va": "center", "transform": self._bars.transAxes}
        self._names = [self._bars.text(0, 0, "", animated=True, **beside) for _ in range(_NAMES)]
        self._nothing = self._bars.text(
            0.5, 0.5, "no component\nis relevant", ha="center", va="center", animated=True
        )
        self._title = self.figure.suptitle("", fontsize=11, y=1 - 0.1 / height, animated=True)
        for words in (*self._titles, self._title):
            words.set_parse_math(False)
        self._canvas.draw()
        self._empty = self._canvas.copy_from_bbox(self.figure.bbox)
        rows, columns = self._inside(scale_axes)
        levels = np.linspace(255, _COLD, rows.stop - rows.start).round().astype(np.uint8)
        self._scale = rows, columns, levels[:, None]

    def _inside(self, axes: Any) -> tuple[slice, slice]:
        """The rows and columns of pixels within the frame of axes."""
        box = axes.get_window_extent()
        tall = self._canvas.get_width_height()[1]
        return (
            slice(round(tall - box.y1) + 1, round(tall - box.y0) - 1),
            slice(round(box.x0) + 1, round(box.x1) - 1),
        )

    def draw(
        self,
        magnitudes: Sequence[NDArray[np.floating]],
        titles: Sequence[str],
        relevances: Sequence[tuple[int, float]],
        title: str,
    ) -> NDArray[np.uint8]:
        """Pixels [rows, columns] of one picture; see `_palette`, and `explanation`."""
        self._title.set_text(title)
        for words, text in zip(self._titles, titles, strict=True):
            words.set_text(text)
        places = max(5, len(relevances))
        # Every name, or of many every second, or third: as many as there is room for.
        step = -(-len(relevances) // _NAMES)
        named = list(enumerate(relevances))[:: step or 1]
        for words in self._names:
            words.set_text("")
        for words, (i, (k, _)) in zip(self._names, named, strict=False):
            words.set_text(str(k))
            words.set_position((-0.04, 1 - (i + 0.5) / places))
        self._nothing.set_visible(not relevances)
        self._canvas.restore_region(self._empty)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _NO_GLYPH)
            for words in (*self._titles, self._title, *self._names, self._nothing):
                self.figure.draw_artist(words)
        grey = np.asarray(self._canvas.buffer_rgba())[..., 0]
        pixels = (grey * np.float32((_GREYS - 1) / 255)).round().astype(np.uint8)

        top = max(float(m.max()) for m in magnitudes)
        for axes, m in zip(self._spectra, magnitudes, strict=True):
            rows, columns = self._inside(axes)
            power = _shrunk(m, rows.stop - rows.start, columns.stop - columns.start)
            db = 10 * np.log10(np.maximum(power, 1e-24) / (top or 1.0) ** 2)
            level = _COLD + (255 - _COLD) * np.clip(1 + db / _RANGE_DB, 0, 1)
            pixels[rows, columns] = level[::-1].round()
        rows, columns, levels = self._scale
        pixels[rows, columns] = levels
        rows, columns = self._inside(self._bars)
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        for i, (_, r) in enumerate(relevances):
            first, end = (rows.start + round((i + at) * tall / places) for at in (0.1, 0.9))
            pixels[first:end, columns.start : columns.start + round(r * wide)] = _BAR
        return pixels


def _shrunk(magnitude: NDArray[np.floating], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean power of the bins and frames of each pixel [rows, columns]."""
    power = _means(magnitude.shape[0], rows) @ np.square(magnitude, dtype=np.float32)
    means: NDArray[np.float32] = (_means(magnitude.shape[1], columns) @ power.T).T
    return means


@lru_cache(maxsize=8)
def _means(have: int, wanted: int) -> Any:
    """Weights [wanted, have] by which many numbers become fewer, or fewer are repeated."""
    from scipy.sparse import csr_array

    first = np.arange(wanted) * have // wanted
    count = np.maximum(1, np.diff(first, append=have))
    ends = np.append(0, count.cumsum())
    index = np.arange(ends[-1]) - np.repeat(ends[:-1] - first, count)
    weight = np.repeat(1 / count, count).astype(np.float32)
    return csr_array((weight, index, ends), shape=(wanted, have))


def conditions(
    conditions: Sequence[Mapping[str, Any]], titles: Mapping[str, str], path: Path
) -> None:
    """Figures over signal-to-noise ratio, a line per colour of noise, dotted: without noise.

    Parameters
    ----------
    conditions : sequence of mappings
        ``colour``, ``snr_db`` (both None without noise) and ``scores``.
    titles : mapping of str to str
        The scores to draw, and what they are called.
    path : Path
        A ``.png``.
    """
    columns = min(3, len(titles))
    lines = -(-len(titles) // columns)
    figure = _figure(3.2 * columns, 2.4 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    colours = list(dict.fromkeys(c["colour"] for c in conditions if c["colour"]))
    for axes, (name, title) in zip(panels, titles.items(), strict=False):
        for colour, ink in zip(colours, (_BLUE, _ORANGE, _GREEN), strict=False):
            points = sorted(
                (c["snr_db"], c["scores"][name])
                for c in conditions
                if c["colour"] == colour and c["scores"].get(name) is not None
            )
            x, y = [x for x, _ in points], [y for _, y in points]
            axes.plot(x, y, "o-", color=ink, ms=4, label=f"{colour} noise")
        clean = [c["scores"].get(name) for c in conditions if not c["colour"]]
        if clean and clean[0] is not None:
            axes.axhline(clean[0], color=_GREY, ls=":", lw=1.2, label="no noise")
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("SNR, dB")
        axes.margins(x=0.15, y=0.15)
        _tidy(axes)
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    # Lines cross and meet, so that names at their ends would lie upon one another.
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path)


def component_relevance(table: NDArray[np.floating], classes: Sequence[str], path: Path) -> None:
    """Mean relevance of each component for each class.

    Parameters
    ----------
    table : [C, K]
        In [-1, 1]; NaN for a class that was never explained.
    classes : sequence of str
    path : Path
        A ``.png``.
    """
    n, k = table.shape
    figure = _figure(min(16, 3 + 0.11 * k), min(14, 1.6 + 0.24 * n))
    axes = figure.subplots()
    picture = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_yticks(range(n), classes, fontsize=8)
    axes.set_xlabel("component")
    axes.set_title("mean relevance, by the class explained", fontsize=10)
    figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.01)
    _save(figure, path)


def component_spectra(
    w: NDArray[np.floating],
    order: Sequence[int],
    titles: Sequence[str],
    settings: Domain,
    path: Path,
) -> None:
    """The spectrum of each of some components.

    Parameters
    ----------
    w : [F, K]
    order : sequence of int
        The components, in the order in which they are shown.
    titles : sequence of str
        One for each.
    settings : Domain
    path : Path
        A ``.png``.
    """
    columns = 5
    lines = -(-len(order) // columns)
    figure = _figure(2.3 * columns, 1.5 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    hz = np.linspace(0, settings.sample_rate / 2, settings.n_bins) / 1000
    for axes, k, title in zip(panels, order, titles, strict=False):
        axes.fill_between(hz, w[:, k], color=_BLUE, lw=0, alpha=0.8)
        axes.set_title(title, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        _tidy(axes)
    for axes in panels[len(order) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(order) - columns) : len(order)]:
        axes.set_xlabel("kHz", fontsize=7)
    _save(figure, path)


def component_map(
    points: NDArray[np.floating],
    explained: NDArray[np.integer],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Clips in the plane, near one another where the same components mattered.

    Parameters
    ----------
    points : [P, 2]
    explained : int [P]
        The class explained.
    classes : sequence of str
    path : Path
        A ``.png``.
    """
    from matplotlib import colormaps

    figure = _figure(7.5, 5)
    axes = figure.subplots()
    there = [c for c in range(len(classes)) if (explained == c).any()]
    marks = "osD^vP*X<>"
    for number, c in enumerate(there):
        mine = points[explained == c]
        axes.scatter(
            mine[:, 0],
            mine[:, 1],
            s=22,
            color=colormaps["tab10"](number % 10),
            marker=marks[(number // 10 + number) % len(marks)],
            label=classes[c],
            alpha=0.85,
            linewidths=0,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("relevances of the components, in two dimensions", fontsize=10)
    if len(there) <= 20:
        axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    _save(figure, path)


def sweep(
    children: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    settings: Sequence[str],
    path: Path,
) -> None:
    """Figures of a sweep: a point per training, and mean and standard deviation per setting.

    Parameters
    ----------
    children : sequence of mappings
        ``setting`` and ``scores``.
    titles : mapping of str to str
        The scores to draw, and what they are called.
    settings : sequence of str
        From top to bottom.
    path : Path
        A ``.png``.
    """
    columns = min(3, len(titles))
    lines = -(-len(titles) // columns)
    figure = _figure(1.2 + 2.9 * columns, lines * (0.9 + 0.26 * len(settings)))
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for number, (name, title) in enumerate(titles.items()):
        axes = panels[number // columns][number % columns]
        for row, setting in enumerate(settings):
            own = [c["scores"].get(name) for c in children if c["setting"] == setting]
            x = np.array([v for v in own if v is not None], np.float64)
            if not len(x):
                continue
            axes.plot(x, np.full(len(x), row), "o", color=_GREY, ms=4, alpha=0.6, mew=0)
            std = x.std(ddof=1) if len(x) > 1 else None
            axes.errorbar(x.mean(), row, xerr=std, fmt="D", color=_BLUE, ms=5, capsize=3)
        axes.set_title(title, fontsize=8)
        axes.set_yticks(range(len(settings)), settings, fontsize=8)
        axes.set_ylim(len(settings) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=8)
        # Numbers around 0.00004 would run into one another.
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        axes.xaxis.get_offset_text().set_fontsize(8)
        axes.grid(axis="x", lw=0.5, alpha=0.4)
        axes.margins(x=0.12)
        _tidy(axes)
    for number in range(len(titles), lines * columns):
        panels[number // columns][number % columns].set_visible(False)
    _save(figure, path)

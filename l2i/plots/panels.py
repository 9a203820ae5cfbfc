"""The picture of an explanation: spectrograms side by side, and bars of relevance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.spectrogram import Domain
from l2i.plots.drawing import BLUE, DPI, NO_GLYPH, RANGE_DB, new_figure, tidy

# Names of components, one under another, for which there is room.
_NAMES = 15


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
    image.save(path, dpi=(DPI, DPI), pnginfo=software, compress_level=3)


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
    bar = np.array([to_rgb(BLUE)]) * 255
    magma = colormaps["magma"](np.linspace(0, 1, 256 - _COLD), bytes=True)[:, :3]
    return np.concatenate([greys, bar.round(), magma]).astype(np.uint8)


class _Panels:
    """What all pictures of so many spectrograms of one length have in common.

    There may be hundreds of such pictures, and matplotlib takes half a second for one. Axes, their
    numbers and the colour bar are drawn once; of each picture it writes the words alone, and
    spectrograms and bars are put in as pixels. Axes end at so many seconds and kilohertz.
    """

    def __init__(self, count: int, seconds: float, kilohertz: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        # In inches. A layout engine would draw all of it more than once.
        left, panel, gap, bar, low, tall = 0.65, 2.75, 0.36, 0.14, 0.5, 2.6
        spectra = [left + i * (panel + gap) for i in range(count)]
        scale = spectra[-1] + panel + 0.18
        side = scale + bar + 1.1
        width, height = side + 1.7 + 0.2, 3.6
        self.figure = new_figure(width, height, layout=None)
        self.figure.set_dpi(DPI)
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
        scale_axes.set_ylim(-RANGE_DB, 0)
        scale_axes.yaxis.tick_right()
        scale_axes.yaxis.set_label_position("right")
        scale_axes.set_ylabel("dB")
        self._bars.set_xlim(0, 1)
        self._bars.set_xticks([0, 0.5, 1])
        self._bars.set_yticks([])
        self._bars.set_title("relevance of components", fontsize=9)
        tidy(self._bars)
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
        named = list(enumerate(relevances))[:: -(-len(relevances) // _NAMES) or 1]
        for words in self._names:
            words.set_text("")
        for words, (i, (k, _)) in zip(self._names, named, strict=False):
            words.set_text(str(k))
            words.set_position((-0.04, 1 - (i + 0.5) / places))
        self._nothing.set_visible(not relevances)
        self._canvas.restore_region(self._empty)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", NO_GLYPH)
            for words in (*self._titles, self._title, *self._names, self._nothing):
                self.figure.draw_artist(words)
        grey = np.asarray(self._canvas.buffer_rgba())[..., 0]
        pixels = (grey * np.float32((_GREYS - 1) / 255)).round().astype(np.uint8)

        top = max(float(m.max()) for m in magnitudes)
        for axes, m in zip(self._spectra, magnitudes, strict=True):
            rows, columns = self._inside(axes)
            power = _shrunk(m, rows.stop - rows.start, columns.stop - columns.start)
            db = 10 * np.log10(np.maximum(power, 1e-24) / (top or 1.0) ** 2)
            level = _COLD + (255 - _COLD) * np.clip(1 + db / RANGE_DB, 0, 1)
            pixels[rows, columns] = level[::-1].round()
        rows, columns, levels = self._scale
        pixels[rows, columns] = levels
        rows, columns = self._inside(self._bars)
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        for i, (_, r) in enumerate(relevances):
            first, end = (rows.start + round((i + at) * tall / places) for at in (0.1, 0.9))
            pixels[first:end, columns.start : columns.start + round(r * wide)] = _BAR
        return pixels


_panels = lru_cache(maxsize=4)(_Panels)


def _shrunk(magnitude: NDArray[np.floating], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean power of the bins and frames of each pixel [rows, columns]."""
    power = _means(magnitude.shape[0], rows) @ np.square(magnitude, dtype=np.float32)
    return (_means(magnitude.shape[1], columns) @ power.T).T


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

"""Pictures of a run: training curves, dictionary, confusion matrix, components, a sweep.

Each function draws one file, a ``.png``; the picture of an explanation is in `l2i.plots.panels`.
Figures are made without pyplot, whose global state would outlive them, and without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.dsp.spectrogram import Domain
from l2i.plots.drawing import BLUE, GREEN, GREY, ORANGE, new_panels, save, tidy


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
    figure, grid = new_panels(len(panels), 4.2, 3.0)
    for axes, (stage, word, group) in zip(grid, panels, strict=True):
        epochs = histories[stage]
        x = np.arange(1, len(epochs) + 1)
        for name, colour in zip(group, (BLUE, ORANGE, GREEN, GREY), strict=False):
            y = [figures.get(name, np.nan) for figures in epochs]
            # A single epoch is a point, which a line would not show.
            axes.plot(x, y, color=colour, label=name.replace("_", " "), marker="." * (len(x) < 3))
        if "validation_loss" in group and kept and stage in kept:
            axes.axvline(kept[stage], color=GREY, linewidth=0.8, linestyle=":")
        if word == "share":
            axes.set_ylim(0, 1.02)
        elif min(y for name in group for y in (e.get(name, 1.0) for e in epochs)) > 0:
            axes.set_yscale("log")
        axes.set_title(f"{stage}: {word}", fontsize=10)
        axes.set_xlabel("sweep" if group == ["objective"] else "epoch")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    save(figure, path)


def dictionary(w: NDArray[np.floating], settings: Domain, path: Path) -> None:
    """The columns of W [F, K], ordered by the frequency where they are centred."""
    frequency = np.arange(w.shape[0]) * settings.sample_rate / settings.n_fft / 1000
    weight = w / np.maximum(w.sum(axis=0, keepdims=True), 1e-12)
    order = np.argsort(weight.T @ frequency)
    figure, (axes,) = new_panels(1, 9, 4.5)
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
    save(figure, path)


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
    figure, (axes,) = new_panels(
        1, max(5.1, 0.42 * len(columns) + 2.1), max(4.5, 0.42 * len(rows) + 1.5)
    )
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
    save(figure, path)


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
    figure, panels = new_panels(len(titles), 3.2, 2.4)
    colours = list(dict.fromkeys(c["colour"] for c in conditions if c["colour"]))
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for colour, ink in zip(colours, (BLUE, ORANGE, GREEN), strict=False):
            points = sorted(
                (c["snr_db"], c["scores"][name])
                for c in conditions
                if c["colour"] == colour and c["scores"].get(name) is not None
            )
            x, y = [x for x, _ in points], [y for _, y in points]
            axes.plot(x, y, "o-", color=ink, ms=4, label=f"{colour} noise")
        clean = [c["scores"].get(name) for c in conditions if not c["colour"]]
        if clean and clean[0] is not None:
            axes.axhline(clean[0], color=GREY, ls=":", lw=1.2, label="no noise")
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("SNR, dB")
        axes.margins(x=0.15, y=0.15)
        tidy(axes)
    # Lines cross and meet, so that names at their ends would lie upon one another.
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    save(figure, path)


def component_relevance(table: NDArray[np.floating], classes: Sequence[str], path: Path) -> None:
    """Mean relevance [C, K] of each component for each class, in [-1, 1]; NaN for a class that was
    never explained."""
    n, k = table.shape
    figure, (axes,) = new_panels(1, min(16, 3 + 0.11 * k), min(14, 1.6 + 0.24 * n))
    picture = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_yticks(range(n), classes, fontsize=8)
    axes.set_xlabel("component")
    axes.set_title("mean relevance, by the class explained", fontsize=10)
    figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.01)
    save(figure, path)


def component_spectra(
    w: NDArray[np.floating],
    order: Sequence[int],
    titles: Sequence[str],
    settings: Domain,
    path: Path,
) -> None:
    """The spectra in W [F, K] of some components, in this order, each with a title."""
    columns = 5
    figure, panels = new_panels(len(order), 2.3, 1.5, columns, sharex=True)
    hz = np.linspace(0, settings.sample_rate / 2, settings.n_bins) / 1000
    for axes, k, title in zip(panels, order, titles, strict=True):
        axes.fill_between(hz, w[:, k], color=BLUE, lw=0, alpha=0.8)
        axes.set_title(title, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        tidy(axes)
    for axes in panels[-columns:]:
        axes.set_xlabel("kHz", fontsize=7)
    save(figure, path)


def component_map(
    points: NDArray[np.floating], explained: NDArray[np.integer], classes: Sequence[str], path: Path
) -> None:
    """Clips in the plane, at points [P, 2] that are near one another where the same components
    mattered; the class explained of each, int [P], is its colour."""
    from matplotlib import colormaps

    figure, (axes,) = new_panels(1, 7.5, 5)
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
    save(figure, path)


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
    figure, panels = new_panels(len(titles), 2.9, 0.9 + 0.26 * len(settings), sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 1.2)  # The settings' names.
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for row, setting in enumerate(settings):
            own = [c["scores"].get(name) for c in children if c["setting"] == setting]
            x = np.array([v for v in own if v is not None], np.float64)
            if not len(x):
                continue
            axes.plot(x, np.full(len(x), row), "o", color=GREY, ms=4, alpha=0.6, mew=0)
            std = x.std(ddof=1) if len(x) > 1 else None
            axes.errorbar(x.mean(), row, xerr=std, fmt="D", color=BLUE, ms=5, capsize=3)
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
        tidy(axes)
    save(figure, path)

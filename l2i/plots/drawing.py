"""What all pictures have in common: colours, resolution, and how one is begun and saved."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from l2i.errors import MissingPackage

# Okabe and Ito's colours: told apart by colour-blind readers, and on paper.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8A8A8A"
DPI = 110
RANGE_DB = 80.0
# Names may have signs that the font has not: a box stands in their place.
NO_GLYPH = r"Glyph .* missing from"


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise MissingPackage("This picture", "matplotlib") from None
    return Figure(figsize=(width, height), layout=layout)


def new_panels(
    count: int, width: float, height: float, columns: int = 3, **shared: bool
) -> tuple[Any, Any]:
    """A figure of so many axes, each as large, in rows of `columns` at most; and these axes."""
    columns = min(columns, max(1, count))
    rows = max(1, -(-count // columns))
    figure = new_figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_GLYPH)
        # What `savefig` makes, which lays everything out twice.
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": "l2i"})


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)

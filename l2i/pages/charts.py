"""Lines over an axis, as SVG: in the page's light or dark scheme, with words that are text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from l2i.pages.page import escape

Line = tuple[str, Sequence[float | None]]
_W, _H, _LEFT, _BOTTOM, _TOP, _RIGHT = 340, 210, 46, 34, 8, 10


def _ticks(low: float, high: float, log: bool) -> list[float]:
    # The pictures' library, which what evaluates has loaded already.
    from matplotlib.ticker import LogLocator, MaxNLocator

    locator: LogLocator | MaxNLocator = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    # Fewer than two of 1, 2, 5 may lie within less.
    if log and high >= 5 * low:
        decades = math.floor(math.log10(high)) - math.ceil(math.log10(low))
        locator = LogLocator(subs=(1,) if decades > 1 else (1, 2, 5), numticks=8)
    slack = 1e-9 * (high - low)
    return [float(v) for v in locator.tick_values(low, high) if low - slack <= v <= high + slack]


def chart(
    title: str,
    x: Sequence[float],
    lines: Sequence[Line],
    x_label: str,
    *,
    log: bool = False,
    span: tuple[float, float] | None = None,
    mark: float | None = None,
) -> str:
    """A figure with lines over `x`; what is not finite is left out. `mark`: a dotted line."""
    values = [v for _, ys in lines for v in ys if v is not None and math.isfinite(v)]
    if not values:
        return ""
    low, high = span or (min(values), max(values))
    log = log and low > 0
    if not span and not log:
        pad = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        low, high = low - pad, high + pad
    if log and high <= low * 1.05:
        low, high = low / 1.2, high * 1.2
    left, right = min(x), max(x)
    if left == right:
        left, right = left - 1, right + 1

    def at_x(value: float) -> float:
        return _LEFT + (value - left) / (right - left) * (_W - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        a, b, v = (math.log10(w) for w in (low, high, value)) if log else (low, high, value)
        return _H - _BOTTOM - (v - a) / (b - a) * (_H - _BOTTOM - _TOP)

    drawn = []
    for tick in _ticks(low, high, log):
        y = at_y(tick)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        drawn.append(f'<text class="y" x="{_LEFT - 5}" y="{y + 4:.1f}">{tick:.4g}</text>')
    whole = all(float(v).is_integer() for v in x)
    for tick in _ticks(left, right, False):
        if whole and not float(tick).is_integer():
            continue
        drawn.append(
            f'<text class="x" x="{at_x(tick):.1f}" y="{_H - _BOTTOM + 15}">{tick:.4g}</text>'
        )
    drawn.append(
        f'<text class="x" x="{(_LEFT + _W - _RIGHT) / 2}" y="{_H - 4}">{escape(x_label)}</text>'
    )
    if mark is not None:
        at = f"{at_x(mark):.1f}"
        drawn.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_H - _BOTTOM}"/>')
    keys, ranges = [], []
    for number, (name, ys) in enumerate(lines):
        points = [
            (at_x(a), at_y(b))
            for a, b in zip(x, ys, strict=True)
            if b is not None and math.isfinite(b)
        ]
        way = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        drawn.append(f'<polyline class="line l{number}" points="{way}"/>')
        if len(points) <= 12:
            drawn += [
                f'<circle class="dot l{number}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>'
                for a, b in points
            ]
        keys.append(
            f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
            f'<line class="line l{number}" x1="0" x2="24" y1="4" y2="4"/></svg>{escape(name)}</li>'
        )
        known = [v for v in ys if v is not None]
        if known:
            ranges.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}")
    words = escape(f"{title}: {'; '.join(ranges)}")
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="chart" role="img" '
        f'viewBox="0 0 {_W} {_H}" aria-label="{words}">{"".join(drawn)}</svg>'
        f'<ul class="keys">{"".join(keys)}</ul></figure>'
    )

"""Charts as inline SVG: lines, bars with intervals, histograms.

Colours come from CSS variables of the page, so a chart follows light and dark. Every mark has a `<title>`, which
browsers show as a tooltip without any script. Everything a caller passes is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from llava.report.numbers import LARGEST, as_float, log_ticks, ticks, widened
from llava.written_numbers import readable

WIDTH = 720
COLOURS = 8  # --c0 .. --c7 in style.css
MOST_POINTS = 600  # a series longer than this is thinned; extremes are kept
TOOLTIPS = 80  # points of a series that carry a tooltip


@dataclass(frozen=True)
class Bar:
    """One bar: a value, and the interval around it where one is known. Bars with a `series` are grouped by label."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    series: str = ""


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    *,
    x: str,
    y: str,
    log_y: bool = False,
    height: int = 300,
) -> Markup:
    """Lines over a common x axis. Points without a finite value (or a positive one, with `log_y`) break a line."""
    lines = {name: _thin([(as_float(a), as_float(b)) for a, b in points]) for name, points in series.items()}
    shown = [point for points in lines.values() for point in points if _drawable(point, log_y)]
    if not shown:
        return _empty("no values to draw")
    xs, ys = [point[0] for point in shown], [point[1] for point in shown]
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else ticks(min(ys), max(ys))
    low_x, high_x = min(xs), max(xs)
    if low_x == high_x:
        low_x, high_x = low_x - 0.5, high_x + 0.5
    low_x, high_x = widened(low_x, high_x)
    x_ticks = [tick for tick in ticks(low_x, high_x, 7) if low_x <= tick <= high_x]
    left, right, top, bottom = 74, 14, 12, 44
    plot_w, plot_h = WIDTH - left - right, height - top - bottom
    scale = (lambda value: math.log10(max(value, 1 / LARGEST))) if log_y else float
    y_low, y_high = scale(y_ticks[0]), scale(y_ticks[-1])

    def at_x(value: float) -> float:
        return left + (value - low_x) / (high_x - low_x) * plot_w

    def at_y(value: float) -> float:
        return top + plot_h - (scale(value) - y_low) / (y_high - y_low) * plot_h

    parts = [_y_axis(y_ticks, at_y, left, WIDTH - right, y, top + plot_h / 2)]
    parts += [_x_tick(at_x(tick), height - bottom + 18, tick) for tick in x_ticks]
    parts.append(_text(left + plot_w / 2, height - 8, x, "axis", "middle"))
    for index, (name, points) in enumerate(lines.items()):
        colour = f"var(--c{index % COLOURS})"
        for piece in _pieces(points, log_y):
            path = " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in piece)
            if len(piece) > 1:
                parts.append(Markup('<polyline class="line" points="{}" style="stroke:{}"/>').format(path, colour))
        every = max(1, len(points) // TOOLTIPS)
        for a, b in [point for point in points[::every] if _drawable(point, log_y)]:
            tip = f"{name}\n{x} {readable(a)}\n{y} {readable(b)}"
            parts.append(_dot(at_x(a), at_y(b), colour, tip, hidden=len(points) > 40))
    return _legend(list(lines)) + _svg(height, parts)


def bar_chart(bars: Sequence[Bar], *, y: str) -> Markup:
    """Horizontal bars, because labels are words; whiskers show each bar's interval, `y` names the value's axis."""
    if not bars:
        return _empty("no values to draw")
    bars = [replace(bar, value=as_float(bar.value), low=as_float(bar.low), high=as_float(bar.high)) for bar in bars]
    names = list(dict.fromkeys(bar.series for bar in bars))
    labels = list(dict.fromkeys(bar.label for bar in bars))
    thick, gap = (18, 10) if len(names) == 1 else (13, 12)
    left = min(240, 24 + 7 * max(len(label) for label in labels))
    right, top, bottom = 64, 6, 44
    height = top + bottom + sum(thick * sum(bar.label == label for bar in bars) + gap for label in labels)
    finite = [
        value for bar in bars for value in (bar.value, bar.low, bar.high) if value is not None and math.isfinite(value)
    ]
    x_ticks = ticks(min(0.0, *finite, 0.0), max(0.0, *finite, 0.0), 6)
    if all(0 <= value <= 1 for value in finite) and max(finite, default=0) > 0.4:
        x_ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    plot_w = WIDTH - left - right

    def at(value: float) -> float:
        return left + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * plot_w

    parts: list[Markup] = []
    for tick in x_ticks:
        parts.append(_rule(at(tick), top, at(tick), height - bottom, "zero" if tick == 0 else "grid"))
        parts.append(_x_tick(at(tick), height - bottom + 18, tick))
    parts.append(_text(left + plot_w / 2, height - 8, y, "axis", "middle"))
    row = float(top)
    for label in labels:
        group = [bar for bar in bars if bar.label == label]
        middle = row + gap / 2 + thick * len(group) / 2
        parts.append(_text(left - 8, middle + 4, label, "label", "end", limit=34))
        row += gap / 2
        for bar in group:
            parts.append(_bar(bar, at, row, thick, names.index(bar.series), y))
            row += thick
        row += gap / 2
    return _legend([name for name in names if name]) + _svg(height, parts)


def histogram(values: Sequence[float | None], *, x: str, height: int = 220) -> Markup:
    """Counts of values in equal bins of round width."""
    finite = [value for value in map(as_float, values) if math.isfinite(value)]
    if not finite:
        return _empty("no values to draw")
    whole = all(value == int(value) for value in finite)
    edges = ticks(min(finite), max(finite) + (1 if whole else 0), min(30, max(5, int(len(finite) ** 0.5))))
    if whole and edges[1] - edges[0] < 1:
        edges = [float(edge) for edge in range(int(min(finite)), int(max(finite)) + 2)]
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in finite:
        counts[min(len(counts) - 1, max(0, math.floor((value - edges[0]) / width + 1e-9)))] += 1
    left, right, top, bottom = 74, 14, 12, 44
    plot_w, plot_h = WIDTH - left - right, height - top - bottom
    y_ticks = [tick for tick in ticks(0, max(counts), 4) if tick == int(tick)]

    def at_x(value: float) -> float:
        return left + (value - edges[0]) / (edges[-1] - edges[0]) * plot_w

    def at_y(value: float) -> float:
        return top + plot_h - value / y_ticks[-1] * plot_h

    parts = [_y_axis(y_ticks, at_y, left, WIDTH - right, "count", top + plot_h / 2)]
    x_ticks = [tick for tick in ticks(edges[0], edges[-1], 7) if edges[0] <= tick <= edges[-1]]
    parts += [_x_tick(at_x(tick), height - bottom + 18, tick) for tick in x_ticks]
    for index, count in enumerate(counts):
        a, b = at_x(edges[index]), at_x(edges[index + 1])
        tip = f"{readable(edges[index])} to {readable(edges[index + 1])}: {readable(count)}"
        base = top + plot_h
        parts.append(
            _rect(a + 0.5, at_y(count), max(0.5, b - a - 1), base - at_y(count), 0) + _tip(tip) + Markup("</rect>")
        )
    parts.append(_text(left + plot_w / 2, height - 8, x, "axis", "middle"))
    return _svg(height, parts)


def _bar(bar: Bar, at: Callable[[float], float], row: float, thick: int, colour: int, y: str) -> Markup:
    name = f"{bar.label}, {bar.series}" if bar.series else bar.label
    if bar.value is None or not math.isfinite(bar.value):
        return _text(at(0) + 6, row + thick - 4, readable(bar.value), "value", "start")
    tip = f"{name}\n{y} {readable(bar.value)}"
    start, end = sorted((at(0), at(bar.value)))
    mark = Markup("<g>") + _rect(start, row + 1, max(1.0, end - start), thick - 2, colour) + Markup("</rect>")
    if bar.low is not None and bar.high is not None and math.isfinite(bar.low) and math.isfinite(bar.high):
        tip += f"\nfrom {readable(bar.low)} to {readable(bar.high)}"
        middle, low, high = row + thick / 2, at(bar.low), at(bar.high)
        end = max(end, high)
        mark += _rule(low, middle, high, middle, "whisker")
        for cap in (low, high):
            mark += _rule(cap, middle - 3, cap, middle + 3, "whisker")
    mark += _text(end + 6, row + thick / 2 + 4, readable(round(bar.value, 4)), "value", "start")
    return mark + _tip(tip) + Markup("</g>")


def _pieces(points: Sequence[tuple[float, float]], log_y: bool) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if _drawable(point, log_y):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _drawable(point: tuple[float, float], log_y: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (point[1] > 0 or not log_y)


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the lowest and the highest of every run of neighbours: a spike must not vanish."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        run = points[start : start + size]
        order = {point: index for index, point in reversed(list(enumerate(run)))}
        finite = [point for point in run if math.isfinite(point[1])] or run
        pair = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(pair, key=order.__getitem__)
    return kept


def _y_axis(
    values: Sequence[float], at: Callable[[float], float], left: float, right: float, name: str, middle: float
) -> Markup:
    parts = Markup("")
    for value in values:
        parts += _rule(left, at(value), right, at(value), "grid") + _text(
            left - 8, at(value) + 4, readable(value), "tick", "end"
        )
    turned = Markup('<text class="axis" text-anchor="middle" transform="translate(14 {:.1f}) rotate(-90)">{}</text>')
    return parts + turned.format(middle, name)


def _rect(x: float, y: float, width: float, height: float, colour: int) -> Markup:
    """An open `<rect>`, so that a tooltip can go into it."""
    place = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"').format(x, y, width, height)
    return place + Markup(' style="fill:var(--c{})">').format(colour % COLOURS)


def _dot(x: float, y: float, colour: str, tip: str, *, hidden: bool) -> Markup:
    """A point; hidden ones show under the pointer only, so that a long line stays a line."""
    kind, radius = ("dot hidden", 6) if hidden else ("dot", 3)
    place = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"').format(kind, x, y, radius)
    return place + Markup(' style="fill:{}">').format(colour) + _tip(tip) + Markup("</circle>")


def _tip(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str, anchor: str, *, limit: int = 200) -> Markup:
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, short)


def _x_tick(x: float, y: float, value: float) -> Markup:
    """A number under the axis, pushed inwards where it would leave the frame."""
    text = readable(value)
    outside = x + 4 * len(text) > WIDTH
    return _text(WIDTH if outside else x, y, text, "tick", "end" if outside else "middle")


def _legend(names: Sequence[str]) -> Markup:
    if len(names) < 2:
        return Markup("")
    items = Markup("").join(
        Markup('<span><i style="background:var(--c{})"></i>{}</span>').format(index % COLOURS, name)
        for index, name in enumerate(names)
    )
    return Markup('<div class="legend">{}</div>').format(items)


def _svg(height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img">{}</svg>').format(
        WIDTH, height, Markup("").join(parts)
    )


def _empty(text: str) -> Markup:
    return Markup('<p class="empty">{}</p>').format(text)

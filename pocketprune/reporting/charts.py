"""Charts as SVG text: curves and clouds of points on two axes.

A chart has a mark of its own shape for every series, so that it can be read without colours. Hovering a point shows
what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pocketprune.reporting.scales import Point, Scale, fewer, range_of, tick_texts, ticks

WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44
COLOURS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 4")
SHAPES = ("circle", "square", "diamond", "triangle", "ring", "cross")


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Attributes:
        name: in the legend; "" leaves it out there.
        points: (x, y) each.
        colour: number of the colour.
        shape: of the marks, one of SHAPES; "" draws a line.
        size: of a mark, half its width.
        told: what a mark says when it is hovered.
        labels: short texts beside the marks.
        pale: whether it is background to the others.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    shape: str = ""
    size: float = 4.0
    told: Sequence[str] = ()
    labels: Sequence[str] = ()
    pale: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, whether as percent."""

    title: str
    percent: bool = False


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Return a figure with its caption and legend; nothing where there are no points."""
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    across = Scale(*range_of(p[0] for one in drawn for p in one.points), LEFT, WIDTH - RIGHT)
    up = Scale(*range_of(p[1] for one in drawn for p in one.points), HEIGHT - BOTTOM, TOP)
    marks = "".join(_series(one, across, up) for one in drawn)
    words = f"{title}: {y.title} against {x.title}"
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">'
        f"{_axes(across, up, x, y)}{marks}</svg>"
    )
    legend = _legend(drawn) if len(drawn) > 1 else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{picture}</figure>"


def _axes(across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    parts, bottom = [], HEIGHT - BOTTOM
    places = ticks(up.low, up.high)
    for value, text in zip(places, tick_texts(places, y.percent), strict=True):
        at = f"{up(value):.1f}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="var(--line)"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at}" dy="4" text-anchor="end">{text}</text>')
    places = ticks(across.low, across.high)
    for value, text in zip(places, tick_texts(places, x.percent), strict=True):
        at = f"{across(value):.1f}"
        parts.append(f'<line x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 4}" stroke="var(--muted)"/>')
        parts.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="var(--muted)"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.title)}</text>')
    return "".join(parts)


def _series(one: Series, across: Scale, up: Scale) -> str:
    colour = "var(--pale)" if one.pale else f"var(--s{one.colour % COLOURS})"
    if not one.shape:
        places = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in fewer(sorted(one.points)))
        dash = DASHES[one.colour % COLOURS]
        return (
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
            f'stroke-dasharray="{dash}"><title>{escape(one.name)}</title></polyline>'
        )
    parts = []
    for number, (a, b) in enumerate(one.points):
        told = one.told[number] if number < len(one.told) else one.name
        label = one.labels[number] if number < len(one.labels) else ""
        parts.append(_mark(one.shape, across(a), up(b), one.size, colour, told))
        parts.append(_label(label, across(a), up(b), one.size) if label else "")
    return "".join(parts)


def _label(text: str, x: float, y: float, size: float) -> str:
    """Return a text beside a mark, on the side where there is room."""
    left = x > WIDTH - RIGHT - 8 * len(text) - 12
    at = x - size - 4 if left else x + size + 4
    anchor = "end" if left else "start"
    return f'<text class="name" x="{at:.1f}" y="{y:.1f}" dy="-3" text-anchor="{anchor}">{escape(text)}</text>'


def _mark(shape: str, x: float, y: float, size: float, colour: str, told: str) -> str:
    hint, look = f"<title>{escape(told)}</title>", f'fill="{colour}" stroke="var(--paper)"'
    if shape in ("circle", "ring"):
        look = f'fill="var(--paper)" stroke="{colour}" stroke-width="2"' if shape == "ring" else look
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {look}>{hint}</circle>'
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "triangle": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
    }
    if shape in corners:
        places = " ".join(f"{x + a * size:.1f},{y + b * size:.1f}" for a, b in corners[shape])
        return f'<polygon points="{places}" {look}>{hint}</polygon>'
    lines = "".join(f"M{x - size:.1f} {y - s * size:.1f}L{x + size:.1f} {y + s * size:.1f}" for s in (1, -1))
    return f'<path d="{lines}" stroke="{colour}" stroke-width="2.5" fill="none">{hint}</path>'


def _legend(series: Sequence[Series]) -> str:
    """Return the names of the series, each beside its line or mark."""
    entries = []
    for one in {one.name: one for one in series if one.name}.values():
        colour = "var(--pale)" if one.pale else f"var(--s{one.colour % COLOURS})"
        dash = DASHES[one.colour % COLOURS]
        line = f'<line x1="0" x2="18" y1="6" y2="6" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        mark = _mark(one.shape, 9, 6, 4, colour, one.name) if one.shape else line
        entries.append(f'<li><svg viewBox="0 0 18 12" aria-hidden="true">{mark}</svg>{escape(one.name)}</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>'


def share_bar(kept: float, whole: float, widest: float) -> str:
    """Return a bar of `whole`, of which `kept` is dark; `widest` fills the width."""
    pale, dark = (100 * part / (widest or 1) for part in (whole, kept))
    return (
        '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{pale:.2f}" height="8" fill="var(--pale)"/>'
        f'<rect width="{dark:.2f}" height="8" fill="var(--s0)"/></svg>'
    )


def change(before: float | None, after: float | None, scale: Scale) -> str:
    """Return one row of dots: a ring for the value before, a dot for the one after, on a common scale to 0 .. 200."""
    parts = []
    if before is not None and after is not None:
        parts.append(f'<line x1="{scale(before):.1f}" x2="{scale(after):.1f}" y1="8" y2="8" stroke="var(--muted)"/>')
    if before is not None:
        parts.append(_mark("ring", scale(before), 8, 4, "var(--s1)", f"before the refit: {before:.4f}"))
    if after is not None:
        parts.append(_mark("circle", scale(after), 8, 4.5, "var(--s0)", f"after the refit: {after:.4f}"))
    return f'<svg viewBox="0 0 200 16" aria-hidden="true">{"".join(parts)}</svg>' if parts else ""
